"""A controller that comes by every ten minutes must not promote a bad student for having looked often enough."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from stage_traffic import Clock, blind_test_report, config_with, registry_with, shadow, stage_at, traffic

from trainer.report.statistics import mean_interval
from trainer.rollout.controller import DAY, Controller, open_rollout
from trainer.rollout.stage_figures import rate
from trainer.rollout.stage_gate import ALPHA, Phase, confidence_at, judge

ROLLOUTS = 300
LOOKS = 8
SESSIONS = 40
"""Least sample of a stage; the k-th look is taken after k times as many."""
LIMIT = 0.05
BOUND = ALPHA / 2
AT_MOST = 16
"""Of 300 that are promoted with a probability of 2.5 % more than 16 are, one time in 1,000."""

Session = list[bool]
Verdict = Callable[[list[Session], float], Phase]


def failures(sessions: list[Session], confidence: float) -> Phase:
    """The gate's verdict on the share of failed requests."""
    found = rate(sessions, confidence)
    return judge((found.share, found.low, found.high) if found else None, LIMIT, at_most=True)


def a_student_at_the_limit(draw: random.Random) -> Session:
    """Six requests that fail in 5 % on average, in some sessions more than in others."""
    share = draw.betavariate(LIMIT * 9, (1 - LIMIT) * 9)  # the correlation within a session is 1 / (1 + 9)
    return [draw.random() < share for _ in range(6)]


def ever(phase: Phase, looks: list[tuple[int, float]], seed: str) -> int:
    """How many rollouts of a student that is just at the limit get this verdict at one of the looks."""
    found = 0
    for number in range(ROLLOUTS):
        draw = random.Random(f"{seed} {number}")
        sessions = [a_student_at_the_limit(draw) for _ in range(SESSIONS * LOOKS)]
        found += any(failures(sessions[:seen], confidence) == phase for seen, confidence in looks)
    return found


PLANNED = [(SESSIONS * look, confidence_at(look)) for look in range(1, LOOKS + 1)]


def test_all_looks_together_have_the_error_of_one() -> None:
    spent = [1 - confidence_at(look) for look in range(1, 10_000)]
    assert sum(spent) <= ALPHA
    assert sum(spent) == pytest.approx(ALPHA, rel=1e-3)
    assert spent == sorted(spent, reverse=True)


@pytest.mark.parametrize("phase", ["Successful", "Failed"])
def test_planned_looks_take_a_student_at_the_limit_for_good_or_bad_no_oftener_than_they_say(phase: Phase) -> None:
    assert ever(phase, PLANNED, "planned") <= AT_MOST, f"more than {BOUND:.1%} of {ROLLOUTS}"


def test_without_a_plan_it_would_be_found_good_far_too_often() -> None:
    """What the plan prevents: 95 % intervals, looked at after every tenth session."""
    peeking = [(seen, 0.95) for seen in range(SESSIONS, SESSIONS * LOOKS + 1, 10)]
    assert ever("Successful", peeking, "planned") > AT_MOST


def test_the_mean_reward_of_the_shadow_keeps_the_same_bound() -> None:
    promoted = 0
    for number in range(ROLLOUTS):
        draw = random.Random(f"reward {number}")
        means = [max(-1.0, min(1.0, draw.gauss(0.5, 0.3))) for _ in range(SESSIONS * 3)]
        for look in (1, 2, 3):
            found = mean_interval(
                means[: SESSIONS * look], bounds=(-1, 1), confidence=confidence_at(look), resamples=2000
            )
            if judge(found[:3], 0.5, at_most=False) == "Successful":
                promoted += 1
                break
    assert promoted <= AT_MOST


def test_between_two_looks_the_verdict_stands_whoever_asks(tmp_path: Path) -> None:
    registry_with(tmp_path / "models", "PASS")
    config = config_with(
        tmp_path, blind_test=str(blind_test_report(tmp_path / "report.json", 25)), rollback=False, min_sessions=20
    )
    state = open_rollout(tmp_path, config.rollout)
    stage_at(state, 5)
    clock = Clock(state)
    controller = Controller(state, config, clock)
    traffic(controller, state, sessions=20, share=0.06)
    clock.at += 7 * DAY
    first = controller.tick()
    assert first is not None
    assert (first.action, first.figures["gate"]["look"]) == ("judge", 1)
    traffic(controller, state, sessions=200, requests=20)  # it is good now: 40 sessions and more, but no second week
    for _ in range(20):
        clock.at += DAY / 4
        assert controller.tick() is None, "the next look is due after twice the time"
        assert not controller.status().proposed
    clock.at = state.current().entered_at + 14 * DAY
    second = controller.tick()
    assert second is not None
    assert (second.action, second.figures["gate"]["look"]) == ("propose", 2)
    assert controller.status().stages[-1].gate.look == 2
    state.close()


def test_a_look_without_data_is_taken_again_once_they_are_there(tmp_path: Path) -> None:
    """A shadow that was broken for a week does not cost another one."""
    config = config_with(tmp_path)
    state = open_rollout(tmp_path, config.rollout)
    clock = Clock(state)
    controller = Controller(state, config, clock)
    traffic(controller, state, sessions=3)
    clock.at += 7 * DAY
    first = controller.tick()
    assert first is not None
    assert first.figures["gate"]["phase"] == "Error"
    assert controller.tick() is None
    shadow(state, 0.9)
    again = controller.tick()
    assert again is not None
    assert (again.figures["gate"]["phase"], again.figures["gate"]["look"]) == ("Successful", 2)
    state.close()
