"""What `rollout status` and /status show: whole at 80 columns and on a phone, to those alone who may see it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from gateway_requests import CALL, TEACHER_SAYS, Build, ask, decisions, question
from loopback_servers import House, reply
from stage_traffic import blind_test_report, config_with, registry_with, shadow, stage_at, traffic

from trainer.config import Config, TeacherPrice
from trainer.rollout.controller import Controller, open_rollout
from trainer.rollout.status_page import status_page

CLI = [sys.executable, "-c", "from trainer.cli import main; main()", "rollout"]
HOSTILE = "<script>alert(1)</script> **bold** [x](javascript:alert(1))\nsecond line"


@pytest.fixture(scope="module")
def rolled_back(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """A rollout that went from the shadow to 5 and 20 % and was rolled back."""
    folder = tmp_path_factory.mktemp("rollout")
    registry_with(folder / "models", "PASS")
    report = blind_test_report(folder / "report.json", 25)
    prices = [TeacherPrice(match="*", input=3, output=15)]
    config = config_with(folder, blind_test=str(report), prices=prices)
    state = open_rollout(folder / "state", config.rollout)
    controller = Controller(state, config)
    shadow(state, 0.8)
    traffic(controller, state, sessions=20)
    controller.advance(who="kim", force=HOSTILE)
    traffic(controller, state)
    stage_at(state, 20)
    traffic(controller, state, share=0.2)
    state.close()
    (folder / "config.toml").write_text(
        f'models = "{folder / "models"}"\n[rollout]\nmin_sessions = 3\nblind_test = "{report}"\n'
        '[[rollout.prices]]\nmatch = "*"\ninput = 3\noutput = 15\n'
    )
    return folder, config


def test_eighty_columns_are_enough(rolled_back: tuple[Path, Config]) -> None:
    folder, _ = rolled_back
    named = ["--config", str(folder / "config.toml"), "--state", str(folder / "state")]
    shown = subprocess.run(
        [*CLI, "status", *named], check=True, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"}
    ).stdout
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["stage", "since", "by", "days", "student's", "answered", "failed", "gate"]
    assert [line.split()[0] for line in lines[1:5]] == ["0", "5", "20", "0"]
    assert "…" not in shown, "nothing is cut"
    assert re.search(r"failed, rescued +\d+\.\d % \[", shown)
    assert re.search(r"tool errors +\d+\.\d % \[\S+ \S+\] +\d+\.\d % \[", shown), "both sides"
    assert "saved, an estimate:" in shown
    assert "rollback by controller" in shown
    assert "next: 5 %, not before:" in shown


def test_the_page_says_it_with_plots_and_runs_nothing(rolled_back: tuple[Path, Config]) -> None:
    folder, config = rolled_back
    state = open_rollout(folder / "state", config.rollout)
    page = status_page(state, config).html()
    state.close()
    assert page.count("<svg") == 4
    assert "Rolled back" in page
    assert "<script" not in page
    assert "javascript:alert(1)" in page, "as text"
    assert 'href="javascript' not in page
    assert "second line" in page


def test_a_new_rollout_has_a_page_and_a_table_too(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    config = tmp_path / "config.toml"
    config.write_text(f'models = "{tmp_path}"\n')
    done = subprocess.run(
        [*CLI, "status", "--state", str(tmp_path / "state"), "--config", str(config), "--html", str(page)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "no blind test: set rollout.blind_test" in " ".join(done.stdout.split())
    assert "The student has not been asked yet." in page.read_text("utf-8")
    found = subprocess.run(
        [*CLI, "status", "--state", str(tmp_path / "state"), "--config", str(config), "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(found.stdout)["stages"][0]["gate"]["phase"] == "Running"


def see(house: House, **headers: str) -> httpx2.Response:
    return httpx2.get(f"{house.url}/status", headers=headers, verify=False, trust_env=False, timeout=120)


def test_the_gateway_shows_the_page_and_asks_nobody_for_it(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])])
    ask(house)
    decisions(house)
    shown = see(house)
    assert (shown.status_code, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "Stage 100 %" in shown.text
    assert "<svg" in shown.text
    assert len(house.teacher.asked) + len(house.local.asked) == 1
    assert see(house, host="evil.example:8094").status_code == 403, "a name that somebody pointed here"
    assert see(house, origin="https://evil.example").status_code == 403


def test_with_a_token_the_page_wants_it(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])], token="letmein")
    assert see(house).status_code == 401
    assert see(house, **{"x-claude-trainer-token": "letmein", "host": "gateway.example"}).status_code == 200


def test_what_the_gateway_counts_reaches_the_figures(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])])
    called = ask(house).json()["content"][0]["id"]
    asked = question()["messages"]
    refused = {"type": "tool_result", "tool_use_id": called, "is_error": True, "content": "User rejected tool use"}
    broken = {"type": "tool_result", "tool_use_id": called, "is_error": True, "content": "File does not exist."}
    use = {"type": "tool_use", "id": called, "name": "Read", "input": {"file_path": "/home/someone/grid/a"}}
    turn = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [refused, broken]}]
    ask(house, question(messages=[*asked, *turn]))
    decisions(house, 2)
    config = Config(models=str(house.folder))
    figures = Controller(house.state, config).status().stages[0].figures
    assert figures.student.rejected == 1
    assert figures.student.tool_errors is not None
    assert (figures.student.tool_errors.count, figures.student.tool_errors.n) == (1, 1)
    assert figures.student.output_tokens == 6
    assert figures.saved.unpriced == {"claude-sonnet-4-5": 2}
    assert figures.saved.input_tokens > 100
    assert (figures.session_share, figures.request_share) == (1.0, 1.0)
    assert figures.student.answer_p50_ms is not None


def test_the_gateway_rolls_back_by_itself(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL | {"name": "Nothing"}])])
    for number in range(6):
        ask(house, session=f"s{number}")
    lines = decisions(house, 6)
    assert [line["pinned"] for line in lines] == ["student"] * 4 + ["teacher"] * 2
    assert (house.state.current().weight, house.state.current().action) == (0, "rollback")
    assert len(house.local.asked) == 4
