"""Stages of the rollout: how many sessions the student gets, when it may get more, and when it loses all of them.

Down goes by itself: after each request the rollback test is asked (`sequential_test`), and a stage whose gate has
failed is left the same way. Weight 0 and every pinned session to the teacher, in one transaction. Up goes by proposal:
a stage that has lasted long enough, seen enough sessions and whose gate is Successful may be followed by the next one,
once a person says `rollout advance` (`promotion = "automatic"` does without). Whatever else the gate says, a person
decides, with a reason that is kept.

Before any stage above 0 % is entered, and before one is served, the model must have passed its tests (`preconditions`),
or a person has said for this very stage why it goes without. A stage tries one model: another one begins at 0 %.
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
from trainer.rollout.local_student import model_of
from trainer.rollout.preconditions import preconditions_or_fault
from trainer.rollout.rollout_state import AnsweredRequest, Decision, Entry, RolloutState, Visit
from trainer.rollout.sequential_test import Walk, outcome
from trainer.rollout.stage_figures import StageFigures, stage_figures
from trainer.rollout.stage_gate import GateMetric, StageGate, confidence_at, judge_stage

DAY = 86_400.0
SETTLED_SECONDS = 3_600.0
"""A stage that ended so long ago has no request under way any more."""
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
    model: str = Field(default="", description="Whom it tries: name and fingerprint; empty where nobody has said so")
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
    withheld: list[str] = Field(
        default_factory=list, description="Why the current stage may not be served: what is missing and not waived"
    )
    outdated: list[str] = Field(
        default_factory=list, description="Why the current stage counts no more: the current model is another one"
    )
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
        current, following = visits[-1], self._following(visits[-1])
        blockers = ["this is the last stage"] if following is None else self._blockers(current, stages[-1].gate)
        return RolloutStatus(
            weight=current.weight,
            next_weight=following,
            kill_switch=self._state.killed,
            proposed=not blockers,
            blockers=blockers,
            withheld=self._withheld(current),
            outdated=self._other_model(current),
            stages=stages,
            decisions=self._state.decisions(),
        )

    def advance(self, *, who: str, force: str = "", note: str = "") -> Visit:
        """Enters the next stage. A look at the gate that is due is taken, and kept, before anything else.

        Args:
            force: reason to go on although something is missing; it is kept with what was missing.

        Raises:
            TrainerError: this is the last stage, something is missing and there is no reason, the stage is of another
                model, or the look at its gate has just changed it.
        """
        visit = self._state.current()
        if other := self._other_model(visit):
            raise TrainerError(other[0])
        looked = self.tick()
        if self._state.current().id != visit.id:
            why = f" ({looked.action}: {looked.why})" if looked else ""
            raise TrainerError(f"stage {visit.weight:g} % was changed meanwhile{why}; look at `rollout status`")
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
            decision.figures["unmet"] = preconditions_or_fault(self._config)
        return self._state.enter(following, decision, after=visit.id)

    def admit(self, *, who: str, force: str = "") -> None:
        """Lets the current stage be served; to be asked before a gateway starts. Either answer is kept in the log.

        Args:
            force: reason to serve it although its model has not passed its tests.

        Raises:
            TrainerError: it is above 0 %, something is missing, and there is no reason.
        """
        visit = self._state.current()
        if not (unmet := self._withheld(visit)):
            return
        known = {"visit": visit.id, "unmet": unmet}
        if force:
            self._state.note(Decision("force", who, force, known), after=visit.id)
            return
        refusal = Decision("refuse", ITSELF, _not_served(visit, unmet), known)
        last = self._state.decisions()[-1]
        if (last["action"], last["why"]) != (refusal.action, refusal.why):  # a service that is started again and again
            self._state.note(refusal, after=visit.id)
        raise TrainerError(
            f"{refusal.why}; mend it, say why to go on with `rollout serve --force REASON`, or `rollout abort`"
        )

    def may_serve(self, visit: Visit) -> bool:
        """The same in the middle of the gateway's work: a stage that nobody let in is left at once."""
        unmet = self._withheld(visit)
        if unmet:
            self._roll_back(visit, _not_served(visit, unmet), {"unmet": unmet})
        return not unmet

    def follow_model(self) -> Visit | None:
        """Begins again at 0 %, with figures of its own, where the current model is not the one that the stage tries.

        Returns:
            The new visit; None where it is the same model.

        Raises:
            TrainerError: there is no such model, or the registry or the state cannot be read or written.
        """
        visit, model = self._state.current(), model_of(self._config)
        if not visit.model:
            self._state.name_model(visit.id, model)
        if visit.model in ("", model):
            return None
        why = f"the current model is {model}; stage {visit.weight:g} % was of {visit.model}"
        known = {"visit": visit.id, "test": self._state.walk(visit.id)._asdict()}
        return self._state.enter(0, Decision("new_model", ITSELF, why, known), after=visit.id, model=model)

    def abort(self, note: str = "", *, who: str) -> Visit:
        """Gives every session to the teacher, at once and for good, and returns to 0 %."""
        visit = self._state.current()
        walk = self._state.walk(visit.id)
        return self._state.enter(0, Decision("abort", who, note, {"test": walk._asdict()}), after=None)

    def observe(self, answer: AnsweredRequest) -> Walk:
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
        """Takes a look at the gate where one is due, and acts on the latest; to be called now and then.

        Returns:
            What was decided; None where it is too early, or the same was decided before.
        """
        visit = self._state.current()
        if not self._due(visit, self._seen(visit), self._now()):
            return None
        report = self._report(visit, self._now())
        gate, following = report.gate, self._following(visit)
        said = (
            f"stage {visit.weight:g} % is {gate.phase} at look {gate.look} "
            f"({100 * confidence_at(gate.look):.3g} % intervals): {'; '.join(map(metric_line, gate.metrics))}"
        )
        known = _known(report)
        if gate.phase == "Failed" and visit.weight > 0 and self._rollout.rollback:
            return self._roll_back(visit, said, known)
        missing = self._blockers(visit, gate) if following is not None else ["this is the last stage"]
        if not missing and following is not None and self._rollout.promotion == "automatic":
            decision = Decision("advance", ITSELF, said, known)
            self._state.enter(following, decision, after=visit.id)
            return decision
        decision = Decision("judge" if missing else "propose", ITSELF, said, known | {"missing": missing})
        latest = self._latest_look(visit.id)
        if latest is not None and (latest["action"], latest["figures"]["gate"]["look"]) == (decision.action, gate.look):
            return None
        self._state.note(decision, after=visit.id)
        return decision

    def tidy(self) -> None:
        """Removes requests that are older than `keep_days`, once the figures of stages that are over are kept."""
        visits = self._state.visits()
        for visit, following in itertools.pairwise(visits):
            if self._state.summary(visit.id) is None and self._now() - following.entered_at >= SETTLED_SECONDS:
                figures = stage_figures(self._state, visit, self._rollout)
                self._state.keep_summary(visit.id, figures.model_dump_json().encode())
        self._state.forget_before(self._now() - self._rollout.keep_days * DAY)

    def _roll_back(self, visit: Visit, why: str, known: dict[str, Any]) -> Decision:
        decision = Decision("rollback", ITSELF, why, {"visit": visit.id} | known)
        self._state.enter(0, decision, after=visit.id)
        return decision

    def _following(self, visit: Visit) -> float | None:
        return next((weight for weight in self._rollout.weights if weight > visit.weight), None)

    def _seen(self, visit: Visit) -> int:
        """Sessions that count for a visit.

        In a stage without student sessions there is only the gateway itself, and the shadow, to be tried.
        """
        sessions = self._state.sessions(visit.id)
        return sessions["student"] if visit.weight > 0 else sum(sessions.values())

    def _due(self, visit: Visit, seen: int, end: float) -> int:
        """Number of the look that time and sample allow; 0 before the first."""
        looks = seen // self._rollout.min_sessions
        if self._rollout.days_per_stage:
            looks = min(looks, int((end - visit.entered_at) / DAY // self._rollout.days_per_stage))
        return max(looks, 0)

    def _waiting(self, visit: Visit) -> list[str]:
        """What of time and sample is missing."""
        waiting: list[str] = []
        days, seen = (self._now() - visit.entered_at) / DAY, self._seen(visit)
        if days < self._rollout.days_per_stage:
            waiting.append(f"{days:.1f} of {self._rollout.days_per_stage:g} days")
        if seen < self._rollout.min_sessions:
            waiting.append(f"{seen} of {self._rollout.min_sessions} {'student ' if visit.weight > 0 else ''}sessions")
        return waiting

    def _blockers(self, visit: Visit, gate: StageGate) -> list[str]:
        blockers = self._other_model(visit) + self._waiting(visit)
        blockers += [metric_line(m) for m in gate.metrics if m.phase not in ("Running", "Successful")]
        blockers += preconditions_or_fault(self._config)
        if self._state.killed:
            blockers.append(f"the kill switch is on; `rm {self._state.folder / 'KILL'}` takes it off")
        return blockers

    def _withheld(self, visit: Visit) -> list[str]:
        """What a stage above 0 % lacks to be served, where nobody has given a reason to serve it without."""
        if visit.weight == 0 or any(
            line["action"] == "force" and line.get("visit") == visit.id and line["figures"].get("unmet")
            for line in self._state.decisions()
        ):
            return []
        return preconditions_or_fault(self._config)

    def _other_model(self, visit: Visit) -> list[str]:
        """One line where the config means another model than the visit tries."""
        try:
            model = model_of(self._config)
        except TrainerError:
            return []  # it is among the preconditions
        if visit.model in ("", model):
            return []
        return [
            f"stage {visit.weight:g} % is of {visit.model}, and this config's current model is {model}: the gateway "
            "starts again at 0 % when it learns of it; is it running, and with this config?"
        ]

    def _latest_look(self, visit: int) -> dict[str, Any] | None:
        """The latest decision with a look at the gate of a visit."""
        lines = (line for line in reversed(self._state.decisions()) if line["figures"].get("visit") == visit)
        return next((line for line in lines if line["figures"].get("gate", {}).get("look")), None)

    def _report(self, visit: Visit, end: float) -> StageReport:
        """A visit until `end`. Its verdict is that of the latest look, unless the next one is due."""
        kept = self._state.summary(visit.id)
        figures = StageFigures.model_validate_json(kept) if kept else stage_figures(self._state, visit, self._rollout)
        return StageReport(
            visit=visit.id,
            weight=visit.weight,
            entered_at=datetime.fromtimestamp(visit.entered_at, UTC).isoformat(timespec="seconds"),
            days=round((end - visit.entered_at) / DAY, 3),
            action=visit.action,
            note=visit.note,
            model=visit.model,
            figures=figures,
            gate=self._gate(visit, figures, end),
        )

    def _gate(self, visit: Visit, figures: StageFigures, end: float) -> StageGate:
        """The verdict of the latest look, unless the next one is due.

        After a look at which data were missing, the next is due as soon as they are there.
        """
        seen = figures.student.sessions + (figures.teacher.sessions if visit.weight == 0 else 0)
        due, latest = self._due(visit, seen, end), self._latest_look(visit.id)
        if latest is None:
            return self._look(visit, figures, due)
        gate = StageGate.model_validate(latest["figures"]["gate"])
        if gate.look < due:
            return self._look(visit, figures, due)
        if gate.lacks_data and not (again := self._look(visit, figures, gate.look + 1)).lacks_data:
            return again
        return gate

    def _look(self, visit: Visit, figures: StageFigures, look: int) -> StageGate:
        """A look at a visit; of one that is long over only the figures at 95 % are left."""
        if look and self._state.summary(visit.id) is None:
            figures = stage_figures(self._state, visit, self._rollout, confidence=confidence_at(look))
        return judge_stage(visit.weight, figures, self._rollout, look=look)


def _not_served(visit: Visit, unmet: list[str]) -> str:
    return f"stage {visit.weight:g} % may not be served: {'; '.join(unmet)}"


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
        "gate": report.gate.model_dump(),
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
