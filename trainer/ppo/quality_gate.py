"""May this student go on? Three thresholds on held-out prompts, judged on what the sample can prove.

A mean below its threshold is FAIL. A mean above it whose 95 % interval reaches below is INCONCLUSIVE: the student may
be good enough, but so many prompts cannot tell. Only when every lower bound reaches its threshold is it PASS.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from trainer.config import GateConfig
from trainer.records import GateMeasure, GateReport, RewardBreakdown, similarity
from trainer.report.statistics import Interval, mean_interval

CONFIDENCE = 0.95
Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]


def judge(breakdowns: Sequence[RewardBreakdown], config: GateConfig) -> GateReport:
    """Judges scored held-out episodes.

    Reward is the mean total in [-1, 1]; alignment and constraints are mean similarities in [0, 1] over the prompts
    where the component applies.
    """
    components = [breakdown.components for breakdown in breakdowns]
    alignment = [similarity(c.tool_use) for c in components if c.tool_use is not None]
    constraints = [similarity(c.constraints) for c in components if c.constraints is not None]
    measures = [
        _measure("reward", [breakdown.total for breakdown in breakdowns], config.reward, -1.0),
        _measure("alignment", alignment, config.alignment, 0.0),
        _measure("constraints", constraints, config.constraints, 0.0),
    ]
    n = len(breakdowns)
    verdicts: set[Verdict] = {measure.verdict for measure in measures}
    reasons = [_sentence(measure) for measure in measures]
    if n < config.min_prompts:
        verdicts = {"INCONCLUSIVE"}
        reasons.append(
            f"prompts: {n} scored, at least {config.min_prompts} are wanted; {config.min_prompts - n} more are needed"
        )
    verdict: Verdict = "FAIL" if "FAIL" in verdicts else "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "PASS"
    return GateReport(passed=verdict == "PASS", verdict=verdict, reasons=reasons, n=n, measures=measures)


def prompts_needed(values: Sequence[float], threshold: float) -> int | None:
    """How many more values like these would bring the lower bound to the threshold; None where none would.

    Solves mean - z·s/√N = threshold for N, with the normal z and at least two values.
    """
    if len(values) < 2 or statistics.fmean(values) <= threshold:
        return None
    z = statistics.NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    wanted = (z * statistics.stdev(values) / (statistics.fmean(values) - threshold)) ** 2
    return max(1, math.ceil(wanted) - len(values))


def _measure(name: str, values: Sequence[float], threshold: float, lowest: float) -> GateMeasure:
    interval = Interval(0.0, lowest, 1.0, 0)
    if values:
        interval = mean_interval(values, method="t", confidence=CONFIDENCE, bounds=(lowest, 1.0))
    verdict: Verdict = "PASS" if interval.low >= threshold else "FAIL"
    needed: int | None = None
    if not values or interval.mean >= threshold > interval.low:
        verdict, needed = "INCONCLUSIVE", prompts_needed(values, threshold)
    return GateMeasure(
        name=name,
        threshold=threshold,
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        verdict=verdict,
        more_prompts=needed,
    )


def _sentence(measure: GateMeasure) -> str:
    if not measure.n:
        return f"{measure.name}: INCONCLUSIVE, applies to none of the prompts; add held-out prompts with {measure.name}"
    text = (
        f"{measure.name}: {measure.verdict}, {measure.mean:.3f} [{measure.low:.3f}, {measure.high:.3f}] over "
        f"{measure.n} prompts, wanted {measure.threshold:.2f}"
    )
    if measure.verdict != "INCONCLUSIVE":
        return text
    if measure.more_prompts is None:
        return f"{text}; too close to the threshold for any number of prompts to tell"
    return f"{text}; about {measure.more_prompts} more prompts could tell"
