"""Traces for the dataset tests, written the way an engineer would tell them: say, call, see, answer."""

from __future__ import annotations

from typing import Any

from claude_capture.claude_trace_schema import (
    Context,
    ReasoningSignals,
    SelfCorrection,
    Step,
    Teacher,
    ToolCall,
    Trace,
    trace_id_for,
)

ROOT = "/home/me/grid"
TEACHER = "scripted-teacher-1"


def call(tool: str, output: str | None = "ok", *, error: str | None = None, **arguments: Any) -> ToolCall:
    """One call; the id is set by `trace`."""
    return ToolCall(
        id="",
        tool=tool,
        input=arguments,
        output=output,
        is_error=error is not None,
        error_kind=error,  # type: ignore[arg-type]  # the tests name valid kinds
    )


def trace(
    prompt: str,
    *turns: tuple[str, list[ToolCall]],
    answer: str = "Done.",
    session: str = "s1",
    started_at: str = "2026-01-01T00:00:00Z",
    root: str = ROOT,
    model: str | None = TEACHER,
    mends: tuple[int, int] | None = None,
    **fields: Any,
) -> Trace:
    """A finished trace. `turns` are (text, calls); `mends` = (number of the failed call, number of the mending one)."""
    identity = trace_id_for(session, prompt + started_at)
    steps, calls = [], []
    for index, (text, made) in enumerate(turns):
        for item in made:
            calls.append(item.model_copy(update={"id": f"toolu_{identity[:6]}_{len(calls)}", "step": index}))
        ids = [item.id for item in calls if item.step == index]
        steps.append(Step(index=index, text=text, call_ids=ids, model=model))
    if answer:
        steps.append(Step(index=len(turns), text=answer, model=model))
    corrections = []
    if mends:
        by = calls[mends[1]]
        corrections.append(
            SelfCorrection(
                step=by.step,
                quote=by.id,
                source="action",
                rule="test",
                kind="action",
                corrects=calls[mends[0]].id,
                by=by.id,
                succeeded=True,
            )
        )
    values: dict[str, Any] = {
        "trace_id": identity,
        "session_id": session,
        "user_prompt": prompt,
        "claude_response": answer,
        "started_at": started_at,
        "steps": steps,
        "tool_calls": calls,
        "context": Context(cwd=root),
        "teacher": Teacher(model=model),
        "reasoning_signals": ReasoningSignals(
            tool_sequence=[item.tool for item in calls], self_corrections=corrections, workflow_type="database"
        ),
    }
    return Trace(**(values | fields))


def transformer_trace(number: int = 1, root: str = ROOT, **fields: Any) -> Trace:
    """The demo's headline task in small: schema, two queries in parallel, answer."""
    return trace(
        f"What's the difference between transformer {number} and transformer {number + 1}?",
        (
            "I read the schema first.",
            [call("Bash", "CREATE TABLE transformers(id, kv)", command="sqlite3 grid.db .schema")],
        ),
        (
            "Now both rows.",
            [
                call("Bash", f"{number}|11", command=f"sqlite3 {root}/grid.db 'select * where id={number}'"),
                call("Bash", f"{number + 1}|33", command=f"sqlite3 {root}/grid.db 'select * where id={number + 1}'"),
            ],
        ),
        answer=f"Transformer {number} has 11 kV, transformer {number + 1} has 33 kV.",
        root=root,
        **fields,
    )
