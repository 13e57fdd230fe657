"""Is a held local reply fit to be released? Otherwise the teacher answers."""

from __future__ import annotations

from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def fault(reply: Any, tools: list[Any]) -> str | None:
    """Why a reply must not be released, as a short reason; None where it may be.

    Args:
        reply: what the local server sent, parsed.
        tools: the tools that the client offered, in the shape of the Messages API.
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
    return None


def _fits(arguments: Any, schema: Any) -> bool:
    """Required arguments are there, named ones have their JSON type and enum, unknown ones only where allowed."""
    if not isinstance(arguments, dict):
        return False
    schema = schema if isinstance(schema, dict) else {}
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    if any(name not in arguments for name in (required if isinstance(required, list) else [])):
        return False
    if schema.get("additionalProperties") is False and arguments.keys() - properties.keys():
        return False
    return all(_matches(value, properties[name]) for name, value in arguments.items() if name in properties)


def _matches(value: Any, schema: Any) -> bool:
    if not isinstance(schema, dict):
        return True
    if isinstance(schema.get("enum"), list) and value not in schema["enum"]:
        return False
    wanted = _TYPES.get(schema["type"]) if isinstance(schema.get("type"), str) else None
    if wanted is None:
        return True
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, wanted)
