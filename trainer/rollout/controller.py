"""Stages of the rollout: how many sessions the student gets, and when it may get more.

A stage ends when it has lasted long enough AND has seen enough sessions, and a person says so (`advance`). What the
student did in them is shown, not judged: this controller never promotes or rolls back by itself.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from claude_capture.claude_trace_schema import SCHEMA_VERSION, Record
from trainer.config import RolloutConfig
from trainer.errors import TrainerError
from trainer.rollout.rollout_state import Action, RolloutState, Visit

DAY = 86_400.0
NO_FAILURE = frozenset({"kill_switch", "no_tools"})
"""Reasons for which the teacher answers a student's session without the student having failed."""


class StageReport(Record):
    """One visit of a stage and its traffic."""

    weight: float = Field(description="Share of new sessions that go to the student, in percent")
    entered_at: str = Field(description="ISO 8601, UTC")
    days: float = Field(description="How long it lasted, or has lasted")
    action: Action = Field(description="What began it")
    note: str = Field(description="Why, where it was said")
    student_sessions: int = Field(description="Sessions pinned to the student with a request in this stage")
    teacher_sessions: int = Field(description="Sessions pinned to the teacher with a request in this stage")
    student_requests: int = Field(description="Requests that the student answered")
    teacher_requests: int = Field(description="Requests that the teacher answered, fallbacks included")
    fallbacks: dict[str, int] = Field(
        description="Requests where the student failed and the teacher answered: reason → n"
    )
    fallback_share: float | None = Field(description="Fallbacks / (fallbacks + student_requests); None without any")
    fallback_interval: tuple[float, float] | None = Field(
        description="Wilson 95 % interval of it; requests of one session are not independent, so it is too narrow"
    )
    passed_on: dict[str, int] = Field(description="Requests that were not meant for the student: reason → n")


class RolloutStatus(Record):
    """Where the rollout stands."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this schema")
    weight: float = Field(description="Of the current stage, in percent")
    next_weight: float | None = Field(description="None in the last stage")
    kill_switch: bool = Field(description="True: every request goes to the teacher")
    blockers: list[str] = Field(description="What `advance` waits for; empty where it would go ahead")
    stages: list[StageReport] = Field(description="All visits, oldest first")


class Controller:
    """Moves a rollout from stage to stage."""

    def __init__(self, state: RolloutState, config: RolloutConfig, now: Callable[[], float] = time.time) -> None:
        self._state = state
        self._config = config
        self._now = now

    def status(self) -> RolloutStatus:
        """Where the rollout stands."""
        visits = self._state.visits()
        ends = [*(visit.entered_at for visit in visits[1:]), self._now()]
        following = self._following(visits[-1])
        return RolloutStatus(
            weight=visits[-1].weight,
            next_weight=following,
            kill_switch=self._state.killed,
            blockers=["this is the last stage"] if following is None else self._blockers(visits[-1]),
            stages=[self._report(visit, end) for visit, end in zip(visits, ends, strict=True)],
        )

    def advance(self, *, force: bool = False, note: str = "") -> Visit:
        """Enters the next stage and takes the kill switch off.

        Args:
            force: go ahead before time and sample are reached; the stage is marked as forced.

        Raises:
            TrainerError: this is the last stage, or it has not lasted or seen enough.
        """
        visit = self._state.current()
        following = self._following(visit)
        if following is None:
            raise TrainerError(f"the rollout is in its last stage ({visit.weight:g} %); there is nothing to advance to")
        blockers = self._blockers(visit)
        if blockers and not force:
            raise TrainerError(
                f"stage {visit.weight:g} % is not done: {'; '.join(blockers)}; wait, or use --force to go on regardless"
            )
        action: Action = "force" if blockers else "advance"
        entered = self._state.enter(following, action, note, after=visit.id)
        self._state.revive()  # last: a crash before it leaves the teacher in charge
        return entered

    def abort(self, note: str = "") -> Visit:
        """Gives every session to the teacher at once: the kill switch first, then back to the first stage."""
        self._state.kill(f"{datetime.now(UTC).isoformat(timespec='seconds')} {note or 'aborted'}")
        return self._state.enter(self._config.weights[0], "abort", note, after=self._state.current().id)

    def _following(self, visit: Visit) -> float | None:
        return next((weight for weight in self._config.weights if weight > visit.weight), None)

    def _blockers(self, visit: Visit) -> list[str]:
        blockers: list[str] = []
        days = (self._now() - visit.entered_at) / DAY
        if days < self._config.days_per_stage:
            blockers.append(f"{days:.1f} of {self._config.days_per_stage:g} days")
        sessions = self._state.traffic(visit.id).sessions
        # in a stage without student sessions there is only the gateway itself to be tried
        seen, whose = (sessions.get("student", 0), "student ") if visit.weight > 0 else (sum(sessions.values()), "")
        if seen < self._config.min_sessions:
            blockers.append(f"{seen} of {self._config.min_sessions} {whose}sessions")
        return blockers

    def _report(self, visit: Visit, end: float) -> StageReport:
        from trainer.report.statistics import wilson_interval

        sessions, answered, reasons = self._state.traffic(visit.id)
        fallbacks = {reason: n for reason, n in sorted(reasons.items()) if reason not in NO_FAILURE}
        failed, by_student = sum(fallbacks.values()), answered.get("student", 0)
        tried = failed + by_student
        share = wilson_interval(failed, tried) if tried else None
        return StageReport(
            weight=visit.weight,
            entered_at=datetime.fromtimestamp(visit.entered_at, UTC).isoformat(timespec="seconds"),
            days=round((end - visit.entered_at) / DAY, 3),
            action=visit.action,
            note=visit.note,
            student_sessions=sessions.get("student", 0),
            teacher_sessions=sessions.get("teacher", 0),
            student_requests=by_student,
            teacher_requests=answered.get("teacher", 0),
            fallbacks=fallbacks,
            fallback_share=share.mean if share else None,
            fallback_interval=share[1:3] if share else None,
            passed_on={reason: n for reason, n in sorted(reasons.items()) if reason in NO_FAILURE},
        )


def open_rollout(folder: Path, config: RolloutConfig) -> RolloutState:
    """The state in `folder`, started at the first stage where there is none.

    Raises:
        TrainerError: the weights are not ascending percentages, or the state cannot be read.
    """
    weights = config.weights
    rising = all(low < high for low, high in itertools.pairwise(weights))
    if not weights or not rising or not all(0 <= weight <= 100 for weight in weights):
        raise TrainerError(f"rollout.weights: wanted rising percentages in [0, 100], found {weights}")
    return RolloutState(folder, config.salt, weights[0])
