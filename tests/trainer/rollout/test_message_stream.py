"""Messages as events and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.rollout.message_stream import PING, event, events, message_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
BLOCKS = st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, TEXTS)
    | st.builds(
        lambda name, value: {"type": "tool_use", "id": "t", "name": name, "input": {"x": value}},
        TEXTS,
        st.none() | TEXTS | st.lists(st.integers(-(2**53), 2**53), max_size=3),
    ),
    max_size=5,
)


@given(BLOCKS)
def test_a_message_survives_its_events(blocks: list[dict[str, Any]]) -> None:
    message = {"id": "m", "role": "assistant", "content": blocks, "stop_reason": "end_turn", "stop_sequence": None}
    stream = PING + PING.join(events(message | {"usage": {"output_tokens": 1}}))
    told = message_of(stream)
    assert {name: told[name] for name in message} == message


@given(st.binary(max_size=300))
def test_garbage_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        message_of(b"data: " + data)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        event("message_start", {"message": {"content": []}}),
        event("content_block_delta", {"index": 0, "delta": {"text": "x"}}),
        event("message_start", {"message": 1}) + event("message_stop", {}),
        event("message_start", {"message": {}}) + event("content_block_delta", {"index": 3, "delta": {"text": "x"}}),
        event("message_start", {"message": {}}) + event("error", {"error": {"type": "overloaded_error"}}),
        event("message_start", {"message": {}})
        + event("content_block_start", {"index": 0, "content_block": {"type": "tool_use"}})
        + event("content_block_delta", {"index": 0, "delta": {"partial_json": '{"a'}})
        + event("content_block_stop", {"index": 0})
        + event("message_stop", {}),
    ],
)
def test_half_a_message_is_a_value_error(stream: bytes) -> None:
    with pytest.raises(ValueError):
        message_of(stream)
