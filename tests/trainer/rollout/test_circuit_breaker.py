"""The breaker opens after failures in a row, lets one try after a pause, and closes when that works."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainer.rollout.circuit_breaker import CircuitBreaker


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def test_it_opens_after_failures_in_a_row_alone() -> None:
    breaker = CircuitBreaker(3, 30)
    for _ in range(5):
        breaker.failed()
        breaker.failed()
        breaker.succeeded()
    assert breaker.admits()
    for _ in range(3):
        breaker.failed()
    assert (breaker.state, breaker.admits()) == ("open", False)


def test_after_the_pause_one_request_tries_and_decides() -> None:
    clock = Clock()
    breaker = CircuitBreaker(1, 30, clock)
    breaker.failed()
    clock.at = 29.9
    assert not breaker.admits()
    clock.at = 30
    assert breaker.admits()
    assert (breaker.state, breaker.admits()) == ("half_open", False)
    breaker.failed()
    clock.at = 59.9
    assert (breaker.state, breaker.admits()) == ("open", False)
    clock.at = 60
    assert breaker.admits()
    breaker.abandoned()
    assert breaker.admits(), "the client of the last trial left: another may try"
    breaker.succeeded()
    assert (breaker.state, breaker.admits(), breaker.admits()) == ("closed", True, True)


@given(st.lists(st.sampled_from(("ask", "failed", "succeeded", "abandoned", "wait")), max_size=60))
def test_never_two_trials_at_once_and_never_shut_for_ever(steps: list[str]) -> None:
    clock = Clock()
    breaker = CircuitBreaker(2, 10, clock)
    under_way = 0
    for step in steps:
        if step == "ask":
            state = breaker.state
            under_way += breaker.admits()
            assert state == "closed" or under_way <= 1 or state == "open"
        elif step == "wait":
            clock.at += 4
        elif under_way:
            under_way -= 1
            getattr(breaker, step)()
    for _ in range(under_way):
        breaker.abandoned()
    clock.at += 10
    assert breaker.admits()
