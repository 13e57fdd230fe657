"""Stages of the rollout: how many sessions the student gets, when it may get more, and when it loses all of them.

Down goes by itself: after each request the rollback test is asked (`sequential_test`), and a stage whose gate has
failed is left the same way. Weight 0 and every pinned session to the teacher, in one transaction. Up goes by proposal:
a stage that has lasted long enough, seen enough sessions and whose gate is Successful may be followed by the next one,
once a person says `rollout advance` (`promotion = "automatic"` does without). Whatever else the gate says, a person
decides, with a reason that is kept.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from claude_capture.claude_trace_schema import SCHEMA_VERSION, Record
from trainer.config import Config, RolloutConfig
from trainer.errors import TrainerError
from trainer.rollout.preconditions import preconditions_or_fault
from trainer.rollout.rollout_state import Answer, Decision, Entry, RolloutState, Visit
from trainer.rollout.sequential_test import Walk, outcome
from trainer.rollout.stage_figures import StageFigures, stage_figures
from trainer.rollout.stage_gate import GateMetric, StageGate, judge_stage

DAY = 86_400.0
ITSELF = "controller"
"""Who decided, where no person did."""


class StageReport(Record):
    """One visit of a stage, its figures and their verdict."""

    visit: int = Field(description="Number of the visit, from 1")
    weight: float = Field(description="Share of new sessions that go to the student, in percent")
    entered_at: str = Field(description="ISO 8601, UTC")
    days: float = Field(description="How long it lasted, or has lasted")
    action: Entry = Field(description="What began it")
    note: str = Field(description="Why, where it was said")
    figures: StageFigures = Field(description="What happened in it")
    gate: StageGate = Field(description="The verdict; Running while time or sample are missing")


class RolloutStatus(Record):
    """Where the rollout stands."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this schema")
    weight: float = Field(description="Of the current stage, in percent")
    next_weight: float | None = Field(description="None in the last stage")
    kill_switch: bool = Field(description="True: every request goes to the teacher")
    proposed: bool = Field(description="True: nothing stands in the way of the next stage but a person's word")
    blockers: list[str] = Field(description="What `advance` waits for; empty where it would go ahead")
    stages: list[StageReport] = Field(description="All visits, oldest first")
    decisions: list[dict[str, Any]] = Field(description="The log: who decided what when, why, and on what figures")


