"""What may change under a gateway that runs: a stage that nobody let in, another current model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from gateway_requests import CALL, TEACHER_SAYS, Build, ask, decisions
from loopback_servers import reply
from stage_traffic import registry_with

from trainer.config import Config, RolloutConfig
from trainer.rollout.controller import Controller, open_rollout
from trainer.rollout.rollout_state import LOG

CLI = [sys.executable, "-c", "from trainer.cli import main; main()", "rollout"]


def log(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / LOG).read_text("utf-8").splitlines()]


def test_a_stage_that_was_entered_by_hand_is_left_at_the_first_request(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])], weight=0, shadow=False)
    assert ask(house).json() == {"from": "teacher"}
    house.state._connection.execute(
        "INSERT INTO visit (weight, entered_at, action, note, model)"
        " SELECT 100, entered_at, 'advance', '', model FROM visit"
    )
    assert ask(house, session="new").json() == {"from": "teacher"}
    assert (house.state.current().weight, house.state.current().action) == (0, "rollback")
    assert house.local.asked == []
    assert "stage 100 % may not be served: " in str(log(house.folder)[-1]["why"])
    assert house.state.place("new")[1] == "teacher"


def test_a_new_current_model_takes_the_sessions_of_the_one_before_at_the_next_request(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])])
    assert ask(house).json()["model"] == "llama-claude-ppo-v1"
    registry_with(house.folder.parent, "PASS", name="llama-claude-ppo-v2")
    assert ask(house).json() == {"from": "teacher"}
    assert ask(house, session="new").json() == {"from": "teacher"}
    config = Config(models=str(house.folder.parent), rollout=RolloutConfig(weights=[100]))
    found = Controller(house.state, config).status()
    assert [(stage.weight, stage.action) for stage in found.stages] == [(100, "start"), (0, "new_model")]
    assert found.stages[-1].model == "llama-claude-ppo-v2 000000000000"
    assert found.stages[-1].figures.student.requests == 0
    assert log(house.folder)[-1]["action"] == "new_model"
    assert [line["visit"] for line in decisions(house, 3)] == [1, 2, 2]


def test_an_unreadable_registry_keeps_the_stage_and_the_answers(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])])
    (house.folder.parent / "registry.json").write_text("{")
    assert ask(house).json()["model"] == "llama-claude-ppo-v1"
    registry_with(house.folder.parent, "PASS")
    assert ask(house).json() == {"from": "teacher"}, "once it can be read, it counts"
    assert house.state.current().action == "new_model"


def test_the_command_refuses_a_stage_in_one_line_and_names_the_way_round(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'models = "{tmp_path}"\n[rollout]\nweights = [5, 50]\n')
    named = ["--config", str(config), "--state", str(tmp_path / "state")]
    refused = subprocess.run([*CLI, "serve", "--port", "0", *named], capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.count("\n"), refused.stdout) == (1, 1, "")
    assert "stage 5 % may not be served: " in refused.stderr
    assert "no blind test: set rollout.blind_test" in refused.stderr
    assert "`rollout serve --force REASON`" in refused.stderr
    assert [line["action"] for line in log(tmp_path / "state")] == ["start", "refuse"]
    shown = subprocess.run([*CLI, "status", *named], check=True, capture_output=True, text=True).stdout
    assert "NOT SERVED" in shown
    state = open_rollout(tmp_path / "state", RolloutConfig(weights=[5, 50]))
    assert state.current().model == "cc-claude-agent"
    state.close()
