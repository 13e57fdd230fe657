"""The wiring of the stages, as far as it needs no model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rich.console import Console

from claude_capture.trace_storage import TraceStore
from trainer.config import parse_config
from trainer.errors import TrainerError
from trainer.pipeline import Road
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


def test_judging_a_student_that_was_never_trained_is_an_error_and_no_training(road: Road) -> None:
    road.dataset()
    for student in ("sft", "ppo"):
        with pytest.raises(TrainerError, match=f"no finished {student} run .*`claude-trainer {student}`"):
            road.versions.adapter(road.versions.find(student))
    with pytest.raises(TrainerError, match=r"`claude-trainer ppo --version 2`"):
        road.versions.adapter(road.versions.find("ppo", 2))
    assert road.versions.adapter(road.versions.find("untrained")) is None
    assert not list(road.runs.glob("*/result.json"))
