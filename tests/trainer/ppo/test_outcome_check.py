"""What counts as done, whatever the reward says."""

from __future__ import annotations

from typing import Any

import pytest

from claude_capture.claude_trace_schema import Context, ToolCall, Trace
from trainer.ppo.outcome_check import outcome_check


def trace(answer: str, *edits: tuple[str, str], prompt: str = "How many in 2024?", **more: Any) -> Trace:
    calls = [
        ToolCall(id=f"c{n}", tool="Edit", input={"file_path": path, "old_string": "x", "new_string": text})
        for n, (path, text) in enumerate(edits)
    ]
    return Trace(trace_id="t", session_id="s", user_prompt=prompt, claude_response=answer, tool_calls=calls, **more)


REFERENCE = trace("There are 1,200 rows in `load`, see src/grid.py.")


@pytest.mark.parametrize(
    ("answer", "done"),
    [
        ("1200 rows; table `load` of src/grid.py", True),
        ("In 2024: 1,200 rows in `load` (./src/grid.py)", True),
        ("There are 1,201 rows in `load`, see src/grid.py.", False),
        ("There are 1200 rows.", False),
        ("", False),
        ("`load` src/grid.py " + " ".join(map(str, range(1190, 1210))), False),
    ],
    ids=["other words", "the prompt's year", "wrong number", "half", "silent", "every number there is"],
)
def test_answer_must_state_the_facts_and_little_else(answer: str, done: bool) -> None:
    assert outcome_check(trace(answer), [REFERENCE]) is done


def test_files_must_end_up_the_same() -> None:
    reference = trace("Done.", ("/home/me/p/a.py", "x = 1\n"), context=Context(cwd="/home/me/p"))
    assert outcome_check(trace("I fixed it.", ("a.py", "x  = 1")), [reference])
    assert outcome_check(trace("Fixed.", ("a.py", "y"), ("./a.py", "x = 1")), [reference])
    assert not outcome_check(trace("Done.", ("a.py", "x = 2")), [reference])
    assert not outcome_check(trace("Done."), [reference])
    assert not outcome_check(trace("Done.", ("a.py", "x = 1"), ("b.py", "more")), [reference])


def test_one_of_several_references_is_enough_and_an_unfinished_session_never_is() -> None:
    other = trace("There are 7.")
    assert outcome_check(trace("7"), [REFERENCE, other])
    assert not outcome_check(trace("7", status="interrupted"), [REFERENCE, other])


def test_reference_with_nothing_to_check_gives_no_verdict() -> None:
    assert outcome_check(trace("7"), [trace("It depends.")]) is None
    assert outcome_check(trace("7"), []) is None
