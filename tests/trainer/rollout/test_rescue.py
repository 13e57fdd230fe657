"""What the teacher is told of a session in which the student has worked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.rollout.rescue import for_teacher, results_in

SIGNED = {"type": "thinking", "thinking": "", "signature": "c2ln"}
BARE = {"type": "thinking", "thinking": "hm"}
USE = {"type": "tool_use", "id": "toolu_local_1", "name": "Read", "input": {"file_path": "/p/a"}}
FOREIGN = USE | {"id": "toolu_01"}


def conversation(*turn: dict[str, Any], result_of: str = "toolu_local_1", **fields: Any) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": "Read a"},
        {"role": "assistant", "content": list(turn)},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": result_of, "content": "x"}]},
    ]
    return {"model": "claude-x", "messages": messages} | fields


def test_what_the_teacher_accepts_goes_as_it_is() -> None:
    assert for_teacher(conversation(USE)) is None
    assert for_teacher(conversation(SIGNED, FOREIGN, thinking={"type": "enabled", "budget_tokens": 9})) is None
    assert for_teacher(conversation(USE, thinking={"type": "adaptive", "display": "omitted"})) is None
    assert for_teacher(conversation({"type": "redacted_thinking", "data": "x"}, FOREIGN)) is None


def test_thinking_that_nobody_signed_is_taken_out_and_signed_thinking_stays() -> None:
    before = conversation(BARE, SIGNED, USE, extra=1)
    kept = copy.deepcopy(before)
    after = for_teacher(before)
    assert after is not None
    assert after["messages"][1]["content"] == [SIGNED, USE]
    assert (after["messages"][0], after["messages"][2], after["extra"]) == (*before["messages"][::2], 1)
    assert before == kept, "the client's request is not changed in place"
    only = for_teacher({"messages": [{"role": "assistant", "content": [BARE]}, {"role": "user", "content": "x"}]})
    assert only == {"messages": [{"role": "user", "content": "x"}]}


def test_thinking_is_off_where_the_students_call_is_answered() -> None:
    edits = [{"type": "clear_thinking_20251015"}, {"type": "clear_tool_uses_20250919"}]
    asked = conversation(
        USE, thinking={"type": "enabled", "budget_tokens": 9}, context_management={"edits": edits, "other": 1}
    )
    after = for_teacher(asked)
    assert after is not None
    assert after["thinking"] == {"type": "disabled"}
    assert after["context_management"] == {"edits": edits[1:], "other": 1}
    assert after["messages"] == asked["messages"]
    prompted = copy.deepcopy(asked)
    prompted["messages"].append({"role": "assistant", "content": [{"type": "text", "text": "Done"}]})
    prompted["messages"].append({"role": "user", "content": "Next"})
    assert for_teacher(prompted) is None, "a new prompt begins a new turn"


def test_results_are_counted_for_who_made_the_calls() -> None:
    failed = {"type": "tool_result", "tool_use_id": "toolu_local_2", "is_error": True, "content": "Exit code 1"}
    rejected = failed | {"content": [{"type": "text", "text": "The user doesn't want to proceed with this tool use."}]}
    stopped = {"type": "text", "text": "[Request interrupted by user for tool use]"}
    asked = conversation(USE)
    asked["messages"][-1]["content"] += [failed, rejected, stopped]
    assert results_in(asked) == ("student", 3, 2, 1, True)
    assert results_in(conversation(FOREIGN, result_of="toolu_01")) == ("teacher", 1, 0, 0, False)
    assert results_in({"messages": [{"role": "user", "content": "hi"}]}) == (None, 0, 0, 0, False)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=9)
    | st.sampled_from(["assistant", "user", "thinking"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "signature", "id", "thinking"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(JSON, JSON)
def test_requests_of_whatever_shape_are_survived(messages: Any, thinking: Any) -> None:
    asked = {"messages": messages, "thinking": thinking}
    changed = for_teacher(asked)
    assert changed is None or changed != asked
    assert results_in(asked).results >= 0


@pytest.mark.parametrize("thinking", [{"type": "enabled"}, None])
def test_cleaning_twice_changes_nothing_more(thinking: Any) -> None:
    once = for_teacher(conversation(BARE, USE, thinking=thinking))
    assert once is not None
    assert for_teacher(once) is None
