"""Figures over traces: how many, of which kinds of work, how well they were seen, how complete their reasoning is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from claude_capture.claude_trace_schema import ToolCall, Trace

GOAL = 500
"""Traces that a first student wants."""
KINDS_OF_WORK = ("database", "file", "complex reasoning", "tool chain")
_FILE_WORK = frozenset({"edit", "refactor", "write", "test", "debug"})
_CHAIN_TOOLS = 3


def kinds_of_work(trace: Trace) -> set[str]:
    """Which of the four kinds of work a trace shows; it may show several.

    database: its workflow is; file: it changes files; complex reasoning: dependent steps after a thorough look;
    tool chain: its workflow is, or at least three different tools in dependent steps.
    """
    signals = trace.reasoning_signals
    kinds: set[str] = set()
    if signals.workflow_type == "database":
        kinds.add("database")
    if signals.workflow_type in _FILE_WORK:
        kinds.add("file")
    if signals.multi_step_reasoning and signals.exploration_depth in ("thorough", "exhaustive"):
        kinds.add("complex reasoning")
    several_tools = len(set(signals.tool_sequence)) >= _CHAIN_TOOLS and signals.multi_step_reasoning
    if signals.workflow_type == "tool_chain" or several_tools:
        kinds.add("tool chain")
    return kinds


def calls_of(trace: Trace) -> Iterator[ToolCall]:
    """The calls of a trace and of its subagents."""
    yield from trace.tool_calls
    for subtrace in trace.subtraces:
        yield from calls_of(subtrace)


def summarise(traces: Iterable[Trace]) -> dict[str, Any]:
    """All figures as plain JSON values; shares are fractions of calls."""
    counts: dict[str, Counter[str]] = {
        name: Counter()
        for name in (
            "status",
            "workflow",
            "depth",
            "work",
            "teacher",
            "project",
            "tools",
            "errors",
            "seen_by",
            "reasoning",
            "signals",
            "redactions",
            "versions",
        )
    }
    sessions: set[str] = set()
    total = calls = subagents = tokens_in = tokens_out = rejected = 0
    for trace in traces:
        total += 1
        sessions.add(trace.session_id)
        rejected += len(trace.rejected)
        subagents += sum(1 for _ in _subtraces(trace))
        signals = trace.reasoning_signals
        counts["status"][trace.status] += 1
        counts["workflow"][signals.workflow_type] += 1
        counts["depth"][signals.exploration_depth] += 1
        counts["work"].update(kinds_of_work(trace))
        counts["teacher"][trace.teacher.student or trace.teacher.model or "unknown"] += 1
        counts["project"][trace.context.repo or trace.context.project_dir or "unknown"] += 1
        counts["versions"][trace.teacher.client_version or "unknown"] += 1
        counts["redactions"].update(trace.provenance.redactions)
        for name in ("constraints", "pruning_decisions", "self_corrections"):
            counts["signals"][name] += len(getattr(signals, name))
        for part in (trace, *_subtraces(trace)):
            usage = part.usage
            tokens_in += usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
            tokens_out += usage.output_tokens
        for call in calls_of(trace):
            calls += 1
            counts["tools"][call.tool] += 1
            counts["seen_by"][call.seen_by] += 1
            counts["reasoning"][call.reasoning_source] += 1
            if call.is_error:
                counts["errors"][call.error_kind or "other"] += 1
    reasoned = calls - counts["reasoning"]["absent"] - counts["reasoning"]["empty"]
    return {
        "traces": total,
        "goal": GOAL,
        "sessions": len(sessions),
        "calls": calls,
        "subagents": subagents,
        "rejected_continuations": rejected,
        "calls_with_reasoning": round(reasoned / calls, 4) if calls else None,
        "reconciled": round(counts["seen_by"]["both"] / calls, 4) if calls else None,
        "tokens": {"input": tokens_in, "output": tokens_out},
        "kinds_of_work": {kind: counts["work"][kind] for kind in KINDS_OF_WORK},
        **{name: dict(counter.most_common()) for name, counter in counts.items() if name != "work"},
    }


def _subtraces(trace: Trace) -> Iterator[Trace]:
    for subtrace in trace.subtraces:
        yield subtrace
        yield from _subtraces(subtrace)
