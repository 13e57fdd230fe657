"""What Claude Code answers to a call that it cannot run, word for word, so that a student meets the same errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def unreadable_call(text: str) -> str:
    """The answer to a call whose text is not {"name": str, "parameters": dict}."""
    name = "The tool"
    start = text.find('"name"')
    if start >= 0:
        quoted = text[start + 6 :].split('"')
        name = quoted[1] if len(quoted) > 2 and quoted[1] else name
    size = len(text.encode())
    return _wrapped(
        f"InputValidationError: {name} was called with input that could not be parsed as JSON.\n"
        f"You sent (first {min(size, 200)} of {size} bytes): {text[:200]}"
    )


def invalid_call(name: str, arguments: dict[str, Any], tools: Sequence[dict[str, Any]]) -> str | None:
    """The answer to a call of an unknown tool or with arguments that its schema forbids; None for a valid call."""
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    if name not in functions:
        return _wrapped(f"Error: No such tool available: {name}")
    schema = functions[name].get("parameters") or {}
    properties = schema.get("properties") or {}
    issues = [
        f"The required parameter `{key}` is missing" for key in schema.get("required") or [] if key not in arguments
    ]
    for key, value in arguments.items():
        expected = (properties.get(key) or {}).get("type")
        if key not in properties:
            issues.append(f"An unexpected parameter `{key}` was provided")
        elif expected in _TYPES and not _is(value, expected):
            issues.append(f"The parameter `{key}` type is expected as `{expected}` but provided as `{_type_of(value)}`")
    if not issues:
        return None
    noun = "issue" if len(issues) == 1 else "issues"
    return _wrapped(f"InputValidationError: {name} failed due to the following {noun}:\n" + "\n".join(issues))


def _is(value: Any, expected: str) -> bool:
    return isinstance(value, _TYPES[expected]) and (expected == "boolean" or not isinstance(value, bool))


def _type_of(value: Any) -> str:
    return "null" if value is None else next(name for name in ("boolean", *_TYPES) if isinstance(value, _TYPES[name]))


def _wrapped(text: str) -> str:
    return f"<tool_use_error>{text}</tool_use_error>"
