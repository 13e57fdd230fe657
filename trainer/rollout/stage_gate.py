"""May the rollout go on? One verdict per figure of a stage, in the words of Argo Rollouts' analysis.

    Successful    the whole 95 % interval is on the right side of the limit
    Failed        the whole interval is on the wrong side
    Inconclusive  the limit lies within: a person decides
    Error         no data, which is never a success
    Running       the stage has not lasted or seen enough yet; nothing is judged before, because looking again and
                  again finds a failure in everything (what must be found at once is the rollback test's part)

Of the stage: a failure beats an error, that beats an inconclusive figure, and that a success.
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
Bounds = tuple[float, float, float]
"""Value, lower and upper end of its interval."""


class GateMetric(Record):
    """One figure against its limit."""

    name: str = Field(description="failures, tool errors, pushback, shadow reward or shadow failures")
    value: float | None = Field(description="None without data")
    low: float | None = Field(description="Lower end of its 95 % interval")
    high: float | None = Field(description="Upper end")
    limit: float = Field(description="From the config")
    at_most: bool = Field(description="True: the value should not exceed the limit; False: it should reach it")
    difference: bool = Field(description="True: the value is the student's share minus the teacher's")
    phase: Phase = Field(description="The verdict")


class StageGate(Record):
    """The verdict on a stage."""

    phase: Phase = Field(description="Of the whole stage")
    metrics: list[GateMetric] = Field(description="One by one; all Running before the stage is done")


def judge_stage(weight: float, figures: StageFigures, config: RolloutConfig, *, done: bool) -> StageGate:
    """The verdict on a visit.

    Args:
        weight: of the stage, in percent; without the student's sessions, its shadow is judged.
        done: whether it has lasted and seen enough.
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
                phase=judge(bounds, limit, at_most=at_most) if done else "Running",
            )
        )  # fmt: skip
    found = {metric.phase for metric in metrics}
    return StageGate(phase=next(phase for phase in _ORDER if phase in found) if done else "Running", metrics=metrics)


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
