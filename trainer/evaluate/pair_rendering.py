"""A trace as raters see it: what was said, done and answered, told alike for teacher and student.

Left out on both sides, because they give the author away: thinking (recorded for some models only), times, token
counts, model fields, call ids, and arguments that change nothing (a Bash call's description). Project paths are
relative, lines of Read are numbered in one way, "no output" is said in one way. Arguments stand in alphabetical order.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import Any

from pydantic import Field

from claude_capture.claude_trace_schema import Record, ToolCall, Trace
from trainer.dataset.conversation import project_root, shorten
from trainer.evaluate.identity_scrubbing import Scrubber
from trainer.student.episode_trace import error_kind_of
from trainer.student.workspace_paths import PATH_ARGUMENTS, to_relative

MAX_OUTPUT = 4000
"""Longest tool output and argument shown, in characters."""
_IDLE_ARGUMENTS = frozenset({"description", "timeout", "run_in_background", "dangerouslyDisableSandbox"})
"""Arguments of Bash and Task that some clients always fill in and others never."""
_NOTHING = frozenset({"(no output)", "(Bash completed with no output)", "Tool ran without output or errors"})
_LINE_NUMBER = re.compile(r"^ *(\d+)(?:→|\t)", re.MULTILINE)


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

    def lines(self) -> list[str]:
        """The whole side as plain lines, for a comparison line by line."""
        told: list[str] = []
        for step in self.steps:
            told += step.text.splitlines()
            for call in step.calls:
                values = [f"{key}: {value}" for key, value in call.arguments]
                told += "\n".join([call.tool, *values, call.output]).rstrip("\n").splitlines()
        return [*told, "Answer", *self.answer.splitlines()]


def render(trace: Trace, scrubber: Scrubber) -> Rendering:
    """Renders a trace; every text goes through `scrubber`, which also counts what is left out."""
    root = project_root(trace)

    def clean(text: str) -> str:
        return scrubber.text(str(to_relative(text, root)))

    calls: dict[int, list[ToolCall]] = {}
    for call in trace.tool_calls:
        if call.agent_id == trace.agent_id:
            calls.setdefault(call.step, []).append(call)
            scrubber.found["call id"] += 1
            scrubber.found["run time"] += call.duration_ms is not None
    scrubber.found["thinking"] += sum(bool(step.thinking.strip()) for step in trace.steps)
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
                arguments=[(key, clean(value)) for key, value in _arguments(call, scrubber)],
                output=_output(call, root, scrubber),
                failed=error_kind_of(call.output or "") is not None,  # by its text, so that both sides are judged alike
            )
            for call in made
        ]
        steps.append(ShownStep(text=clean(text), calls=shown))
    scrubber.found += type(scrubber.found)()  # drops the kinds that were not there
    return Rendering(steps=steps, answer=clean(answer))


def _output(call: ToolCall, root: str | None, scrubber: Scrubber) -> str:
    text = scrubber.output(str(to_relative(call.output or "", root)).replace("\r\n", "\n")).strip("\n").rstrip()
    if call.tool == "Read":
        text = _LINE_NUMBER.sub(r"\1  ", text)
    return "" if text.strip() in _NOTHING else shorten(text, MAX_OUTPUT)


def _arguments(call: ToolCall, scrubber: Scrubber) -> list[tuple[str, str]]:
    """Name and value of each argument; an edit's old and new text as one diff."""
    shown = dict(call.input)
    change: list[tuple[str, str]] = []
    edits = shown.pop("edits") if isinstance(shown.get("edits"), list) else [shown]
    diffs = [diff for edit in edits if isinstance(edit, dict) and (diff := _diff(edit)) is not None]
    if diffs:
        for name in ("old_string", "new_string"):
            shown.pop(name, None)
        change.append(("change", shorten("\n".join(diffs), MAX_OUTPUT)))
    elif edits != [call.input]:
        shown["edits"] = edits
    rest: list[tuple[str, str]] = []
    for key, value in sorted(shown.items()):
        if key in _IDLE_ARGUMENTS and call.tool in ("Bash", "Task"):
            scrubber.found["idle argument"] += 1
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if key in PATH_ARGUMENTS and text.startswith("./") and len(text) > 2:
            text = text[2:]
        rest.append((key, shorten(text, MAX_OUTPUT)))
    return rest + change


def _diff(edit: dict[str, Any]) -> str | None:
    """Old and new text of one edit as lines of a unified diff, without its header."""
    old, new = edit.get("old_string"), edit.get("new_string")
    if not isinstance(old, str) or not isinstance(new, str):
        return None
    return "\n".join(list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2))[3:])
