"""Renamed copies stay true to themselves: the same name everywhere, and nothing else touched."""

from __future__ import annotations

import random

from claude_capture.claude_trace_schema import Teacher
from trainer.records import BCSample
from trainer.sft.renaming import Renamer, with_renamed_copies

NAMES = ["Oakridge", "Elmwood", "Birchfield", "Riverside", "Hillcrest", "Stonegate"]


def sample(name: str, number: int) -> BCSample:
    """Looks a name up: the name is given, and carried into the call and the answer."""
    call = {"id": "call_0", "type": "function", "function": {"name": "Grep", "arguments": {"pattern": name}}}
    return BCSample(
        trace_id=name,
        prompt="",
        response="",
        workflow_type="search",
        exploration_depth="minimal",
        messages=[
            {"role": "user", "content": f"Find {name}. Please be quick."},
            {"role": "assistant", "content": f"I search for {name}.", "tool_calls": [call]},
            {"role": "tool", "content": f"1\tid of {name} = {number}\nplan.py:7:x", "tool_call_id": "call_0"},
            {"role": "assistant", "content": f"{name} has id {number}."},
        ],
        weights=[1.0, 1.0],
        split="train",
        family=name,
        teacher=Teacher(),
        basis="own work",
    )


SAMPLES = [sample(name, 10 + index) for index, name in enumerate(NAMES)]


def test_a_name_is_exchanged_everywhere_for_one_of_its_kind() -> None:
    renamer = Renamer(SAMPLES)
    for seed in range(20):
        user, call, result, answer = renamer.renamed(SAMPLES[0], random.Random(seed)).messages
        name = call["tool_calls"][0]["function"]["arguments"]["pattern"]
        number = answer["content"].removesuffix(".").split()[-1]
        assert name in NAMES
        assert user["content"] == f"Find {name}. Please be quick."
        assert call["content"] == f"I search for {name}."
        assert result["content"] == f"1\tid of {name} = {number}\nplan.py:7:x", "line numbers stay"
        assert answer["content"] == f"{name} has id {number}."
        assert len(number) == 2


def test_copies_are_added_behind_and_depend_only_on_the_seed() -> None:
    copies = with_renamed_copies(SAMPLES, 3, seed=1)
    assert copies[: len(SAMPLES)] == SAMPLES
    assert len(copies) == 4 * len(SAMPLES)
    assert copies == with_renamed_copies(SAMPLES, 3, seed=1)
    assert copies != with_renamed_copies(SAMPLES, 3, seed=2)
    assert with_renamed_copies(SAMPLES, 0, seed=1) == SAMPLES
    assert SAMPLES[0] == sample("Oakridge", 10), "the originals are not changed"
