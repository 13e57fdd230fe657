"""May the rollout go on? One verdict per figure of a stage, in the words of Argo Rollouts' analysis.

    Successful    the whole 95 % interval is on the right side of the limit
    Failed        the whole interval is on the wrong side
    Inconclusive  the limit lies within: a person decides
    Error         no data, which is never a success
    Running       the stage has not lasted or seen enough yet; nothing is judged before

Of the stage: a failure beats an error, that beats an inconclusive figure, and that a success.

Who looks again and again finds everything some day, a success in a bad student and a failure in a good one. So there
are few looks, planned beforehand, and they share one error: the k-th look is taken when the stage has k times its least
time and k times its least sample, its verdict stands until the next one, and its intervals leave out

    alpha_k = ALPHA / (k (k + 1)),   ALPHA = 5 %, half of it at either end;   the sum over all k is ALPHA

By Bonferroni's inequality a figure that is just at its limit is ever found Successful with a probability of at most
2.5 %, however often the controller comes by and however long the stage lasts, and Failed with no more. What must be
found between two looks is the rollback test's part. Alpha spending: K. K. G. Lan and D. L. DeMets, "Discrete Sequential
Boundaries for Clinical Trials", Biometrika 70 (1983); the spending function is 1 - 1 / (k + 1).
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from claude_capture.claude_trace_schema import Record
from trainer.config import RolloutConfig
from trainer.rollout.stage_figures import Rate, StageFigures

Phase = Literal["Running", "Successful", "Failed", "Error", "Inconclusive"]
_ORDER: tuple[Phase, ...] = ("Failed", "Error", "Inconclusive", "Successful")
ALPHA = 0.05
"""What all looks at a stage leave out together, half at either end."""
Bounds = tuple[float, float, float]
"""Value, lower and upper end of its interval."""


class GateMetric(Record):
    """One figure against its limit."""

    name: str = Field(description="failures, tool errors, pushback, shadow reward or shadow failures")
    value: float | None = Field(description="None without data")
    low: float | None = Field(description="Lower end of its interval, at the confidence of the look")
    high: float | None = Field(description="Upper end")
    limit: float = Field(description="From the config")
    at_most: bool = Field(description="True: the value should not exceed the limit; False: it should reach it")
    difference: bool = Field(description="True: the value is the student's share minus the teacher's")
    phase: Phase = Field(description="The verdict")


class StageGate(Record):
    """The verdict on a stage."""

    phase: Phase = Field(description="Of the whole stage")
    metrics: list[GateMetric] = Field(description="One by one; all Running before the first look")
    look: int = Field(default=0, description="Number of the look, from 1; 0: the stage has not lasted or seen enough")

    @property
    def lacks_data(self) -> bool:
        """Whether a figure could not be judged."""
        return any(metric.phase == "Error" for metric in self.metrics)


def confidence_at(look: int) -> float:
    """Confidence of the intervals at a look; before the first, of those that are only shown."""
    return 1 - ALPHA / (look * (look + 1)) if look else 1 - ALPHA


def judge_stage(weight: float, figures: StageFigures, config: RolloutConfig, *, look: int) -> StageGate:
    """The verdict on a visit.

    Args:
        weight: of the stage, in percent; without the student's sessions, its shadow is judged.
        figures: with intervals of `confidence_at(look)`.
        look: number of the look; 0: the stage has not lasted or seen enough.
    """
    if weight > 0:
        student, teacher = figures.student, figures.teacher
        measured = [
            ("failures", _bounds(figures.failures), config.max_failures, True, False),
            ("tool errors", _excess(student.tool_errors, teacher.tool_errors), config.max_tool_errors, True, True),
            ("pushback", _excess(student.pushback, teacher.pushback), config.max_pushback, True, True),
        ]
    else:
        shadow = figures.shadow
        measured = [
            ("shadow reward", shadow.reward if shadow else None, config.min_shadow_reward, False, False),
            ("shadow failures", _bounds(shadow.failures if shadow else None), config.max_failures, True, False),
        ]
    metrics = []
    for name, bounds, limit, at_most, difference in measured:
        value, low, high = bounds or (None, None, None)
        metrics.append(
            GateMetric(
                name=name, value=value, low=low, high=high, limit=limit, at_most=at_most, difference=difference,
                phase=judge(bounds, limit, at_most=at_most) if look else "Running",
            )
        )  # fmt: skip
    found = {metric.phase for metric in metrics}
    phase = next(phase for phase in _ORDER if phase in found) if look else "Running"
    return StageGate(phase=phase, metrics=metrics, look=look)


def judge(bounds: Bounds | None, limit: float, *, at_most: bool) -> Phase:
    """The verdict on one figure that is complete."""
    if bounds is None:
        return "Error"
    _, low, high = bounds
    if (high <= limit) if at_most else (low >= limit):
        return "Successful"
    if (low > limit) if at_most else (high < limit):
        return "Failed"
    return "Inconclusive"


def _bounds(rate: Rate | None) -> Bounds | None:
    return (rate.share, rate.low, rate.high) if rate else None


def _excess(student: Rate | None, teacher: Rate | None) -> Bounds | None:
    """Difference of two shares with Newcombe's hybrid score interval (Statistics in Medicine 17 (1998), method 10)."""
    if student is None or teacher is None:
        return None
    value = student.share - teacher.share
    low = value - math.hypot(student.share - student.low, teacher.high - teacher.share)
    high = value + math.hypot(student.high - student.share, teacher.share - teacher.low)
    return value, low, high
