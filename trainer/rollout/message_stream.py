"""A message of the Messages API as the events that a streaming client reads, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson


def event(kind: str, fields: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


PING = event("ping", {})


def events(message: dict[str, Any]) -> Iterator[bytes]:
    """Server-sent events from `message_start` to `message_stop`; what a block says arrives at once."""
    opening = message | {"content": [], "stop_reason": None, "usage": message["usage"] | {"output_tokens": 0}}
    yield event("message_start", {"message": opening})
    for index, block in enumerate(message["content"]):
        start, *deltas = _opened(block)
        yield event("content_block_start", {"index": index, "content_block": start})
        for delta in deltas:
            yield event("content_block_delta", {"index": index, "delta": delta})
        yield event("content_block_stop", {"index": index})
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield event("message_delta", {"delta": ending, "usage": {"output_tokens": message["usage"]["output_tokens"]}})
    yield event("message_stop", {})


def _opened(block: dict[str, Any]) -> list[dict[str, Any]]:
    """A block before its first word, and what is added to it."""
    if block["type"] == "tool_use":
        arguments = orjson.dumps(block["input"]).decode()
        return [block | {"input": {}}, {"type": "input_json_delta", "partial_json": arguments}]
    if block["type"] == "thinking":
        thinking = {"type": "thinking_delta", "thinking": block["thinking"]}
        signature = {"type": "signature_delta", "signature": block["signature"]}
        return [{"type": "thinking", "thinking": "", "signature": ""}, thinking, signature]
    return [{"type": "text", "text": ""}, {"type": "text_delta", "text": block["text"]}]


def message_of(stream: bytes) -> dict[str, Any]:
    """The message that a stream of events tells; unknown events and deltas are passed over.

    Raises:
        ValueError: the events do not make a whole message.
    """
    message: dict[str, Any] | None = None
    written: dict[int, str] = {}
    try:
        for line in stream.splitlines():
            if not line.startswith(b"data:"):
                continue
            data = orjson.loads(line[5:])
            kind = data["type"]
            if kind == "message_start":
                message = data["message"] | {"content": []}
            elif kind == "message_stop" and message is not None:
                return message
            elif kind == "error" or message is None:
                if kind != "ping":
                    raise ValueError(kind)
            elif kind == "content_block_start":
                message["content"].append(dict(data["content_block"]))
            elif kind == "content_block_delta":
                block, delta = message["content"][data["index"]], data["delta"]
                if "text" in delta:
                    block["text"] += delta["text"]
                elif "partial_json" in delta:
                    written[data["index"]] = written.get(data["index"], "") + delta["partial_json"]
            elif kind == "content_block_stop" and written.get(data["index"]):
                message["content"][data["index"]]["input"] = orjson.loads(written[data["index"]])
            elif kind == "message_delta":
                message |= data["delta"]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"not the events of a message ({type(error).__name__})") from None
    raise ValueError("the stream ends before the message")
