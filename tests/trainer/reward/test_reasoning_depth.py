"""Depth is a band around the reference, and only what is of use fills it."""

from __future__ import annotations

import pytest
from generated_traces import Script, Turn, bash, read

from trainer.reward.behaviour import Behaviour
from trainer.reward.reasoning_depth import band, judge_depth, words_of_reference
from trainer.reward.tool_alignment import Alignment


def script(files: list[str], text: str = "I read {} to see its values.") -> Script:
    return Script("t", "p", [Turn(text.format(name), [read(name)]) for name in files], "Done.")


def depth(student: Script, reference: Script, engagement: float = 1.0) -> float:
    mine, other = Behaviour(student.trace()), Behaviour(reference.trace())
    value = judge_depth(Alignment(mine, other), words_of_reference(other), engagement).similarity
    assert value is not None
    return value


FILES = [f"f{n}.py" for n in range(8)]


def test_band_around_the_reference() -> None:
    assert [band(count) for count in (0, 1, 4, 8)] == [(0, 1), (1, 2), (3, 5), (6, 10)]


def test_inside_the_band_nothing_is_gained_or_lost() -> None:
    reference = script(FILES)
    assert depth(script(FILES), reference) == 1.0
    assert depth(script(FILES[:6]), reference) == 1.0
    assert depth(script([*FILES, "more.py"]), reference) == 1.0


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_too_shallow_costs_and_padding_does_not_fill_the_band(count: int) -> None:
    shallow = script(FILES[:count])
    padded = script([*FILES[:count], *(f"junk{n}.py" for n in range(8 - count))], "Let me think.")
    assert depth(shallow, script(FILES)) < 1.0
    assert depth(padded, script(FILES)) <= depth(shallow, script(FILES))


def test_too_deep_repetition_and_length_cost() -> None:
    reference = script(FILES)
    assert depth(script([*FILES, *(f"x{n}.py" for n in range(9))]), reference) < 0.9
    assert depth(script([*FILES, FILES[0], FILES[0]]), reference) < 0.6
    long = script(FILES)
    long.answer = "word " * 1000
    assert depth(long, reference) < 0.3


def test_reading_again_after_a_change_is_no_repetition() -> None:
    run = Script(
        "t", "p", [Turn(f"{n}", [call]) for n, call in enumerate([read("a"), bash("python gen.py"), read("a")])], ""
    )
    assert Behaviour(run.trace()).repeats == 0


def test_one_who_does_nothing_has_no_depth() -> None:
    assert depth(script([]), script([]), engagement=0.0) == 0.0
