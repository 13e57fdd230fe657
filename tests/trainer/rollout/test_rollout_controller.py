"""Stages move when time, sample and a person agree, and an abort takes effect before anything else."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.config import RolloutConfig
from trainer.errors import TrainerError
from trainer.rollout.controller import DAY, Controller, open_rollout
from trainer.rollout.rollout_state import DATABASE, KILL_SWITCH, RolloutState

CONFIG = RolloutConfig(min_sessions=3, days_per_stage=7)
CLI = [sys.executable, "-c", "from trainer.cli import main; main()", "rollout"]


class Clock:
    """A clock that is set by hand, ahead of the real one."""

    def __init__(self, state: RolloutState) -> None:
        self.at = state.current().entered_at

    def __call__(self) -> float:
        return self.at


def traffic(state: RolloutState, sessions: int, pinned: str = "teacher") -> None:
    for number in range(sessions):
        state.count(state.current().id, f"s{number}", pinned, pinned, "")  # type: ignore[arg-type]


def test_a_stage_ends_by_time_and_sample_and_not_before(tmp_path: Path) -> None:
    state = open_rollout(tmp_path, CONFIG)
    clock = Clock(state)
    controller = Controller(state, CONFIG, clock)
    with pytest.raises(TrainerError, match=r"0\.0 of 7 days; 0 of 3 sessions"):
        controller.advance()
    traffic(state, 3)
    with pytest.raises(TrainerError, match=r"0\.0 of 7 days; wait"):
        controller.advance()
    clock.at += 7 * DAY
    assert controller.status().blockers == []
    assert controller.advance().weight == 5
    clock.at = state.current().entered_at + 8 * DAY
    traffic(state, 10)  # the teacher's sessions say nothing about the student
    with pytest.raises(TrainerError, match="0 of 3 student sessions"):
        controller.advance()
    traffic(state, 3, "student")
    assert controller.advance().weight == 20
    state.close()


def test_force_goes_on_and_is_remembered(tmp_path: Path) -> None:
    state = open_rollout(tmp_path, CONFIG)
    controller = Controller(state, CONFIG)
    weights = [controller.advance(force=True, note="trial").weight for _ in range(4)]
    assert weights == [5, 20, 50, 80]
    with pytest.raises(TrainerError, match="last stage"):
        controller.advance(force=True)
    assert [(stage.action, stage.note) for stage in controller.status().stages[1:]] == [("force", "trial")] * 4
    state.close()


def test_abort_kills_first_and_advance_revives(tmp_path: Path) -> None:
    state = open_rollout(tmp_path, CONFIG)
    controller = Controller(state, CONFIG)
    controller.advance(force=True)
    controller.abort("wrong answers")
    assert state.killed
    assert "wrong answers" in (tmp_path / KILL_SWITCH).read_text("utf-8")
    found = controller.status()
    assert (found.weight, found.kill_switch, found.next_weight) == (0, True, 5)
    assert [stage.weight for stage in found.stages] == [0, 5, 0]
    controller.advance(force=True)
    assert not state.killed
    assert state.current().weight == 5
    state.close()


def test_a_decision_that_was_made_on_an_old_stage_is_refused(tmp_path: Path) -> None:
    one, other = open_rollout(tmp_path, CONFIG), open_rollout(tmp_path, CONFIG)
    seen = one.current().id
    Controller(other, CONFIG).advance(force=True)
    with pytest.raises(TrainerError, match="changed meanwhile"):
        one.enter(5, "advance", "", after=seen)
    assert one.current().weight == 5
    one.close()
    other.close()


def test_status_counts_sessions_requests_and_fallbacks_by_reason(tmp_path: Path) -> None:
    state = open_rollout(tmp_path, CONFIG)
    visit = state.current().id
    for session in ("a", "a", "b"):
        state.count(visit, session, "student", "student", "")
    for reason in ("timeout", "unknown_tool", "timeout", "no_tools"):
        state.count(visit, "b", "student", "teacher", reason)
    state.count(visit, "c", "teacher", "teacher", "")
    stage = Controller(state, CONFIG).status().stages[0]
    assert (stage.student_sessions, stage.teacher_sessions) == (2, 1)
    assert (stage.student_requests, stage.teacher_requests) == (3, 5)
    assert stage.fallbacks == {"timeout": 2, "unknown_tool": 1}
    assert stage.passed_on == {"no_tools": 1}
    assert stage.fallback_share == pytest.approx(3 / 6)
    assert stage.fallback_interval == pytest.approx((0.188, 0.812), abs=1e-3)
    state.close()


@pytest.mark.parametrize("weights", [[], [5, 5], [20, 5], [0, 101], [-1, 5]])
def test_weights_must_rise_within_percent(tmp_path: Path, weights: list[float]) -> None:
    with pytest.raises(TrainerError, match="rising percentages"):
        open_rollout(tmp_path, RolloutConfig(weights=weights))


def test_a_foreign_file_is_not_taken_for_a_state(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_text("not a database, and long enough to be looked at" * 50)
    with pytest.raises(TrainerError, match="not the state of a rollout"):
        open_rollout(tmp_path, CONFIG)


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *arguments], capture_output=True, text=True)


def test_commands_report_refuse_and_abort(tmp_path: Path) -> None:
    folder = str(tmp_path / "rollout")
    refused = cli("advance", "--state", folder)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "0 of 40 sessions" in refused.stderr
    assert cli("advance", "--state", folder, "--force", "--note", "first users").returncode == 0
    aborted = json.loads(cli("abort", "--state", folder, "--json").stdout)
    assert (aborted["weight"], aborted["kill_switch"]) == (0, True)
    shown = cli("status", "--state", folder)
    assert shown.returncode == 0
    assert "kill switch: on" in shown.stdout
    assert "force" in shown.stdout
    assert stat.S_IMODE((tmp_path / "rollout" / DATABASE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "rollout").stat().st_mode) == 0o700


def test_help_does_not_load_the_server() -> None:
    code = (
        "import sys; from trainer.cli import main\n"
        "try: main(['rollout', 'serve', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('starlette', 'uvicorn', 'httpx2', 'pydantic', 'sqlite3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
