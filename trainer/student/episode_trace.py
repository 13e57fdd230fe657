"""A student's episode as a Trace, so that it can be scored, shown and rated like a teacher's."""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Sequence

from claude_capture.claude_trace_schema import (
    SCHEMA_VERSION,
    Context,
    ErrorKind,
    Step,
    Teacher,
    ToolCall,
    Trace,
    trace_id_for,
)
from claude_capture.reasoning_extractor import extract_signals
from trainer.records import Message

_EXIT_CODE = re.compile(r"Exit code [1-9]\d*\b")


def error_kind_of(output: str) -> ErrorKind | None:
    """Which failure the text of a tool result reports, in Claude Code's wording; None for a success."""
    if output.startswith("<tool_use_error>") or output.startswith("Error"):
        return "tool_use_error"
    return "exit_code" if _EXIT_CODE.match(output) else None


def trace_of(messages: Sequence[Message], *, reference: Trace | None, student: str) -> Trace:
    """Builds the trace of one episode.

    Args:
        messages: the conversation, system message first.
        reference: the teacher's trace of the same prompt: its id, session and context are taken over.
        student: name of the student's version, stored as `teacher.student`.
    """
    prompt = next((m["content"] for m in messages if m["role"] == "user"), "")
    steps: list[Step] = []
    calls: list[ToolCall] = []
    for position, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        # a turn's results stand right behind it, those of calls that could not be read last
        results = itertools.takewhile(lambda m: m["role"] == "tool", messages[position + 1 :])
        outputs = iter([m["content"] for m in results])
        text = message.get("content") or ""
        step = Step(index=len(steps), text=text, thinking_source="absent", model=student)
        for call in message.get("tool_calls") or []:
            output = next(outputs, None)
            kind = error_kind_of(output) if output is not None else None
            step.call_ids.append(call["id"])
            calls.append(
                ToolCall(
                    id=call["id"],
                    tool=call["function"]["name"],
                    input=call["function"]["arguments"],
                    reasoning=text,
                    reasoning_source="text" if text else "absent",
                    output=output,
                    is_error=kind is not None,
                    error_kind=kind,
                    step=step.index,
                )
            )
        steps.append(step)
    last = steps[-1] if steps else None
    answered = last is not None and not last.call_ids and messages[-1]["role"] == "assistant"
    session = reference.session_id if reference else f"student-{uuid.uuid4()}"
    trace = Trace(
        schema_version=SCHEMA_VERSION,
        trace_id=reference.trace_id if reference else trace_id_for(session, prompt),
        session_id=session,
        family=reference.family if reference else session,
        user_prompt=prompt,
        claude_response=last.text if last is not None and answered else "",
        status="complete" if answered else "interrupted",
        steps=steps,
        tool_calls=calls,
        context=reference.context.model_copy() if reference else Context(),
        teacher=Teacher(model=student, student=student),
    )
    trace.reasoning_signals = extract_signals(trace)
    return trace
