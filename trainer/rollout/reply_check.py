"""Is a held local reply fit to be released? Otherwise the teacher answers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry

_NOTHING_FETCHED: Registry[Any] = Registry()
"""A schema's references lead nowhere beyond itself: the default would open whatever address or file it names."""


def fault(reply: Any, tools: list[Any], turn: list[dict[str, Any]], repeats: int) -> str | None:
    """Why a reply must not be released, as a short reason; None where it may be.

    Args:
        reply: what the local server sent, parsed.
        tools: the tools that the client offered, in the shape of the Messages API.
        turn: the conversation since the last prompt, as the student read it.
        repeats: the same call with the same result, made so often, is a loop.
    """
    if not isinstance(reply, dict) or reply.get("role") != "assistant" or not isinstance(reply.get("content"), list):
        return "malformed_reply"
    blocks = reply["content"]
    if not all(isinstance(block, dict) for block in blocks):
        return "malformed_reply"
    if reply.get("stop_reason") == "max_tokens":
        return "cut_off"
    calls = [block for block in blocks if block.get("type") == "tool_use"]
    said = any(block.get("type") == "text" and str(block.get("text") or "").strip() for block in blocks)
    if not calls and not said:
        return "empty_reply"
    offered = {tool.get("name"): tool.get("input_schema") for tool in tools if isinstance(tool, dict)}
    for call in calls:
        if not isinstance(call.get("name"), str) or call["name"] not in offered:
            return "unknown_tool"
        if not _fits(call.get("input"), offered[call["name"]]):
            return "invalid_arguments"
    return "loop" if _goes_round(calls, turn, repeats) else None


def _fits(arguments: Any, schema: Any) -> bool:
    """Whether arguments are an object that the tool's JSON schema admits; a schema nobody can read admits none."""
    if not isinstance(arguments, dict):
        return False
    if not isinstance(schema, dict):
        return True
    try:
        return bool(Draft202012Validator(schema, registry=_NOTHING_FETCHED).is_valid(arguments))
    except Exception:  # a broken schema fails in as many ways as there are keywords
        return False


def _goes_round(calls: list[dict[str, Any]], turn: list[dict[str, Any]], repeats: int) -> bool:
    """Whether a call would come for the `repeats`-th time, and nothing has changed in between.

    A test that is run again after an edit is no loop where its output differs.
    """
    blocks = [block for message in turn for block in message["content"]]
    results = {block["tool_use_id"]: block["content"] for block in blocks if block["type"] == "tool_result"}
    made: dict[bytes, Counter[str]] = {}
    for block in blocks:
        if block["type"] == "tool_use" and block["id"] in results:
            made.setdefault(_key(block), Counter())[results[block["id"]]] += 1
    asked = Counter(map(_key, calls))
    return any(n + max(made.get(key, {"": 0}).values()) >= repeats for key, n in asked.items())


def _key(call: dict[str, Any]) -> bytes:
    return orjson.dumps([call["name"], call["input"]], option=orjson.OPT_SORT_KEYS)
