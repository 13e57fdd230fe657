"""Intervals: values from the literature, and laws that any interval obeys."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import TrainerError
from trainer.report.statistics import crossed_interval, mean_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_reproduces_the_published_values(successes: int, n: int, low: float, high: float) -> None:
    found = wilson_interval(successes, n)
    assert found.mean == successes / n
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(n=st.integers(1, 2000), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_wilson_is_symmetric_and_stays_within_bounds(n: int, share: float, confidence: float) -> None:
    successes = round(share * n)
    one = wilson_interval(successes, n, confidence=confidence)
    other = wilson_interval(n - successes, n, confidence=confidence)
    assert 0 <= one.low <= one.mean <= one.high <= 1
    assert one.low == pytest.approx(1 - other.high, abs=1e-12)
    assert one.high == pytest.approx(1 - other.low, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_an_impossible_share_is_refused(successes: int, n: int) -> None:
    with pytest.raises(TrainerError, match=f"no share of {successes} out of {n}"):
        wilson_interval(successes, n)


def test_t_reproduces_a_textbook_value() -> None:
    # five values with mean 3, s² = 2.5: 3 ± 2.776·√(2.5/5)
    found = mean_interval([1, 2, 3, 4, 5], method="t")
    assert (round(found.low, 3), round(found.high, 3)) == (1.037, 4.963)


def test_the_bootstrap_covers_about_as_often_as_it_says() -> None:
    draw = random.Random(7)
    covered = 0
    for seed in range(300):
        values = [draw.betavariate(5, 1) for _ in range(40)]
        found = mean_interval(values, resamples=800, seed=seed)
        covered += found.low <= 5 / 6 <= found.high
    assert 0.90 <= covered / 300 <= 0.98


def test_the_bootstrap_repeats_itself_and_narrows_with_n() -> None:
    draw = random.Random(1)
    values = [draw.gauss(0, 1) for _ in range(400)]
    assert mean_interval(values) == mean_interval(values)
    few, many = mean_interval(values[:25]), mean_interval(values)
    assert many.high - many.low < 0.5 * (few.high - few.low)


@given(values=st.lists(st.floats(-1, 1), min_size=1, max_size=30), method=st.sampled_from(["bootstrap", "t"]))
def test_a_mean_lies_in_its_interval_and_the_interval_in_its_bounds(values: list[float], method: str) -> None:
    found = mean_interval(values, method=method, bounds=(-1, 1), resamples=50)  # type: ignore[arg-type]
    assert -1 <= found.low <= found.high <= 1
    assert found.low - 1e-12 <= found.mean <= found.high + 1e-12
    assert found.n == len(values)


def test_one_value_says_nothing_about_the_spread() -> None:
    assert mean_interval([0.5], bounds=(-1, 1))[1:3] == (-1, 1)
    assert mean_interval([0.5])[1:3] == (-math.inf, math.inf)


def test_no_value_has_no_mean() -> None:
    with pytest.raises(TrainerError, match="at least one value"):
        mean_interval([])


def test_crossed_interval_covers_what_seeds_and_what_prompts_vary() -> None:
    draw = random.Random(0)
    seeds, prompts = [draw.gauss(0, 0.3) for _ in range(4)], [draw.gauss(0.2, 0.3) for _ in range(50)]
    table = [[seed + prompt for prompt in prompts] for seed in seeds]
    both = crossed_interval(table)
    rows = mean_interval([sum(row) / 50 for row in table])
    columns = mean_interval([sum(column) / 4 for column in zip(*table, strict=True)])
    assert both.mean == pytest.approx(rows.mean) == pytest.approx(columns.mean)
    width = both.high - both.low
    # the variances of independent causes add up
    expected = math.hypot(rows.high - rows.low, columns.high - columns.low)
    assert width == pytest.approx(expected, rel=0.1)
    assert both == crossed_interval(table), "the same draws each time"
    assert both.n == 200


def test_crossed_interval_of_one_row_is_that_of_its_columns_and_of_equal_values_none() -> None:
    values = [0.1, 0.4, -0.2, 0.9, 0.3]
    one, plain = crossed_interval([values]), mean_interval(values)
    assert (one.low, one.high) == (pytest.approx(plain.low, abs=0.03), pytest.approx(plain.high, abs=0.03))
    same = crossed_interval([[0.3] * 5] * 3)
    assert same.low == pytest.approx(0.3) == same.high
    with pytest.raises(TrainerError, match="at least one value"):
        crossed_interval([])
