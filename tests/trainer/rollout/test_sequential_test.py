"""The rollback test counts what says something about the student, and follows Wald's figures."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.rollout.sequential_test import ACCEPT, ROLL_BACK, Outcome, Walk, outcome, step


def after(*seen: Outcome, walk: Walk | None = None) -> Walk:
    """Each request is of a session of its own."""
    found = walk or Walk()
    for one in seen:
        found = step(found, one, None, 0.02, 0.05)
    return found


def test_steps_and_bounds_are_walds() -> None:
    assert after("failed").score == pytest.approx(0.916, abs=5e-4)
    assert after("answered").score == pytest.approx(-0.0311, abs=5e-5)
    assert (pytest.approx(2.944, abs=5e-4), pytest.approx(-2.944, abs=5e-4)) == (ROLL_BACK, ACCEPT)


def test_four_failures_in_a_row_are_enough_and_the_alarm_stays() -> None:
    assert not after(*["failed"] * 3).alarm
    alarmed = after(*["failed"] * 4)
    assert alarmed.alarm
    assert after(*["answered"] * 500, walk=alarmed) == alarmed


def test_an_accepted_student_starts_again_and_is_still_found_when_it_becomes_bad() -> None:
    good = after(*["answered"] * 1000)
    assert good.accepted == 10  # 2.944 / 0.0311 = 94.6 successes each
    assert good.score > ACCEPT
    assert after(*["failed"] * 7, walk=good).alarm


def requests_to_rollback(share: float, seed: str, horizon: int = 2000) -> int | None:
    """Plays a student that fails in this share, in sessions of 50 requests; None: it is still in service."""
    draw, walk, before = random.Random(seed), Walk(), None
    for number in range(1, horizon + 1):
        before = None if number % 50 == 0 else before
        seen: Outcome = "failed" if draw.random() < share else "answered"
        walk, before = step(walk, seen, before, 0.02, 0.05), seen
        if walk.alarm:
            return number
    return None


def test_five_percent_is_found_within_two_hundred_requests_and_one_percent_stays() -> None:
    """As benchmarks/rollout_rollback.py, which plays the same through the controller and its database."""
    bad = [requests_to_rollback(0.05, f"0 5 % {number}") for number in range(200)]
    assert statistics.median(found or 2001 for found in bad) < 200
    good = [requests_to_rollback(0.01, f"0 1 % {number}") for number in range(200)]
    assert good.count(None) >= 190


def test_failures_in_a_row_of_one_session_count_once() -> None:
    once = step(Walk(), "failed", None, 0.02, 0.05)
    assert step(once, "failed", "failed", 0.02, 0.05) == once
    assert step(once, "failed", "answered", 0.02, 0.05).failed == 2


def test_an_outage_is_one_failure_however_long() -> None:
    down = after(*["outage"] * 50)
    assert (down.failed, down.alarm) == (1, False)
    assert after(*["outage", "answered"] * 5).alarm, "a server that fails now and again is found"


def test_what_a_request_says_about_the_student() -> None:
    assert outcome("student", "") == "answered"
    assert outcome("teacher", "unknown_tool") == outcome("teacher", "timeout") == "failed"
    for reason in ("unreachable", "http_503", "reset", "wrong_model"):
        assert outcome("teacher", reason) == "outage"
    assert outcome("teacher", "http_400") == "failed"
    for reason in ("no_tools", "kill_switch", "withdrawn", "circuit_open", ""):
        assert outcome("teacher", reason) is None


@given(st.lists(st.sampled_from(["answered", "failed", "outage"]), max_size=300))
def test_the_score_stays_between_its_bounds_and_every_request_is_counted_once(seen: list[Outcome]) -> None:
    walk = Walk()
    for one in seen:
        before, walk = walk, step(walk, one, None, 0.02, 0.05)
        assert ACCEPT < walk.score < ROLL_BACK + 0.917
        assert walk.answered + walk.failed - before.answered - before.failed in (0, 1)
    assert walk.alarm == (walk.score >= ROLL_BACK)
