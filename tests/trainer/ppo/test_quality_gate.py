"""When a student passes, fails, or has not been asked enough."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import GateConfig
from trainer.ppo.quality_gate import judge, prompts_needed
from trainer.ppo.report_pages import next_steps, verdict_sentence
from trainer.records import GateReport, PromptScore, RewardBreakdown, RewardComponents, StudentScores, component


def scored(reward: float, alignment: float, constraints: float | None) -> RewardBreakdown:
    parts = RewardComponents(
        tool_use=component(alignment), constraints=None if constraints is None else component(constraints)
    )
    return RewardBreakdown(trace_id="t", total=reward, components=parts)


def spread(mean: float, half: float, n: int) -> list[float]:
    """n values, half of them above and half below the mean; of an odd number the last is the mean."""
    values = [mean + (half if index % 2 else -half) for index in range(n)]
    return [*values[:-1], mean] if n % 2 else values


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
        assert report.reasons[-1] in next_steps(report)[-1]


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


def against(gains: dict[str, list[float]], **config: float) -> GateReport:
    """A gate of a good student that earns so much more than the version before, per type of work."""
    rows = [(f"{work}-{i}", work, gain) for work, found in gains.items() for i, gain in enumerate(found)]
    before = [PromptScore(trace_id=name, workflow_type=work, total=0.95 - gain) for name, work, gain in rows]
    now = [scored(0.95, 0.95, 0.9).model_copy(update={"trace_id": name}) for name, _, _ in rows]
    return judge(
        now,
        GateConfig(**{"min_prompts": 2, **config}),
        student="llama-claude-ppo-v2",
        workflows={name: work for name, work, _ in rows},
        previous=StudentScores(student="llama-claude-ppo-v1", measured="x", scores=before),
    )


def test_no_type_of_work_may_become_worse_even_where_the_mean_rises() -> None:
    report = against({"edit": spread(0.4, 0.1, 60), "debug": spread(-0.3, 0.1, 20)})
    assert [(row.workflow, row.verdict, row.n) for row in report.workflows] == [
        ("debug", "FAIL", 20),
        ("edit", "PASS", 60),
    ]
    assert report.verdict == "FAIL"
    assert all(measure.verdict == "PASS" for measure in report.measures)
    debug = report.workflows[0]
    assert debug.difference == pytest.approx(-0.3)
    assert debug.mean - debug.previous == pytest.approx(debug.difference)
    assert debug.low < debug.difference < debug.high < 0
    assert report.reasons[-1].startswith("debug against llama-claude-ppo-v1: FAIL, -0.300 [")
    assert verdict_sentence(report) == (
        "FAIL: llama-claude-ppo-v2 may not go on: debug became worse than with llama-claude-ppo-v1."
    )
    assert next_steps(report)[0].startswith("debug lost 0.30: read its episodes")


def test_same_scores_or_a_loss_within_the_tolerance_have_held() -> None:
    report = against({"edit": [0.0] * 30, "debug": spread(-0.05, 0.05, 60)})
    assert report.verdict == "PASS"
    assert report.reasons[-1] == "against llama-claude-ppo-v1: PASS, each of 2 types of work lost less than 0.10"
    assert "no type of work became worse than with llama-claude-ppo-v1" in verdict_sentence(report)


def test_what_the_prompts_of_a_type_cannot_tell_is_open_and_says_how_many_could() -> None:
    report = against({"edit": spread(0.0, 0.3, 12)})
    (row,) = report.workflows
    assert (report.verdict, row.verdict) == ("INCONCLUSIVE", "INCONCLUSIVE")
    assert row.more_prompts is not None
    assert against({"edit": spread(0.0, 0.3, 12 + row.more_prompts + 4)}).verdict == "PASS"
    few = against({"edit": [0.0] * 30, "debug": [-1.0] * 3})
    assert [(row.workflow, row.verdict, row.more_prompts) for row in few.workflows] == [
        ("debug", "INCONCLUSIVE", 2),
        ("edit", "PASS", None),
    ]
    worse = against({"edit": spread(-0.2, 0.5, 12)}).workflows[0]  # likely worse, not proven
    assert worse.verdict == "INCONCLUSIVE"
    assert against({"edit": spread(-0.2, 0.5, 12 + (worse.more_prompts or 0) + 6)}).verdict == "FAIL"


def test_only_prompts_that_both_were_scored_on_are_compared() -> None:
    before = StudentScores(
        student="old", measured="x", scores=[PromptScore(trace_id="t9", workflow_type="edit", total=1)]
    )
    rows = [scored(0.95, 0.95, 0.9).model_copy(update={"trace_id": f"t{i}"}) for i in range(60)]
    some = judge(rows, GateConfig(), workflows={f"t{i}": "edit" for i in range(60)}, previous=before)
    assert (some.workflows[0].n, some.verdict) == (1, "INCONCLUSIVE")
    none = judge(rows[:9] + rows[10:], GateConfig(), workflows={}, previous=before)
    assert none.verdict == "INCONCLUSIVE"
    assert none.reasons[-1] == "against old: INCONCLUSIVE, it was scored on none of these prompts"


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["edit", "debug", "search"]),
        st.lists(st.floats(-1.9, 1.9), min_size=1, max_size=20),
        min_size=1,
    ),
    st.randoms(use_true_random=False),
)
def test_comparison_does_not_depend_on_the_order_of_prompts(gains: dict[str, list[float]], random: Any) -> None:
    mixed = {work: random.sample(found, len(found)) for work, found in gains.items()}
    one, other = against(gains), against(mixed)
    assert [row.verdict for row in one.workflows] == [row.verdict for row in other.workflows]
    for row in one.workflows:
        assert row.low <= row.difference + 1e-9
        assert row.difference <= row.high + 1e-9
        if row.verdict == "FAIL":
            assert row.high < 0
        if row.verdict == "PASS":
            assert row.low >= -0.1


def test_more_types_of_work_ask_for_wider_intervals() -> None:
    one = against({"edit": spread(0.0, 0.2, 20)}).workflows[0]
    many = against({"edit": spread(0.0, 0.2, 20), **{f"w{i}": [0.0] * 9 for i in range(4)}}).workflows[0]
    assert many.workflow == "edit"
    assert many.high - many.low > one.high - one.low


def test_reports_of_before_are_read() -> None:
    old = '{"passed": true, "verdict": "PASS", "reasons": ["reward: PASS"], "n": 100, "measures": []}'
    report = GateReport.model_validate_json(old)
    assert (report.previous, report.workflows, report.floor) == (None, [], None)
    assert verdict_sentence(report).startswith("PASS: the student may go on")
