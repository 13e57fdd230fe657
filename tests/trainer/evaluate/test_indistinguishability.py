"""The statistics reproduce the published table, and the verdicts mean what they say."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from trainer.errors import TrainerError
from trainer.evaluate.indistinguishability_test import (
    bootstrap_by_sample,
    clopper_pearson,
    design_effect,
    effective,
    judge,
    length_guess,
    naive_pass_rate,
    probability_above,
    samples_needed,
    wrong_needed,
)
from trainer.report.statistics import wilson_interval

TABLE = [
    (23, (0.330, 0.596), (0.318, 0.607), 0.56, 0.39),
    (25, (0.366, 0.634), (0.355, 0.645), 0.76, 0.61),
    (29, (0.442, 0.706), (0.432, 0.718), 0.97, 0.92),
    (31, (0.482, 0.741), (0.472, 0.753), 0.99, 0.98),
]


@pytest.mark.parametrize(("wrong", "wilson", "exact", "above_45", "above_48"), TABLE)
def test_table_of_fifty_choices(
    wrong: int, wilson: tuple[float, float], exact: tuple[float, float], above_45: float, above_48: float
) -> None:
    assert tuple(round(bound, 3) for bound in wilson_interval(wrong, 50)[1:3]) == wilson
    assert tuple(round(bound, 3) for bound in clopper_pearson(wrong, 50)[1:3]) == exact
    assert round(probability_above(0.45, wrong, 50), 2) == above_45
    assert round(probability_above(0.48, wrong, 50), 2) == above_48


def test_naive_rule_passes_a_student_of_forty_percent_every_fourth_time() -> None:
    assert round(naive_pass_rate(0.45, 50, 0.40), 2) == 0.23


def test_fifty_choices_need_29_and_31_wrong_ones() -> None:
    assert (wrong_needed(0.45, 50), wrong_needed(0.48, 50)) == (29, 31)


def test_samples_for_eighty_percent_power() -> None:
    assert (samples_needed(0.45), samples_needed(0.48)) == (647, 3924)


@pytest.mark.parametrize(
    ("wrong", "expected"), [(28, "INCONCLUSIVE"), (29, "SUPPORTED"), (23, "INCONCLUSIVE"), (16, "REFUTED")]
)
def test_interval_verdict_of_fifty(wrong: int, expected: str) -> None:
    assert judge(wrong, 50, "success").interval == expected


def test_point_verdict_and_interval_verdict_can_differ() -> None:
    verdict = judge(25, 50, "success")
    assert (verdict.point, verdict.interval, verdict.more_samples) == ("above", "INCONCLUSIVE", 647 - 50)
    assert judge(31, 50, "replace").more_samples is None


def test_point_verdict_is_that_of_the_observed_share_however_few_choices_are_independent() -> None:
    wrong, n = effective(73, 160, 8.0)
    assert (wrong, n) == (9, 20), "rounded to 45 %, observed are 45.6 %"
    assert judge(wrong, n, "success", share=73 / 160).point == "above"
    assert judge(wrong, n, "success").point == "not above"


@given(st.integers(1, 400), st.sampled_from([0.45, 0.48]))
def test_needed_count_is_the_smallest_that_rejects(n: int, threshold: float) -> None:
    needed = wrong_needed(threshold, n)
    assert binom.sf(needed - 1, n, threshold) <= 0.05
    assert binom.sf(needed - 2, n, threshold) > 0.05


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_exact_interval_holds_the_share_and_contains_no_supported_threshold(counts: tuple[int, int]) -> None:
    wrong, n = counts
    interval = clopper_pearson(wrong, n, confidence=0.90)
    assert interval.low <= wrong / n <= interval.high
    assert (judge(wrong, n, "success").interval == "SUPPORTED") == (
        interval.low > 0.45 or wrong >= wrong_needed(0.45, n)
    )
    assert (judge(wrong, n, "success").interval == "REFUTED") == (interval.high <= 0.45)


def test_no_choices_cannot_be_judged() -> None:
    with pytest.raises(TrainerError, match="collect answers first"):
        judge(0, 0, "success")


def test_unreachable_power_is_an_error() -> None:
    with pytest.raises(TrainerError, match="no number of samples"):
        samples_needed(0.48, truth=0.48)


def test_raters_who_always_agree_count_once() -> None:
    choices = [[wrong] * 4 for wrong in (True, False) * 10]
    effect = design_effect(choices)
    assert effect == pytest.approx(4)
    assert effective(40, 80, effect) == (10, 20)


def test_one_rater_has_no_design_effect() -> None:
    assert design_effect([[True], [False], [True]]) == 1


def test_raters_who_toss_coins_count_nearly_in_full() -> None:
    draw = random.Random(1)
    assert design_effect([[draw.random() < 0.5 for _ in range(3)] for _ in range(400)]) < 1.2


def test_length_guesser_finds_a_teacher_who_always_writes_more() -> None:
    guess = length_guess({f"i{n}": (200 + n, 100) for n in range(20)})
    assert guess is not None
    assert (guess.wrong, guess.teacher_longer) == (0, 1)


def test_length_guesser_knows_the_direction() -> None:
    guess = length_guess({f"i{n}": (100, 200 + n) for n in range(20)} | {"odd": (300, 100), "same": (5, 5)})
    assert guess is not None
    assert guess.n == 21
    assert guess.wrong == pytest.approx(1 / 21)


def test_length_that_tells_nothing_is_a_coin() -> None:
    guess = length_guess({f"i{n}": (100 + n % 2, 101 - n % 2) for n in range(50)})
    assert guess is not None
    assert (guess.wrong, guess.teacher_longer) == (0.5, 0.5)
    assert guess.low < 0.5 < guess.high


def test_length_guesser_needs_two_pairs() -> None:
    assert length_guess({"i1": (3, 4), "i2": (5, 5)}) is None


def test_bootstrap_by_sample_is_as_wide_as_raters_depend_on_each_other() -> None:
    draw = random.Random(2)
    alone = [[draw.random() < 0.5] for _ in range(60)]
    low, high = bootstrap_by_sample(alone)
    copied_low, copied_high = bootstrap_by_sample([group * 5 for group in alone])
    assert (copied_low, copied_high) == pytest.approx((low, high))
    share = wilson_interval(sum(map(sum, alone)), 60)
    assert (low, high) == pytest.approx((share.low, share.high), abs=0.03)


def test_normal_approximation_of_the_facts_gives_about_the_same_number_of_samples() -> None:
    """n = ((z_a sqrt(p0 q0) + z_b / 2) / (1/2 - p0))^2 is the textbook's; the exact test wants up to 5 % more."""
    for threshold in (0.45, 0.48):
        p = threshold
        textbook = ((norm.isf(0.05) * math.sqrt(p * (1 - p)) + norm.isf(0.2) / 2) / (0.5 - p)) ** 2
        assert textbook <= samples_needed(threshold) <= 1.06 * textbook
