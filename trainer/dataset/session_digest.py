"""What the earlier prompts of a session were about, in a few lines at the end of the system message.

A follow-up prompt ("and now the tests, too") means nothing without what came before, and a student's context is too
short to hold it all. So each earlier turn is told in three lines: what was asked, what was changed, run and read, and
the beginning of the answer. It stands in the system message, because the user message is the prompt itself.

The builder tells it of traces and the gateway of the conversation that Claude Code sends: the same function, the same
text. That is why tokens are estimated here, never counted: a gateway has no tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from claude_capture.claude_trace_schema import ToolCall, Trace
from claude_capture.signals.tool_actions import EDIT_TOOLS, read_action
from trainer.config import TeacherRights
from trainer.dataset.conversation import project_root
from trainer.dataset.teacher_rights import by_student, undeclared
from trainer.dataset.windows import BYTES_PER_TOKEN
from trainer.student.workspace_paths import to_relative

FURTHEST_BACK = 16
"""More turns than this are never told, only counted."""
_PROMPT, _ANSWER, _COMMAND, _PATH = 200, 200, 80, 100  # longest quote of each, in characters
_NAMED = 4  # files, or commands, that are named
HEADING = "Earlier in this session:"


class Deed(NamedTuple):
    """A tool call of an earlier turn, its paths relative."""

    tool: str
    arguments: dict[str, Any]
    failed: bool


def turn_lines(prompt: str, deeds: Iterable[Deed], answer: str) -> str:
    """One earlier turn, told in one to three lines."""
    changed: dict[str, None] = {}
    read: dict[str, None] = {}
    ran: dict[str, bool] = {}
    for deed in deeds:
        call = ToolCall(id="", tool=deed.tool, input=deed.arguments, is_error=deed.failed)
        action = read_action(call)
        if deed.tool in EDIT_TOOLS:
            if action.changes:
                changed[_quoted(action.path, _PATH)] = None
        elif action.command is not None and not action.command.read_only:
            command = _quoted(str(deed.arguments.get("command") or ""), _COMMAND)
            ran.pop(command, None)  # what was run again counts where it was run last
            ran[command] = deed.failed
        elif action.lookup == "read" and not deed.failed and action.target:
            read[_quoted(action.target, _PATH)] = None
    done = [
        _listed("changed", [path for path in changed if path]),
        _listed("ran", [f"`{name}`{' (failed)' if failed else ''}" for name, failed in reversed(ran.items()) if name]),
        _listed("read", [path for path in read if path not in changed]),
    ]
    lines = [f"- asked: {_quoted(prompt, _PROMPT)}"]
    if any(done):
        lines.append("  " + "; ".join(part for part in done if part))
    if said := _quoted(answer, _ANSWER):
        lines.append(f"  answered: {said}")
    return "\n".join(lines)


def _quoted(text: str, limit: int) -> str:
    """The beginning of a text on one line, at most `limit` characters."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _listed(verb: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{verb} {', '.join(names[:_NAMED])}{more}" if names else ""


def trace_lines(trace: Trace, declarations: Sequence[TeacherRights]) -> str:
    """`turn_lines` of a trace; of one that may not be learned from only what the person asked."""
    root = project_root(trace)
    prompt = to_relative(trace.user_prompt, root)
    if by_student(trace) or undeclared(trace, declarations) is not None:
        return turn_lines(prompt, (), "")
    deeds = (
        Deed(call.tool, to_relative(call.input, root), call.is_error)
        for call in trace.tool_calls
        if call.agent_id == trace.agent_id
    )
    return turn_lines(prompt, deeds, to_relative(trace.claude_response, root))


def digest(turns: Sequence[str], tokens: int, further_back: int = 0) -> str:
    """The newest turns that fit, oldest first; of one that does not fit only what was asked. The others are counted.

    Args:
        turns: `turn_lines` of the earlier turns, oldest first.
        tokens: longest digest; a token is taken for three UTF-8 bytes. 0 tells nothing.
        further_back: turns before those; they are only counted.
    """
    if not turns or not tokens:
        return ""
    room = tokens * BYTES_PER_TOKEN - _size(f"{HEADING}\n{_left_out(further_back + len(turns))}")
    told: list[str] = []
    for lines in reversed(turns[-FURTHEST_BACK:]):
        asked = lines.partition("\n")[0]
        fitting = next((text for text in (lines, asked) if _size(text) < room), None)
        if fitting is None:
            break
        told.insert(0, fitting)
        room -= _size(fitting) + 1
    missing = further_back + len(turns) - len(told)
    return "\n".join([HEADING, *([_left_out(missing)] if missing else []), *told])


def _size(text: str) -> int:
    return len(text.encode())


def _left_out(count: int) -> str:
    return f"[{count} earlier prompts left out]" if count != 1 else "[1 earlier prompt left out]"


def with_digest(system_prompt: str, told: str) -> str:
    """The system message of a follow-up prompt; without a digest it is the system prompt alone."""
    return f"{system_prompt}\n\n{told}" if told else system_prompt
