"""Means and shares with intervals, so that no figure of a report stands without its uncertainty and its n.

Sources: Student's t interval: any textbook (mean ± t(n-1)·s/√n). Bootstrap: B. Efron, "Bootstrap Methods: Another
Look at the Jackknife", Annals of Statistics 7 (1979), percentile method. Crossed bootstrap: A. Owen, "The Pigeonhole
Bootstrap", Annals of Applied Statistics 1 (2007). Shares: E. B. Wilson, "Probable Inference,
the Law of Succession, and Statistical Inference", JASA 22 (1927), formula (9), without continuity correction; the
values in the tests are those of R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from trainer.errors import TrainerError


class Interval(NamedTuple):
    """A point estimate with its two-sided confidence interval."""

    mean: float
    low: float
    high: float
    n: int
    """Number of independent observations behind it."""

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}], n = {self.n}"


def mean_interval(
    values: Sequence[float],
    *,
    method: Literal["bootstrap", "t"] = "bootstrap",
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of independent values with an interval.

    Args:
        values: one per independent unit (prompt, session, seed); for a gain pass the paired differences.
        method: `bootstrap` (percentiles of resampled means; no assumption about the shape, right for bounded
            scores, a little too narrow below n of about 20) or `t` (normal errors; right for a handful of seeds).
        confidence: coverage wanted, in (0, 1).
        bounds: smallest and largest possible value, e.g. (-1, 1) for a reward. The interval never leaves them.
        resamples: bootstrap samples.
        seed: makes the bootstrap repeatable.

    Returns:
        With one value the interval is `bounds`, or unbounded without them: one observation says nothing about
        the spread. Values that are all equal give an interval of width 0 under either method.

    Raises:
        TrainerError: no values.
    """
    import numpy as np

    n = len(values)
    if n == 0:
        raise TrainerError("an interval wants at least one value; the run scored nothing")
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    least, most = bounds or (-math.inf, math.inf)
    if n == 1:
        return Interval(mean, least, most, n)
    tail = (1 - confidence) / 2
    if method == "t":
        from scipy import stats

        half = float(stats.t.ppf(1 - tail, n - 1)) * float(sample.std(ddof=1)) / math.sqrt(n)
        low, high = mean - half, mean + half
    else:
        generator = np.random.default_rng(seed)
        means = np.empty(resamples)
        block = max(1, 2_000_000 // n)  # keeps the index matrix under 16 MB
        for start in range(0, resamples, block):
            count = min(block, resamples - start)
            means[start : start + count] = sample[generator.integers(0, n, (count, n))].mean(axis=1)
        low, high = (float(bound) for bound in np.quantile(means, [tail, 1 - tail]))
    # rounding may put the percentiles of equal values a last digit beside their mean
    return Interval(mean, max(least, min(low, mean)), min(most, max(high, mean)), n)


def crossed_interval(
    table: Sequence[Sequence[float]], *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of values that two things vary at once, e.g. seeds and prompts, with an interval over both.

    Rows and columns are drawn anew independently of each other, because every seed met the same prompts.

    Args:
        table: [rows, columns], e.g. the gain of each seed on each prompt; at least one of each.
        confidence: coverage wanted, in (0, 1).
        resamples: bootstrap samples.
        seed: makes the bootstrap repeatable.

    Raises:
        TrainerError: no values.
    """
    import numpy as np

    values = np.asarray(table, dtype=np.float64)
    if values.size == 0:
        raise TrainerError("an interval wants at least one value; the run scored nothing")
    rows, columns = values.shape
    draw = np.random.default_rng(seed)
    means = [
        values[np.ix_(draw.integers(0, rows, rows), draw.integers(0, columns, columns))].mean()
        for _ in range(resamples)
    ]
    tail = (1 - confidence) / 2
    low, high = (float(bound) for bound in np.quantile(means, [tail, 1 - tail]))
    mean = float(values.mean())
    return Interval(mean, min(low, mean), max(high, mean), values.size)


def wilson_interval(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """A share with Wilson's score interval: never outside [0, 1], and honest at 0 % and 100 %.

    centre = (p + z²/2n) / (1 + z²/n),  half = z·√(p(1-p)/n + z²/4n²) / (1 + z²/n)

    Raises:
        TrainerError: n is 0, or `successes` is not in [0, n].
    """
    from statistics import NormalDist

    if n <= 0 or not 0 <= successes <= n:
        raise TrainerError(f"no share of {successes} out of {n}; the run scored nothing or counted wrongly")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    low = 0.0 if successes == 0 else max(centre - half, 0.0)
    high = 1.0 if successes == n else min(centre + half, 1.0)
    return Interval(share, low, high, n)
