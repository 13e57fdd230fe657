"""How far can people tell student from teacher? The statistics of the blind test, free of files and pages.

I = share of forced choices "which one is the teacher?" that are wrong. 0.5 is perfect: raters do no better than a coin.
Two claims are judged: I > 0.45 ("success") and I > 0.48 ("replace"). Each gets a point verdict, which is what the
observed share says, and an interval verdict, which is what the sample can prove:

    SUPPORTED     the exact one-sided binomial test rejects I ≤ threshold at 5 %
    REFUTED       it rejects I ≥ threshold at 5 %
    INCONCLUSIVE  neither

The point verdict alone is naive: with 50 answers it calls a student with a true I of 0.40 a success 23 % of the time.

Sources: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934); Jeffreys prior Beta(½, ½); design effect
1 + (m - 1)·ICC: L. Kish, Survey Sampling (1965); ICC by one-way analysis of variance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from claude_capture.claude_trace_schema import Record
from trainer.errors import TrainerError
from trainer.report.statistics import Interval, wilson_interval

THRESHOLDS = {"success": 0.45, "replace": 0.48}
ALPHA = 0.05
POWER = 0.80

IntervalVerdict = Literal["SUPPORTED", "REFUTED", "INCONCLUSIVE"]


class Verdict(Record):
    """One claim, I > threshold, judged twice."""

    claim: str = Field(description="success or replace")
    threshold: float = Field(description="The share of wrong choices that must be exceeded")
    point: Literal["above", "not above"] = Field(description="The observed share against the threshold")
    interval: IntervalVerdict = Field(description="What the sample proves at 5 %, one-sided")
    probability: float = Field(description="P(I > threshold) under the Jeffreys prior, in [0, 1]")
    wrong_needed: int = Field(description="Wrong choices out of this n that would support the claim")
    more_samples: int | None = Field(
        default=None,
        description="Further independent choices for 80 % power if in truth I = 0.5; None where the verdict stands, or "
        "where that many are in already",
    )


def clopper_pearson(wrong: int, n: int, *, confidence: float = 0.95) -> Interval:
    """A share with the exact two-sided interval.

    Raises:
        TrainerError: n is 0, or `wrong` is not in [0, n].
    """
    from scipy.stats import binomtest

    _check(wrong, n)
    bounds = binomtest(wrong, n).proportion_ci(confidence_level=confidence, method="exact")
    return Interval(wrong / n, float(bounds.low), float(bounds.high), n)


def probability_above(threshold: float, wrong: int, n: int) -> float:
    """P(I > threshold) after `wrong` of `n`, under the Jeffreys prior Beta(½, ½)."""
    from scipy.stats import beta

    _check(wrong, n)
    return float(beta.sf(threshold, wrong + 0.5, n - wrong + 0.5))


def wrong_needed(threshold: float, n: int, *, alpha: float = ALPHA) -> int:
    """The fewest wrong choices out of `n` at which the exact one-sided test supports I > threshold.

    n + 1 where not even n would do.
    """
    from scipy.stats import binom

    least = int(binom.isf(alpha, n, threshold)) + 1  # P(K ≥ least) ≤ alpha, and no smaller count does
    while least > 0 and binom.sf(least - 2, n, threshold) <= alpha:
        least -= 1
    while binom.sf(least - 1, n, threshold) > alpha:
        least += 1
    return least


def samples_needed(
    threshold: float, *, truth: float = 0.5, alpha: float = ALPHA, power: float = POWER, longest: int = 200_000
) -> int:
    """The n from which on the exact test supports I > threshold with at least `power`, if in truth I = `truth`.

    Exact power runs in saw teeth, so the answer is the n after which it never falls below `power` again; the textbook
    n = ((z_α√(p₀q₀) + z_β√(p₁q₁)) / (p₁ - p₀))² lies up to 5 % below it.

    Raises:
        TrainerError: `truth` is not above `threshold`, or so close to it that more than `longest` would be needed.
    """
    import numpy as np
    from scipy.stats import binom, norm

    if truth <= threshold:
        raise TrainerError(f"no number of samples shows I > {threshold} where in truth I = {truth}")
    spread = norm.isf(alpha) * math.sqrt(threshold * (1 - threshold)) + norm.isf(1 - power) * math.sqrt(
        truth * (1 - truth)
    )
    guess = (spread / (truth - threshold)) ** 2
    if guess > longest:
        raise TrainerError(f"showing I > {threshold} where in truth I = {truth} wants over {longest:,} samples")
    sizes = np.arange(max(1, int(guess * 0.8)), int(guess * 1.2) + int(4 / (truth - threshold)) + 50)
    needed = binom.isf(alpha, sizes, threshold) + 1
    needed = np.where(binom.sf(needed - 2, sizes, threshold) <= alpha, needed - 1, needed)
    weak = sizes[binom.sf(needed - 1, sizes, truth) < power]
    return int(weak[-1]) + 1 if len(weak) else int(sizes[0])


def naive_pass_rate(threshold: float, n: int, truth: float) -> float:
    """How often "observed share > threshold" holds with `n` choices if in truth I = `truth`."""
    from scipy.stats import binom

    return float(binom.sf(math.floor(threshold * n + 1e-9), n, truth))


def judge(wrong: int, n: int, claim: str, *, share: float | None = None) -> Verdict:
    """Judges one claim of THRESHOLDS on `n` independent choices.

    Args:
        share: the observed share, where `wrong` and `n` were rounded by a design effect; default: wrong / n.

    Raises:
        TrainerError: n is 0, or `wrong` is not in [0, n].
    """
    from scipy.stats import binom

    _check(wrong, n)
    threshold = THRESHOLDS[claim]
    needed = wrong_needed(threshold, n)
    verdict: IntervalVerdict = "INCONCLUSIVE"
    if wrong >= needed:
        verdict = "SUPPORTED"
    elif binom.cdf(wrong, n, threshold) <= ALPHA:
        verdict = "REFUTED"
    more = samples_needed(threshold) - n
    return Verdict(
        claim=claim,
        threshold=threshold,
        point="above" if (wrong / n if share is None else share) > threshold else "not above",
        interval=verdict,
        probability=probability_above(threshold, wrong, n),
        wrong_needed=needed,
        more_samples=more if verdict == "INCONCLUSIVE" and more > 0 else None,
    )


def design_effect(choices: Sequence[Sequence[bool]]) -> float:
    """By how much shared samples blow up the variance: 1 + (m - 1)·ICC, at least 1.

    Args:
        choices: per sample the choices of its raters, True for a wrong one; samples without choices are allowed.
    """
    groups = [list(map(float, group)) for group in choices if group]
    total, count = sum(map(len, groups)), len(groups)
    if total <= count or count < 2:
        return 1.0
    grand = sum(map(sum, groups)) / total
    means = [sum(group) / len(group) for group in groups]
    between = sum(len(g) * (m - grand) ** 2 for g, m in zip(groups, means, strict=True)) / (count - 1)
    within = sum((x - m) ** 2 for g, m in zip(groups, means, strict=True) for x in g) / (total - count)
    squares = sum(len(group) ** 2 for group in groups)
    size = (total - squares / total) / (count - 1)
    denominator = between + (size - 1) * within
    correlation = 1.0 if denominator == 0 else min(1.0, max(0.0, (between - within) / denominator))
    return 1 + (squares / total - 1) * correlation


def effective(wrong: int, n: int, effect: float) -> tuple[int, int]:
    """`wrong` and `n` as that many independent choices would have given them; n is rounded down, at least 1."""
    independent = max(1, math.floor(n / effect + 1e-9))
    return round(wrong / n * independent), independent


def bootstrap_by_sample(
    choices: Sequence[Sequence[bool]], *, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """A 95 % interval of the share of True, resampling samples with all their choices (percentiles).

    It needs no model of how raters depend on each other, but is too narrow with few samples, and of no width where all
    choices are the same; verdicts do not use it.

    Args:
        choices: per sample the choices of its raters; at least one choice in all.
    """
    import numpy as np

    groups = [group for group in choices if group]
    wrong = np.array([sum(group) for group in groups], dtype=np.float64)
    sizes = np.array([len(group) for group in groups], dtype=np.float64)
    index = np.random.default_rng(seed).integers(0, len(groups), (resamples, len(groups)))
    low, high = np.quantile(wrong[index].sum(1) / sizes[index].sum(1), [0.025, 0.975])
    return float(low), float(high)


class LengthGuess(Record):
    """What somebody reaches who only looks at which text is longer."""

    n: int = Field(description="Pairs with different lengths")
    teacher_longer: float = Field(description="Share of them in which the teacher's is the longer")
    wrong: float = Field(
        description="Share of wrong guesses by the better of two rules, 'the longer' and 'the shorter'; at most 0.5"
    )
    low: float = Field(description="Lower bound of its Wilson 95 % interval")
    high: float = Field(description="Upper bound")


def length_guess(lengths: Mapping[str, tuple[int, int]]) -> LengthGuess | None:
    """The length-only guesser. It knows which of its two rules fits these pairs, which flatters it a little.

    A rule learned from the other pairs alone (leave-one-out) would be worse than a coin where length tells nothing: of
    25 against 25 pairs, the others of each pair always vote against it.

    Args:
        lengths: per pair (teacher's length, student's length), in characters.

    Returns:
        None with fewer than two pairs of different lengths.
    """
    longer = [teacher > student for teacher, student in lengths.values() if teacher != student]
    n, count = len(longer), sum(longer)
    if n < 2:
        return None
    share = wilson_interval(min(count, n - count), n)
    return LengthGuess(n=n, teacher_longer=count / n, wrong=share.mean, low=share.low, high=share.high)


def _check(wrong: int, n: int) -> None:
    if n <= 0 or not 0 <= wrong <= n:
        raise TrainerError(f"{wrong} wrong choices out of {n} cannot be judged; collect answers first")
