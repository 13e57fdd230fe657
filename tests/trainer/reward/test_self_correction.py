"""Real failures are to be mended; making them for show never pays."""

from __future__ import annotations

import pytest
from generated_traces import Call, Script, Turn, bash, edit, read

from trainer.reward.behavioral_reward_model import BehavioralRewardModel
from trainer.reward.behaviour import Behaviour
from trainer.reward.self_correction import judge_self_correction, open_failures

GOOD = edit("a.py", "x", "y")
BAD = edit("a.py", "q", "y", failed=True)


def script(*calls: Call) -> Script:
    return Script("t", "Fix a.py.", [Turn(f"Step {n}", [call]) for n, call in enumerate(calls)], "a.py has y now.")


def behaviour(*calls: Call) -> Behaviour:
    return Behaviour(script(*calls).trace())


def value(student: Behaviour, reference: Behaviour, engagement: float = 1.0) -> float | None:
    return judge_self_correction(student, reference, engagement).similarity


def test_not_applicable_without_failures() -> None:
    assert value(behaviour(GOOD), behaviour(GOOD)) is None


def test_error_free_run_is_the_ceiling() -> None:
    failing = behaviour(BAD, read("a.py"), GOOD)
    assert value(behaviour(GOOD), failing) == 1.0
    assert value(failing, failing) == 1.0
    assert value(behaviour(GOOD), failing, engagement=0.0) == 0.0


def test_recovery_beats_a_failure_left_open_and_costs_where_the_reference_had_none() -> None:
    failing = behaviour(BAD, GOOD)
    assert value(behaviour(BAD), failing) == pytest.approx(1 / 5)
    assert value(behaviour(BAD, GOOD), behaviour(GOOD)) == pytest.approx(1 / 2)
    assert value(behaviour(BAD), behaviour(GOOD)) == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("calls", "left"),
    [
        ((BAD, GOOD), 0),
        ((BAD, read("a.py")), 1),
        ((BAD, edit("b.py", "x", "y")), 1),
        ((bash("pytest -q", "x", True), GOOD, bash("pytest -q")), 0),
        ((bash("pytest -q", "x", True), bash("pytest -q")), 1),
        ((bash("grp x", "not found", True), bash("grep x")), 1),
        ((bash("grep -Z x", "usage", True), bash("grep x")), 0),
        ((bash("pytest -q", "Exit code 1\n1 failed", False),), 1),
    ],
)
def test_a_failure_is_mended_by_a_changed_attempt_at_the_same_aim(calls: tuple[Call, ...], left: int) -> None:
    assert len(open_failures(behaviour(*calls))) == left


def test_rejected_calls_are_nobodys_failure() -> None:
    trace = script(BAD).trace()
    trace.tool_calls[0].error_kind = "user_rejected"
    assert Behaviour(trace).failures == []


def test_manufactured_errors_never_raise_the_total() -> None:
    model = BehavioralRewardModel()
    reference = script(read("a.py"), GOOD).trace()
    poor = script(bash("ls"))
    plain = model.score(poor.trace(), [reference])
    farming = poor.copy()
    farming.turns = [Turn("I fail.", [bash("sed -Q", "usage", True)]), Turn("I mend.", [bash("sed -n p")]), *poor.turns]
    farmed = model.score(farming.trace(), [reference])
    assert farmed.total <= plain.total
    assert farmed.components.self_correction is None
