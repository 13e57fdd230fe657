"""Failure beats success, neither is inconclusive, and no data is never a success."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_traffic import answered, config_with, failed, shadow, stage_at, traffic

from trainer.config import RolloutConfig, TeacherPrice
from trainer.rollout.controller import Controller, open_rollout
from trainer.rollout.rollout_state import SCORES
from trainer.rollout.stage_figures import stage_figures
from trainer.rollout.stage_gate import Phase, StageGate, judge, judge_stage

RULES = {"rollback": False}


@given(
    st.tuples(*[st.floats(-1, 1)] * 3).map(sorted).map(lambda found: (found[1], found[0], found[2])),
    st.floats(-1, 1),
    st.booleans(),
)
def test_a_figure_has_one_verdict_and_its_mirror_image_the_same(
    bounds: tuple[float, float, float], limit: float, at_most: bool
) -> None:
    value, low, high = bounds
    phase = judge(bounds, limit, at_most=at_most)
    assert phase == judge((-value, -high, -low), -limit, at_most=not at_most)
    if phase == "Successful":
        assert (value <= limit) if at_most else (value >= limit)
    if phase == "Failed":
        assert (value > limit) if at_most else (value < limit)
    if low < limit < high:
        assert phase == "Inconclusive"


def test_no_data_is_an_error() -> None:
    assert judge(None, 1.0, at_most=True) == "Error"


def gate_of(folder: Path, weight: float = 5, look: int = 1, **kinds: float) -> StageGate:
    config = config_with(folder, **RULES)
    state = open_rollout(folder, config.rollout)
    visit = stage_at(state, weight)
    traffic(Controller(state, config), state, **kinds)  # type: ignore[arg-type]
    found = judge_stage(visit.weight, stage_figures(state, visit, config.rollout), config.rollout, look=look)
    state.close()
    return found


@pytest.mark.parametrize(
    ("kinds", "phases"),
    [
        ({}, ["Successful", "Successful", "Successful"]),
        ({"share": 0.2}, ["Failed", "Successful", "Successful"]),
        ({"share": 0.05}, ["Inconclusive", "Successful", "Successful"]),
        ({"tool_errors": 0.2}, ["Successful", "Failed", "Successful"]),
        ({"pushback": 0.2}, ["Successful", "Successful", "Failed"]),
        ({"share": 0.2, "sessions": 0}, ["Error", "Error", "Error"]),
    ],
)
def test_each_figure_is_judged_against_its_limit_and_the_teacher(
    tmp_path: Path, kinds: dict[str, float], phases: list[Phase]
) -> None:
    found = gate_of(tmp_path, **kinds)
    assert [metric.phase for metric in found.metrics] == phases
    worst: list[Phase] = ["Failed", "Error", "Inconclusive", "Successful"]
    assert found.phase == min(phases, key=worst.index)


def test_nothing_is_judged_before_the_stage_is_done(tmp_path: Path) -> None:
    found = gate_of(tmp_path, look=0, share=0.9)
    assert {found.phase, *(metric.phase for metric in found.metrics)} == {"Running"}
    assert found.metrics[0].value == pytest.approx(0.9, abs=0.05), "but it is shown"


@pytest.mark.parametrize(
    ("total", "failures", "phase"),
    [(0.9, 0, "Successful"), (0.2, 0, "Failed"), (0.5, 0, "Inconclusive"), (0.95, 38, "Failed")],
)
def test_the_shadow_is_judged_before_the_first_session(
    tmp_path: Path, total: float, failures: int, phase: Phase
) -> None:
    config = config_with(tmp_path)
    state = open_rollout(tmp_path, config.rollout)
    shadow(state, total, failures=failures)
    figures = stage_figures(state, state.current(), config.rollout)
    found = judge_stage(0, figures, config.rollout, look=1)
    assert found.phase == phase
    assert figures.shadow is not None
    assert (figures.shadow.turns, figures.shadow.sessions) == (200, 40)
    state.close()


def test_a_shadow_of_another_visit_or_model_or_torn_by_a_kill_does_not_count(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    state = open_rollout(tmp_path, config.rollout)
    shadow(state, 0.9)
    with (tmp_path / SCORES).open("ab") as stream:
        stream.write(b'{"session": "s1", "visit": 1, "dropped": 0, "reason": "wrong_model", "total": -1.0}\n')
        stream.write(b'{"session": "s1", "visit": 1, "to')
    before = stage_figures(state, state.current(), config.rollout)
    assert before.shadow is not None
    assert before.shadow.turns == 200
    assert before.shadow.failures is not None
    assert before.shadow.failures.count == 0
    stage_at(state, 5)
    abort = Controller(state, config).abort(who="test")
    after = stage_figures(state, abort, config.rollout)
    assert after.shadow is None
    assert judge_stage(0, after, config.rollout, look=1).phase == "Error"
    state.close()


def test_sessions_that_fail_as_a_whole_widen_the_interval(tmp_path: Path) -> None:
    """Ten failures of one session say less than one failure of each of ten."""
    widths = []
    for name, sessions in (("spread", range(10)), ("one", [0] * 10)):
        config = config_with(tmp_path, **RULES)
        state = open_rollout(tmp_path / name, config.rollout)
        visit = stage_at(state, 5)
        for number in range(40):
            for _ in range(10):
                state.record(answered(visit.id, f"s{number}"), None, 0.02, 0.05)
        for number in sessions:
            state.record(failed(visit.id, f"s{number}"), None, 0.02, 0.05)
        failures = stage_figures(state, visit, config.rollout).failures
        assert failures is not None
        assert (failures.count, failures.n) == (10, 410)
        widths.append(failures.high - failures.low)
        state.close()
    assert widths[1] > 1.3 * widths[0]


def test_figures_of_both_sides_and_what_was_saved(tmp_path: Path) -> None:
    prices = [
        TeacherPrice(match="claude-opus-*", input=10, output=50),
        TeacherPrice(match="*-sonnet-*", input=1, output=2),
    ]
    config = RolloutConfig(prices=prices)
    state = open_rollout(tmp_path, config)
    visit = stage_at(state, 20)
    size = {"request_bytes": 400_000, "output_tokens": 1_000}
    rows = [
        answered(visit.id, "a", model="claude-opus-5", total_ms=1000, **size),
        answered(visit.id, "a", model="claude-opus-5", total_ms=3000, after="student", results=2, failed=1, **size),
        answered(visit.id, "a", model="strange", after="student", results=1, failed=1, rejected=1, **size),
        failed(visit.id, "a", "timeout", total_ms=9000, after="student", results=0),
        failed(visit.id, "a", "invalid_arguments", total_ms=2000, after="student", results=0),
        failed(visit.id, "a", "no_tools", total_ms=1),
        answered(visit.id, "b", "teacher", after="teacher", results=4, failed=1, retry=True),
        answered(visit.id, "b", "teacher", after="teacher", results=4, failed=1),
        answered(visit.id, "b", "teacher", interrupted=True),
        answered(visit.id, "c", "teacher"),
    ]
    for row in rows:
        state.record(row, None, 0.02, 0.05)
    found = stage_figures(state, visit, config)
    student, teacher = found.student, found.teacher
    assert (found.session_share, found.request_share) == (pytest.approx(1 / 3), pytest.approx(3 / 10))
    assert (student.sessions, student.requests, teacher.sessions, teacher.requests) == (1, 3, 2, 7)
    assert student.tool_errors is not None
    assert teacher.tool_errors is not None
    assert (student.tool_errors.count, student.tool_errors.n) == (1, 2)
    assert (teacher.tool_errors.count, teacher.tool_errors.n) == (1, 4), "a repeated request is not counted twice"
    assert (student.rejected, student.interrupted, teacher.interrupted, teacher.retries) == (1, 0, 1, 1)
    assert (found.fallbacks, found.schema_failures) == ({"invalid_arguments": 1, "timeout": 1}, 1)
    assert found.passed_on == {"no_tools": 1}
    assert (student.answer_p50_ms, student.answer_p95_ms) == (2000, 9000), "rescued requests took their time, too"
    assert student.output_tokens == 3_000
    assert found.saved.amount == pytest.approx(2 * (0.1 * 10 + 0.001 * 50))
    assert found.saved.unpriced == {"strange": 1}
    state.close()


def test_without_a_price_nothing_is_said_to_be_saved(tmp_path: Path) -> None:
    state = open_rollout(tmp_path, RolloutConfig())
    visit = stage_at(state, 5)
    state.record(answered(visit.id, "a", model="claude-opus-5", request_bytes=4000), None, 0.02, 0.05)
    assert stage_figures(state, visit, RolloutConfig()).saved.amount is None
    state.close()
