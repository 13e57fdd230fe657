"""Small traces of a teacher and of a student that answers the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from claude_capture.claude_trace_schema import Context, ReasoningSignals, Step, Teacher, ToolCall, Trace

ROOT = "/home/someone/grid"


def trace(number: int, *, workflow: Any = "database", **changes: Any) -> Trace:
    """A teacher's trace: one query, one answer."""
    call = ToolCall(
        id=f"toolu_{number}",
        tool="Read",
        input={"file_path": f"{ROOT}/data/t{number}.json"},
        output=f"transformer {number}: 400 kVA",
        step=0,
    )
    fields: dict[str, Any] = {
        "trace_id": f"trace-{number:03}",
        "session_id": f"session-{number}",
        "user_prompt": f"What is the rating of transformer {number}?",
        "claude_response": f"Transformer {number} is rated 400 kVA.",
        "steps": [
            Step(index=0, text="I read the file.", call_ids=[call.id]),
            Step(index=1, text=f"Transformer {number} is rated 400 kVA."),
        ],
        "tool_calls": [call],
        "reasoning_signals": ReasoningSignals(workflow_type=workflow),
        "context": Context(cwd=ROOT, project_dir=ROOT),
        "teacher": Teacher(model="glm-4.6", provider="api.example"),
    }
    return Trace(**(fields | changes))


def student_of(teacher: Trace, **changes: Any) -> Trace:
    """The student's trace of the same prompt: relative paths, its own ids, another wording."""
    call = ToolCall(
        id="call_0", tool="Read", input={"file_path": "data/x.json"}, output="transformer: 400 kVA, oil", step=0
    )
    fields: dict[str, Any] = {
        "claude_response": "It is rated 400 kVA.",
        "steps": [Step(index=0, text="", call_ids=["call_0"]), Step(index=1, text="It is rated 400 kVA.")],
        "tool_calls": [call],
        "teacher": Teacher(model="llama-claude-ppo-v2", student="llama-claude-ppo-v2"),
    }
    return teacher.model_copy(update=fields | changes)


def write_traces(path: Path, traces: list[Trace]) -> Path:
    """Traces as JSON lines."""
    path.write_text("".join(item.model_dump_json() + "\n" for item in traces), "utf-8")
    return path
