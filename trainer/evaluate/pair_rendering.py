"""A trace as raters see it: what was said, done and answered, told alike for teacher and student.

Left out on both sides, because they give the author away: thinking (recorded for some models only), times, token
counts, model fields, call ids. Project paths are relative. Arguments stand in alphabetical order.
"""

from __future__ import annotations

import difflib
import json
from typing import Any

from pydantic import Field

from claude_capture.claude_trace_schema import Record, ToolCall, Trace
from trainer.dataset.conversation import project_root, shorten
from trainer.evaluate.identity_scrubbing import Scrubber
from trainer.student.episode_trace import error_kind_of
from trainer.student.workspace_paths import to_relative

MAX_OUTPUT = 4000
"""Longest tool output and argument shown, in characters."""


class ShownCall(Record):
    """One tool call."""

    tool: str = Field(description="Tool name")
    arguments: list[tuple[str, str]] = Field(default_factory=list, description="Name and value; `change` is a diff")
    output: str = Field(default="", description="Result, shortened")
    failed: bool = Field(default=False, description="True where the result reads as an error")


class ShownStep(Record):
    """One assistant message."""

    text: str = Field(default="", description="What it said")
    calls: list[ShownCall] = Field(default_factory=list, description="What it did")


class Rendering(Record):
    """One side of a pair."""

    steps: list[ShownStep] = Field(default_factory=list, description="In order")
    answer: str = Field(default="", description="The final answer; empty where there is none")

    @property
    def length(self) -> int:
        """Visible characters."""
        shown = len(self.answer)
        for step in self.steps:
            shown += len(step.text)
            for call in step.calls:
                shown += len(call.tool) + len(call.output) + sum(len(k) + len(v) for k, v in call.arguments)
        return shown


def render(trace: Trace, scrubber: Scrubber) -> Rendering:
    """Renders a trace; every text goes through `scrubber`."""
    root = project_root(trace)

    def clean(text: str) -> str:
        return scrubber.text(str(to_relative(text, root)))

    calls: dict[int, list[ToolCall]] = {}
    for call in trace.tool_calls:
        if call.agent_id == trace.agent_id:
            calls.setdefault(call.step, []).append(call)
    texts = {step.index: step.text.strip() for step in trace.steps}
    answer = trace.claude_response.strip()
    steps: list[ShownStep] = []
    for index in sorted(texts.keys() | calls.keys()):
        text, made = texts.get(index, ""), calls.get(index, [])
        if not made and (not text or text in answer):
            continue  # the answer itself
        shown = [
            ShownCall(
                tool=scrubber.text(call.tool),
                arguments=[(key, clean(value)) for key, value in _arguments(call.input)],
                output=clean(shorten(call.output or "", MAX_OUTPUT)),
                failed=error_kind_of(call.output or "") is not None,  # by its text, so that both sides are judged alike
            )
            for call in made
        ]
        steps.append(ShownStep(text=clean(text), calls=shown))
    return Rendering(steps=steps, answer=clean(answer))


def _arguments(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each argument; an Edit's old and new text as one diff."""
    shown = dict(values)
    change: list[tuple[str, str]] = []
    if isinstance(values.get("old_string"), str) and isinstance(values.get("new_string"), str):
        old, new = str(shown.pop("old_string")).splitlines(), str(shown.pop("new_string")).splitlines()
        lines = list(difflib.unified_diff(old, new, lineterm="", n=2))[3:]
        change.append(("change", shorten("\n".join(lines), MAX_OUTPUT)))
    rest = [
        (key, shorten(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), MAX_OUTPUT))
        for key, value in sorted(shown.items())
    ]
    return rest + change
