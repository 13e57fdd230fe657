"""When a student passes, fails, or has not been asked enough."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import GateConfig
from trainer.ppo.quality_gate import judge, prompts_needed
from trainer.records import GateReport, RewardBreakdown, RewardComponents, component


def scored(reward: float, alignment: float, constraints: float | None) -> RewardBreakdown:
    parts = RewardComponents(
        tool_use=component(alignment), constraints=None if constraints is None else component(constraints)
    )
    return RewardBreakdown(trace_id="t", total=reward, components=parts)


def spread(mean: float, half: float, n: int) -> list[float]:
    """n values, half of them above and half below the mean."""
    return [mean + (half if index % 2 else -half) for index in range(n)]


def gate(rewards: list[float], alignment: float = 0.95, constraints: float | None = 0.9) -> GateReport:
    return judge([scored(reward, alignment, constraints) for reward in rewards], GateConfig())


def test_lower_bounds_above_all_thresholds_pass() -> None:
    report = gate(spread(0.9, 0.05, 100))
    assert (report.passed, report.verdict, report.n) == (True, "PASS", 100)
    assert [reason.split(":")[0] for reason in report.reasons] == ["reward", "alignment", "constraints"]
    assert report.reasons[0] == "reward: PASS, 0.900 [0.890, 0.910] over 100 prompts, wanted 0.80"


def test_mean_below_a_threshold_fails_whatever_the_rest() -> None:
    report = gate(spread(0.9, 0.05, 100), alignment=0.84)
    assert (report.passed, report.verdict) == (False, "FAIL")
    assert [measure.verdict for measure in report.measures] == ["PASS", "FAIL", "PASS"]


def test_mean_above_with_a_bound_below_says_how_many_more_prompts() -> None:
    report = gate(spread(0.82, 0.15, 60))
    assert (report.passed, report.verdict) == (False, "INCONCLUSIVE")
    needed = int(re.findall(r"about (\d+) more prompts", report.reasons[0])[0])
    assert gate(spread(0.82, 0.15, 60 + needed + 4)).measures[0].verdict == "PASS"
    assert gate(spread(0.82, 0.15, 60 + needed // 2)).measures[0].verdict == "INCONCLUSIVE"


def test_too_few_prompts_decide_nothing_not_even_a_failure() -> None:
    for reward in (0.99, -0.5):
        report = gate(spread(reward, 0.001, 49))
        assert (report.passed, report.verdict) == (False, "INCONCLUSIVE")
        assert report.reasons[-1] == "prompts: 49 scored, at least 50 are wanted; 1 more are needed"


def test_constraints_that_no_prompt_states_cannot_pass() -> None:
    report = gate(spread(0.9, 0.05, 100), constraints=None)
    assert (report.passed, report.verdict) == (False, "INCONCLUSIVE")
    assert "applies to none of the prompts" in report.reasons[2]


def test_component_counts_only_where_it_applies() -> None:
    rows = [scored(0.9, 0.95, 0.9 if index < 30 else None) for index in range(100)]
    assert judge(rows, GateConfig()).measures[2].n == 30


def test_no_prompts_at_all() -> None:
    report = judge([], GateConfig())
    assert (report.passed, report.verdict, report.n) == (False, "INCONCLUSIVE", 0)


def test_needed_prompts_are_none_where_none_would_help() -> None:
    assert prompts_needed([0.7, 0.8, 0.75], 0.8) is None
    assert prompts_needed([0.9], 0.8) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=50, max_size=80))
def test_pass_means_every_bound_is_reached_and_fail_that_some_mean_is_not(rewards: list[float]) -> None:
    report = gate(rewards)
    if report.verdict == "PASS":
        assert all(measure.low >= measure.threshold for measure in report.measures)
    if report.verdict == "FAIL":
        assert any(measure.mean < measure.threshold for measure in report.measures)
    assert report.passed == (report.verdict == "PASS")
    for measure in report.measures:
        assert -1 <= measure.low <= measure.mean + 1e-12
        assert measure.mean <= measure.high + 1e-12 <= 1 + 1e-9


def test_report_survives_a_round_trip() -> None:
    report = gate(spread(0.82, 0.15, 60))
    assert GateReport.model_validate_json(report.model_dump_json()) == report
    assert report.measures[0].more_prompts == pytest.approx(prompts_needed(spread(0.82, 0.15, 60), 0.8), abs=0)
