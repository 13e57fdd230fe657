"""Is the student failing? Asked after every request, answered as soon as the evidence is in.

Wald's sequential probability ratio test of p0 (a right share of failures) against p1 (a wrong one). After each request
the log-likelihood ratio moves:

    a failure  + log(p1 / p0)              0.02, 0.05:  +0.916
    a success  + log((1 - p1) / (1 - p0))               -0.0311

At log((1 - β) / α) = +2.944 the student fails: roll back. At log(β / (1 - α)) = -2.944 it is accepted, for now: the
test starts again from 0, so that a student that becomes bad later is still found. Without that restart a long good
time would have to be used up first. The price: a test that never ends finds something some day even in a good student.
`benchmarks/rollout_rollback.py` measures how soon.

What counts is the request: it failed where the student was asked and the teacher had to answer. The test takes its
observations for independent, and two kinds of failures are not:

- failures in a row in one session: the first of them counts. A session that outgrew the student's context fails at each
  further request; four such requests would otherwise end the rollout.
- an outage of the local server: it counts once, however many sessions it meets. A restart says little of the student.

Source: A. Wald, "Sequential Tests of Statistical Hypotheses", Annals of Mathematical Statistics 16 (1945).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

ERROR = 0.05
"""α = β: how often one run of the test takes a right share for a wrong one, and the reverse."""
ROLL_BACK = math.log((1 - ERROR) / ERROR)
ACCEPT = -ROLL_BACK

Outcome = Literal["answered", "failed", "outage"]

NO_FAILURE = frozenset(("kill_switch", "withdrawn", "no_tools"))
"""Reasons for which the teacher answers a student's session without the student having failed."""
UNHEARD = NO_FAILURE | {"circuit_open"}
"""And those that say nothing about it."""
_OUTAGE = ("unreachable", "reset", "http_429", "http_5", "wrong_model")


class Walk(NamedTuple):
    """Where the test of a stage stands."""

    score: float = 0.0
    """Log-likelihood ratio since the latest restart."""
    answered: int = 0
    failed: int = 0
    """Failures that were counted; an outage is one."""
    accepted: int = 0
    """How often the lower bound was reached and the test started again."""
    outage: bool = False
    """True while the latest request met a server that was down."""

    @property
    def alarm(self) -> bool:
        """Whether the evidence is in."""
        return self.score >= ROLL_BACK


def outcome(answered_by: str, reason: str) -> Outcome | None:
    """What a request of a student's session says about the student; None where it says nothing."""
    if answered_by == "student":
        return "answered"
    if not reason or reason in UNHEARD:
        return None
    return "outage" if reason.startswith(_OUTAGE) else "failed"


def step(walk: Walk, seen: Outcome, before: Outcome | None, good: float, bad: float) -> Walk:
    """The test after one more request; a test that has given alarm stays there.

    Args:
        before: outcome of the latest request of the same session that had one.
        good: p0, in (0, p1).
        bad: p1, in (p0, 1).
    """
    known_outage = seen == "outage" and (walk.outage or before in ("failed", "outage"))
    if walk.alarm or known_outage or seen == before == "failed":
        return walk
    failed = seen != "answered"
    score = walk.score + (math.log(bad / good) if failed else math.log((1 - bad) / (1 - good)))
    accepted = score <= ACCEPT
    return Walk(
        0.0 if accepted else score,
        walk.answered + (not failed),
        walk.failed + failed,
        walk.accepted + accepted,
        seen == "outage",
    )
