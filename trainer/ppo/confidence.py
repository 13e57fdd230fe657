"""Means with their intervals, and how many more prompts a verdict needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field
from scipy import stats

from claude_capture.claude_trace_schema import Record

CONFIDENCE = 0.95


class Interval(Record):
    """A mean and its two-sided 95 % interval (Student's t), clipped to the range of the quantity."""

    n: int = Field(description="Number of values")
    mean: float = Field(description="Their mean; 0 for none")
    low: float = Field(description="Lower bound")
    high: float = Field(description="Upper bound")


def mean_interval(values: Sequence[float], lowest: float, highest: float) -> Interval:
    """Mean and interval of values that lie in [lowest, highest]; fewer than two say nothing: the whole range."""
    n = len(values)
    mean = float(np.mean(values)) if n else 0.0
    if n < 2:
        return Interval(n=n, mean=mean, low=lowest, high=highest)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(n=n, mean=mean, low=max(lowest, mean - half), high=min(highest, mean + half))


def prompts_needed(values: Sequence[float], threshold: float) -> int | None:
    """How many more values like these would bring the lower bound to the threshold; None where none would.

    Solves mean - z·s/√N = threshold for N, with z of the normal distribution and at least two values.
    """
    margin = float(np.mean(values)) - threshold if values else 0.0
    if len(values) < 2 or margin <= 0:
        return None
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    return max(1, math.ceil((z * float(np.std(values, ddof=1)) / margin) ** 2) - len(values))
