"""May this student go on? Three thresholds and no step back, judged on what the held-out prompts can prove.

*Thresholds.* A mean below its threshold is FAIL. A mean above it whose 95 % interval reaches below is INCONCLUSIVE:
the student may be good enough, but so many prompts cannot tell. Only a lower bound that reaches the threshold is PASS.

*No regression.* Per type of work the student is compared with the version before on the same prompts: the mean of the
paired differences with Student's t interval. With k types each interval covers 1 - 0.05/k (Bonferroni), so that all of
them hold together with 95 %. FAIL where the whole interval lies below 0 and the mean loss exceeds the tolerance: it is
proven and it matters. PASS where the lower bound stays above minus the tolerance (non-inferiority). Else, and with
fewer than `min_workflow_prompts`, INCONCLUSIVE.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from trainer.config import GateConfig
from trainer.records import (
    GateMeasure,
    GateReference,
    GateReport,
    GateWorkflow,
    RewardBreakdown,
    StudentScores,
    similarity,
)
from trainer.report.statistics import Interval, mean_interval
from trainer.reward.reference_range import Figure, ReferenceRange

CONFIDENCE = 0.95
MOST_PROMPTS = 10_000
Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]


def judge(
    breakdowns: Sequence[RewardBreakdown],
    config: GateConfig,
    *,
    student: str | None = None,
    workflows: Mapping[str, str] | None = None,
    previous: StudentScores | None = None,
    between: ReferenceRange | None = None,
) -> GateReport:
    """Judges scored held-out episodes.

    Reward is the mean total in [-1, 1]; alignment and constraints are mean similarities in [0, 1] over the prompts
    where the component applies.

    Args:
        student: who is judged.
        workflows: trace_id → type of work; prompts that are not in it are not compared.
        previous: scores of the version before on the same prompts; None compares with none.
        between: floor and ceiling of the figures, carried into the report.
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
    compared: list[GateWorkflow] = []
    if previous is not None:
        compared = compare(breakdowns, workflows or {}, previous, config)
        verdicts |= {row.verdict for row in compared} or {"INCONCLUSIVE"}
        reasons += _comparison(compared, previous.student, config.regression_tolerance)
    if n < config.min_prompts:
        verdicts = {"INCONCLUSIVE"}
        reasons.append(
            f"prompts: {n} scored, at least {config.min_prompts} are wanted; {config.min_prompts - n} more are needed"
        )
    verdict: Verdict = "FAIL" if "FAIL" in verdicts else "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "PASS"
    return GateReport(
        passed=verdict == "PASS",
        verdict=verdict,
        reasons=reasons,
        n=n,
        measures=measures,
        student=student,
        previous=previous.student if previous is not None else None,
        tolerance=config.regression_tolerance if previous is not None else None,
        workflows=compared,
        floor=_reference(between.floor) if between is not None else None,
        ceiling=_reference(between.ceiling) if between is not None else None,
    )


def compare(
    breakdowns: Sequence[RewardBreakdown], workflows: Mapping[str, str], previous: StudentScores, config: GateConfig
) -> list[GateWorkflow]:
    """The student against the version before, per type of work, by name; prompts without both scores are left out."""
    before = {score.trace_id: score.total for score in previous.scores}
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for one in breakdowns:
        if one.trace_id in before and one.trace_id in workflows:
            pairs[workflows[one.trace_id]].append((before[one.trace_id], one.total))
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(pairs))
    return [_compare_type(name, found, confidence, config) for name, found in sorted(pairs.items())]


def _compare_type(
    name: str, pairs: Sequence[tuple[float, float]], confidence: float, config: GateConfig
) -> GateWorkflow:
    gains = [now - before for before, now in pairs]
    interval = mean_interval(gains, method="t", confidence=confidence, bounds=(-2.0, 2.0))
    tolerance, missing = config.regression_tolerance, config.min_workflow_prompts - len(pairs)
    needed: int | None = None
    verdict: Verdict = "INCONCLUSIVE"
    if missing > 0:
        needed = missing
    elif interval.high < 0 and interval.mean < -tolerance:
        verdict = "FAIL"
    elif interval.low >= -tolerance:
        verdict = "PASS"
    elif interval.mean > -tolerance:
        needed = prompts_needed(gains, -tolerance, confidence)
    else:
        needed = prompts_needed([-gain for gain in gains], 0.0, confidence)
    return GateWorkflow(
        workflow=name,
        n=len(pairs),
        previous=statistics.fmean(before for before, _ in pairs),
        mean=statistics.fmean(now for _, now in pairs),
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        verdict=verdict,
        more_prompts=needed,
    )


def prompts_needed(values: Sequence[float], threshold: float, confidence: float = CONFIDENCE) -> int | None:
    """How many more values like these would bring the lower bound to the threshold; None where none would.

    Solves mean - t(N - 1)·s/√N = threshold for N by iteration from the normal z, with at least two values; None too
    above MOST_PROMPTS, which nobody will record.
    """
    from scipy import stats

    if len(values) < 2 or statistics.fmean(values) <= threshold:
        return None
    scale = statistics.stdev(values) / (statistics.fmean(values) - threshold)
    wanted, tail = len(values), 0.5 + confidence / 2
    factor = statistics.NormalDist().inv_cdf(tail)
    for _ in range(4):
        if (factor * scale) ** 2 > MOST_PROMPTS:
            return None
        wanted = max(2, math.ceil((factor * scale) ** 2))
        factor = float(stats.t.ppf(tail, wanted - 1))
    return max(1, wanted - len(values))


def _reference(figure: Figure | None) -> GateReference | None:
    if figure is None:
        return None
    return GateReference(reward=figure.total, alignment=figure.alignment, n=figure.prompts)


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
    return f"{text}; {more_words(measure.more_prompts)}"


def more_words(needed: int | None) -> str:
    """How many more prompts an open question takes, in words."""
    if needed is None:
        return "too close for any reasonable number of prompts to tell"
    return f"about {needed} more prompt{'s' if needed > 1 else ''} could tell"


def _comparison(rows: Sequence[GateWorkflow], previous: str, tolerance: float) -> list[str]:
    """One line per type of work that is not proven to have held, else one for all of them."""
    if not rows:
        return [f"against {previous}: INCONCLUSIVE, it was scored on none of these prompts"]
    open_or_worse = [row for row in rows if row.verdict != "PASS"]
    if not open_or_worse:
        types = "the one type of work" if len(rows) == 1 else f"each of {len(rows)} types of work"
        return [f"against {previous}: PASS, {types} lost less than {tolerance:.2f}"]
    return [
        f"{row.workflow} against {previous}: {row.verdict}, {row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}] "
        f"over {row.n} prompt{'s' if row.n > 1 else ''}, a loss up to {tolerance:.2f} is tolerated"
        + (f"; {more_words(row.more_prompts)}" if row.verdict == "INCONCLUSIVE" else "")
        for row in open_or_worse
    ]
