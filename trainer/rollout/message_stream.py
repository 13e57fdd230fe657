"""A complete message as the events that a streaming client of the Messages API reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def events(message: dict[str, Any]) -> Iterator[bytes]:
    """Server-sent events from `message_start` to `message_stop`; each block arrives as one delta."""
    opening = message | {"content": [], "stop_reason": None, "usage": message["usage"] | {"output_tokens": 0}}
    yield _event("message_start", {"message": opening})
    for index, block in enumerate(message["content"]):
        if block["type"] == "tool_use":
            start = block | {"input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        else:
            start, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": block["text"]}
        yield _event("content_block_start", {"index": index, "content_block": start})
        yield _event("content_block_delta", {"index": index, "delta": delta})
        yield _event("content_block_stop", {"index": index})
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield _event("message_delta", {"delta": ending, "usage": {"output_tokens": message["usage"]["output_tokens"]}})
    yield _event("message_stop", {})


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    data = json.dumps({"type": kind, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()
