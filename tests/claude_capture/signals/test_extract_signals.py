"""The whole extraction: pure, total, serialisable."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claude_capture.claude_trace_schema import ReasoningSignals, Step, ToolCall, Trace
from claude_capture.reasoning_extractor import extract_signals

PROSE = st.text(max_size=200) | st.sampled_from(
    [
        "Don't touch it, but we could use a regex. But it would break.",
        "Actually, that's not right, because I was wrong.",
        "- only `x`\n```\nfence",
        "<system-reminder>open",
    ]
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["command", "file_path", "pattern", "todos", "n"]),
    PROSE | st.integers() | st.lists(st.text(max_size=5), max_size=2),
    max_size=3,
)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    calls = [
        ToolCall(
            id=str(number),
            tool=draw(st.sampled_from(["Bash", "Edit", "Read", "Grep", "mcp__x__get_y", "WebFetch", "Odd"])),
            input=draw(ARGUMENTS),
            output=draw(st.none() | PROSE),
            is_error=draw(st.booleans()),
            step=number,
        )
        for number in range(draw(st.integers(0, 4)))
    ]
    steps = [
        Step(index=call.step, thinking=draw(PROSE), text=draw(PROSE), call_ids=[call.id, "unknown"]) for call in calls
    ]
    return Trace(
        trace_id="t",
        session_id="s",
        user_prompt=draw(PROSE),
        tool_calls=calls,
        steps=steps if draw(st.booleans()) else [],
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(traces())
def test_any_trace_gives_signals_whose_evidence_stands_in_it(trace: Trace) -> None:
    before = trace.model_dump_json()
    signals = extract_signals(trace)
    assert trace.model_dump_json() == before
    assert extract_signals(trace) == signals
    assert ReasoningSignals.model_validate_json(signals.model_dump_json()) == signals
    ids = {call.id for call in trace.tool_calls}
    for item in (*signals.constraints, *signals.pruning_decisions, *signals.self_corrections, *signals.reasoning_chain):
        if item.source == "action":
            assert item.quote in ids
        elif item.source == "user":
            assert trace.user_prompt[item.start : item.end] == item.quote
        elif trace.steps:
            assert getattr(trace.steps[item.step], item.source)[item.start : item.end] == item.quote


def test_a_trace_known_only_from_hooks_still_has_signals() -> None:
    calls = [
        ToolCall(id="a", tool="Read", input={"file_path": "/w/a.py"}, reasoning="I must not change a.py.", step=0),
        ToolCall(id="b", tool="Bash", input={"command": "ls src"}, reasoning="I must not change a.py.", step=0),
    ]
    trace = Trace(trace_id="t", session_id="s", user_prompt="Look.", tool_calls=calls, claude_response="Done.")
    signals = extract_signals(trace)
    assert [item.slot for item in signals.constraints] == ["a.py change not"]
    assert signals.tool_sequence == ["Read", "Bash"]
    assert signals.exploration_depth == "moderate"


def test_an_empty_trace(write_trace: Callable[..., Trace]) -> None:
    signals = extract_signals(write_trace(""))
    assert signals == ReasoningSignals(workflow_type="conversation")
