"""The wiring of the stages, as far as it needs no trained model."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from claude_capture.trace_storage import TraceStore
from tests.trainer.student.tiny_bases import tiny_base
from trainer.command import look_ahead
from trainer.config import parse_config
from trainer.errors import TrainerError
from trainer.pipeline import Road, out_of_memory_in_ppo
from trainer.student_versions import UNTRAINED, Student
from trainer.terminal import Stages

sys.path.insert(0, str(Path(__file__).parent / "dataset"))
from dataset_traces import call, trace


@pytest.fixture
def road(tmp_path: Path) -> Road:
    teachers = [{"match": "scripted-teacher-*", "basis": "own work"}]
    config = parse_config({"teachers": teachers, "runs": str(tmp_path / "runs"), "dataset": {"test_fraction": 0.0}})
    sessions = [
        trace(f"count the lines of {name}", ("", [call("Bash", "7", command=f"wc -l {name}")]), session=name)
        for name in ("a.py", "b.py", "c.py")
    ]
    TraceStore.of(tmp_path / "data").append(sessions)
    return Road(config, tmp_path / "data", Stages(Console(quiet=True)))


def test_unreadable_trace_lines_are_counted_on_the_road_as_by_dataset_build(road: Road) -> None:
    with TraceStore.of(road.data).path.open("ab") as stream:
        stream.write(b'{"trace_id": "torn\n[1, 2]\n')
    report = road.dataset()
    assert (report.traces, report.used, report.quarantined) == (5, 3, 2)
    assert "2 traces left out" in road.stages.done[0].came_out


def test_tokens_and_hours_are_said_when_the_dataset_is_there_and_before_training(
    road: Road, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = road.config.student.model_copy(update={"base_model": tiny_base(tmp_path / "bases")})
    road.config = road.config.model_copy(update={"student": student})
    road.stages.console = Console(width=200)
    look_ahead(road)
    assert "then tokens and hours are known" in capsys.readouterr().out

    def stop() -> None:
        look_ahead(road, dataset_alone=True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        road.train(before_training=stop)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert re.match(r"✓  data +3 samples, about [\d,]+ tokens in 9 steps of SFT", lines[0])
    assert re.match(r"✓  SFT time +about \d+ minutes; assumes 30% of the device's peak", lines[1])
    assert len(lines) == 2
    assert not list(road.runs.glob("sft-*"))
    road.dataset_file.write_text("")
    with pytest.raises(TrainerError, match=r"data: .* has no training samples; read what `dataset build` left out"):
        look_ahead(road)


def test_ppo_that_runs_out_of_memory_says_what_needs_less_and_goes_on(road: Road) -> None:
    less_memory = r"set ppo\.gradient_checkpointing, or lower ppo\.episodes_at_once"
    with pytest.raises(TrainerError, match=less_memory), out_of_memory_in_ppo():
        torch.empty(1 << 50)
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_in_ppo():
        raise RuntimeError("shapes do not match")
    road.dataset()
    folder = road.versions.folder(Student("ppo", 1))
    less = {"gradient_checkpointing": True, "episodes_at_once": 1}
    road.config = road.config.model_copy(update={"ppo": road.config.ppo.model_copy(update=less)})
    road.forget()
    assert road.versions.folder(Student("ppo", 1)) == folder, "the same run"


def test_judging_a_student_that_was_never_trained_is_an_error_and_no_training(road: Road) -> None:
    road.dataset()
    for student in ("sft", "ppo"):
        with pytest.raises(TrainerError, match=f"no finished {student} run .*`claude-trainer {student}`"):
            road.versions.adapter(road.versions.find(student))
    with pytest.raises(TrainerError, match=r"`claude-trainer ppo --version 2`"):
        road.versions.adapter(road.versions.find("ppo", 2))
    assert road.versions.adapter(road.versions.find("untrained")) is None
    assert not list(road.runs.glob("*/result.json"))


def test_round_of_mining_that_is_killed_does_not_count(
    road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = road.config.student.model_copy(update={"base_model": tiny_base(tmp_path / "bases")})
    ppo = road.config.ppo.model_copy(update={"max_turns": 1, "max_new_tokens": 8})
    road.config = road.config.model_copy(update={"student": student, "ppo": ppo})
    _, first = road.mine(UNTRAINED, samples=2, prompts=2)
    file = road.runs / "mined.jsonl"
    before = file.read_bytes()

    child = os.fork()
    if child == 0:  # it dies when all its prompts are scored and it is about to write them down
        die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        monkeypatch.setattr("trainer.ppo.adversarial_prompt_miner.write_mined", die)
        road.mine(UNTRAINED, samples=2, prompts=2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert file.read_bytes() == before
    _, second = road.mine(UNTRAINED, samples=2, prompts=2)
    assert (first.round, second.round) == (0, 1)
