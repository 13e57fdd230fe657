"""A short way to write traces down in tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from claude_capture.claude_trace_schema import Step, ToolCall, Trace

Call = tuple[Any, ...]
Message = tuple[str, list[Call]] | tuple[str, list[Call], str]


def _call(number: int, step: int, call: Call, thinking: str) -> ToolCall:
    """(tool, arguments[, output[, error kind]]) as a record; an error kind makes it a failure."""
    tool, arguments, *rest = call
    key = {"Bash": "command", "Read": "file_path", "Grep": "pattern", "Glob": "pattern"}.get(tool, "file_path")
    if isinstance(arguments, str):
        arguments = {key: arguments}
    return ToolCall(
        id=f"call{number}",
        tool=tool,
        input=arguments,
        reasoning=thinking,
        output=rest[0] if rest else "ok",
        is_error=len(rest) > 1,
        error_kind=rest[1] if len(rest) > 1 else None,
        step=step,
    )


@pytest.fixture
def write_trace() -> Callable[..., Trace]:
    """`write_trace(prompt, (thinking, [calls][, text]), …)`: calls are (tool, arguments[, output[, error kind]])."""

    def write(prompt: str, *messages: Message) -> Trace:
        steps, calls = [], []
        for index, (thinking, made, *text) in enumerate(messages):
            own = [_call(len(calls) + offset, index, call, thinking) for offset, call in enumerate(made)]
            calls.extend(own)
            steps.append(
                Step(index=index, thinking=thinking, text=text[0] if text else "", call_ids=[call.id for call in own])
            )
        return Trace(trace_id="t", session_id="s", user_prompt=prompt, steps=steps, tool_calls=calls)

    return write
