"""Krippendorff's alpha reproduces the examples of the paper that defines its computation."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluate.rater_agreement import agreement


def by_item(*raters: str) -> list[list[str]]:
    """One string per rater, one character per item; `.` is a missing answer."""
    return [[answer for answer in answers if answer != "."] for answers in zip(*raters, strict=True)]


@pytest.mark.parametrize(
    ("raters", "alpha"),
    [
        (("0100000010", "1110010000"), 0.095),  # section A: two observers, binary
        (("aabbdcccedda", "babbbccceddd"), 0.692),  # section B: two observers, names
        (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.743),  # section C: four, some missing
    ],
)
def test_examples_of_the_paper(raters: tuple[str, ...], alpha: float) -> None:
    found = agreement(by_item(*raters))
    assert found is not None
    assert round(found.alpha, 3) == alpha
    assert found.low < found.alpha < found.high + 1e-9


def test_agreement_wants_two_raters_and_two_opinions() -> None:
    assert agreement([["1"], ["2"]]) is None
    assert agreement([["1", "1"], ["1", "1"]]) is None
    assert agreement([]) is None


def test_coins_do_not_agree_and_the_interval_holds_chance_nineteen_times_out_of_twenty() -> None:
    draw = random.Random(5)
    held = 0
    for _ in range(60):
        found = agreement([[draw.choice("12") for _ in range(3)] for _ in range(80)])
        assert found is not None
        assert abs(found.alpha) < 0.3
        held += found.low < 0 < found.high
    assert held >= 51


@given(st.lists(st.lists(st.sampled_from("120"), max_size=4), max_size=12), st.permutations("120"))
def test_names_and_order_do_not_matter(answers: list[list[str]], names: list[str]) -> None:
    renamed = [[names["120".index(value)] for value in reversed(unit)] for unit in answers]
    one, other = agreement(answers), agreement(renamed)
    assert (one is None) == (other is None)
    if one and other:
        assert one.alpha == pytest.approx(other.alpha)
        assert one.alpha <= 1