class Controller:
    """Moves a rollout from stage to stage."""

    def __init__(self, state: RolloutState, config: Config, now: Callable[[], float] = time.time) -> None:
        self._state = state
        self._config = config
        self._rollout = config.rollout
        self._now = now

    def status(self) -> RolloutStatus:
        """Where the rollout stands."""
        visits = self._state.visits()
        ends = [*(visit.entered_at for visit in visits[1:]), self._now()]
        stages = [self._report(visit, end) for visit, end in zip(visits, ends, strict=True)]
        following = self._following(visits[-1])
        blockers = ["this is the last stage"] if following is None else self._blockers(visits[-1], stages[-1].gate)
        return RolloutStatus(
            weight=visits[-1].weight,
            next_weight=following,
            kill_switch=self._state.killed,
            proposed=not blockers,
            blockers=blockers,
            stages=stages,
            decisions=self._state.decisions(),
        )

    def advance(self, *, who: str, force: str = "", note: str = "") -> Visit:
        """Enters the next stage.

        Args:
            force: reason to go on although something is missing; it is kept with what was missing.

        Raises:
            TrainerError: this is the last stage, or something is missing and there is no reason.
        """
        visit = self._state.current()
        following = self._following(visit)
        if following is None:
            raise TrainerError(f"the rollout is in its last stage ({visit.weight:g} %); there is nothing to advance to")
        report = self._report(visit, self._now())
        blockers = self._blockers(visit, report.gate)
        if blockers and not force:
            raise TrainerError(
                f"stage {visit.weight:g} % is not done: {'; '.join(blockers)}; wait, or give a reason with --force"
            )
        decision = Decision("force" if blockers else "advance", who, force if blockers else note, _known(report))
        if blockers:
            decision.figures["missing"] = blockers
        return self._state.enter(following, decision, after=visit.id)

    def abort(self, note: str = "", *, who: str) -> Visit:
        """Gives every session to the teacher, at once and for good, and returns to 0 %."""
        visit = self._state.current()
        walk = self._state.walk(visit.id)
        return self._state.enter(0, Decision("abort", who, note, {"test": walk._asdict()}), after=None)

    def observe(self, answer: Answer) -> Walk:
        """Counts a request; rolls back where it completes the evidence against the student.

        Raises:
            sqlite3.Error: the state cannot be written.
        """
        rollout = self._rollout
        seen = outcome(answer.answered_by, answer.reason) if answer.pinned == "student" else None
        walk = self._state.record(answer, seen, rollout.good_failures, rollout.max_failures)
        if walk.alarm and rollout.rollback:
            visit = self._state.current()
            if visit.id == answer.visit and visit.weight > 0:
                tried = walk.answered + walk.failed
                why = (
                    f"{walk.failed} of {tried} requests failed: {100 * rollout.max_failures:g} % fits better than "
                    f"{100 * rollout.good_failures:g} %, score {walk.score:.2f}"
                )
                self._roll_back(visit, why, {"test": walk._asdict()})
        return walk

    def tick(self) -> Decision | None:
        """Judges a stage that is done, and acts on it; to be called now and then.

        Returns:
            What was decided; None where it is too early, or the same was decided before.
        """
        visit = self._state.current()
        if self._waiting(visit):
            return None
        report = self._report(visit, self._now())
        gate, following = report.gate, self._following(visit)
        said = f"stage {visit.weight:g} % is {gate.phase}: {'; '.join(map(metric_line, gate.metrics))}"
        known = _known(report)
        if gate.phase == "Failed" and visit.weight > 0 and self._rollout.rollback:
            return self._roll_back(visit, said, known)
        missing = self._blockers(visit, gate) if following is not None else ["this is the last stage"]
        if not missing and following is not None and self._rollout.promotion == "automatic":
            decision = Decision("advance", ITSELF, said, known)
            self._state.enter(following, decision, after=visit.id)
            return decision
        decision = Decision("judge" if missing else "propose", ITSELF, said, known | {"missing": missing})
        before = [line for line in self._state.decisions() if line["figures"].get("visit") == visit.id]
        if before and before[-1]["action"] == decision.action and before[-1]["figures"].get("phase") == gate.phase:
            return None
        self._state.note(decision)
        return decision

    def _roll_back(self, visit: Visit, why: str, known: dict[str, Any]) -> Decision:
        decision = Decision("rollback", ITSELF, why, {"visit": visit.id} | known)
        self._state.enter(0, decision, after=visit.id)
        return decision

    def _following(self, visit: Visit) -> float | None:
        return next((weight for weight in self._rollout.weights if weight > visit.weight), None)

    def _waiting(self, visit: Visit, end: float | None = None) -> list[str]:
        """What of time and sample is missing."""
        waiting: list[str] = []
        days = ((self._now() if end is None else end) - visit.entered_at) / DAY
        if days < self._rollout.days_per_stage:
            waiting.append(f"{days:.1f} of {self._rollout.days_per_stage:g} days")
        sessions = self._state.sessions(visit.id)
        # in a stage without student sessions there is only the gateway itself, and the shadow, to be tried
        seen, whose = (sessions["student"], "student ") if visit.weight > 0 else (sum(sessions.values()), "")
        if seen < self._rollout.min_sessions:
            waiting.append(f"{seen} of {self._rollout.min_sessions} {whose}sessions")
        return waiting

    def _blockers(self, visit: Visit, gate: StageGate) -> list[str]:
        blockers = self._waiting(visit)
        blockers += [metric_line(m) for m in gate.metrics if m.phase not in ("Running", "Successful")]
        if visit.weight == 0:
            blockers += preconditions_or_fault(self._config)
        if self._state.killed:
            blockers.append(f"the kill switch is on; `rm {self._state.folder / 'KILL'}` takes it off")
        return blockers

    def _report(self, visit: Visit, end: float) -> StageReport:
        figures = stage_figures(self._state, visit, self._rollout)
        done = not self._waiting(visit, end)
        return StageReport(
            visit=visit.id,
            weight=visit.weight,
            entered_at=datetime.fromtimestamp(visit.entered_at, UTC).isoformat(timespec="seconds"),
            days=round((end - visit.entered_at) / DAY, 3),
            action=visit.action,
            note=visit.note,
            figures=figures,
            gate=judge_stage(visit.weight, figures, self._rollout, done=done),
        )


def metric_line(metric: GateMetric) -> str:
    """A figure of the gate in a few words."""
    limit = f"{'at most' if metric.at_most else 'at least'} {shown(metric, metric.limit)}"
    limit += " above the teacher's" if metric.difference else ""
    verdict = f"{metric.phase.lower()} " if metric.phase != "Running" else ""
    if metric.value is None:
        return f"{metric.name} {verdict}without data, wanted {limit}"
    bounds = f"{shown(metric, metric.value)} [{shown(metric, metric.low)}, {shown(metric, metric.high)}]"
    return f"{metric.name} {verdict}at {bounds}, wanted {limit}"


def shown(metric: GateMetric, value: float | None) -> str:
    """A value in the metric's unit."""
    if value is None:
        return "–"
    return (
        f"{value:+.2f}" if metric.name == "shadow reward" else f"{100 * value:{'+' if metric.difference else ''}.1f} %"
    )


def _known(report: StageReport) -> dict[str, Any]:
    """What a decision was made on, in short."""
    figures = report.figures
    return {
        "visit": report.visit,
        "days": report.days,
        "student_sessions": figures.student.sessions,
        "teacher_sessions": figures.teacher.sessions,
        "student_requests": figures.student.requests,
        "teacher_requests": figures.teacher.requests,
        "phase": report.gate.phase,
        "gate": {
            m.name: {"value": m.value, "low": m.low, "high": m.high, "phase": m.phase} for m in report.gate.metrics
        },
        "test": figures.test.model_dump(),
    }


def open_rollout(folder: Path, config: RolloutConfig) -> RolloutState:
    """The state in `folder`, started at the first stage where there is none.

    Raises:
        TrainerError: weights or limits make no sense, or the state cannot be read.
    """
    weights = config.weights
    rising = all(low < high for low, high in itertools.pairwise(weights))
    if not weights or not rising or not all(0 <= weight <= 100 for weight in weights):
        raise TrainerError(f"rollout.weights: wanted rising percentages in [0, 100], found {weights}")
    if config.good_failures >= config.max_failures:
        raise TrainerError(
            f"rollout.good_failures must be below rollout.max_failures, found {config.good_failures} and "
            f"{config.max_failures}"
        )
    return RolloutState(folder, config.salt, weights[0])
