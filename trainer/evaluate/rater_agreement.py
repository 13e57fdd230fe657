"""Do raters agree more than chance would have it? Krippendorff's alpha for names (nominal data).

alpha = 1 - D_o / D_e: observed over expected disagreement. 1: they always agree; 0: as often as by chance; below 0:
less than that. It takes any number of raters, who need not all have rated everything. Where a student cannot be told
from the teacher, there is nothing to agree on, and alpha near 0 is what one should see.

Source: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C; the tests hold its examples.
The interval is a bootstrap by item (percentiles).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from claude_capture.claude_trace_schema import Record

RESAMPLES = 4000


class Agreement(Record):
    """Agreement between raters on one question."""

    alpha: float = Field(description="Krippendorff's alpha, nominal; 1 at most, 0 by chance")
    low: float = Field(description="Lower bound of its 95 % interval, by bootstrap over items")
    high: float = Field(description="Upper bound")
    same: float = Field(description="Share of the pairs of answers to the same item that are the same, in [0, 1]")
    items: int = Field(description="Items that at least two raters have answered")


def agreement(answers: Sequence[Sequence[str]], *, seed: int = 0) -> Agreement | None:
    """Agreement over items.

    Args:
        answers: per item the answers of its raters.
        seed: makes the bootstrap repeatable.

    Returns:
        None where no item has two answers, or all answers are the same: then chance explains everything.
    """
    import numpy as np

    units = [Counter(unit) for unit in answers if len(unit) > 1]
    names = sorted(set().union(*units)) if units else []
    if len(names) < 2:
        return None
    counts = np.array([[unit[name] for name in names] for unit in units], dtype=np.float64)
    sizes = counts.sum(1)
    apart = (sizes**2 - (counts**2).sum(1)) / (sizes - 1)  # per item: disagreeing ordered pairs / (raters - 1)

    def alphas(counts: np.ndarray, apart: np.ndarray) -> np.ndarray:
        """Of [resamples, names] counts and [resamples] disagreements; NaN where all answers are the same."""
        n = counts.sum(-1)
        expected = (n**2 - (counts**2).sum(-1)) / (n - 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(expected > 0, 1 - apart / expected, math.nan)

    index = np.random.default_rng(seed).integers(0, len(units), (RESAMPLES, len(units)))
    drawn = alphas(counts[index].sum(1), apart[index].sum(1))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    together = (counts * (counts - 1)).sum() / (sizes * (sizes - 1)).sum()
    alpha = float(alphas(counts.sum(0), apart.sum()))
    return Agreement(alpha=alpha, low=float(low), high=float(high), same=float(together), items=len(units))
