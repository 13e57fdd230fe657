"""Steps that carry the work on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from claude_capture.claude_trace_schema import Trace
from claude_capture.reasoning_extractor import extract_signals

WriteTrace = Callable[..., Trace]


@pytest.mark.parametrize(
    ("thinking", "kind"),
    [
        ("I can see two tables that hold transformer ratings.", "observation"),
        ("The export is empty because the filter drops every row.", "inference"),
        ("The best approach is a single query with a join.", "decision"),
        ("Next I need to read the schema of the feeder table.", "plan"),
    ],
)
def test_kinds(write_trace: WriteTrace, thinking: str, kind: str) -> None:
    (step,) = extract_signals(write_trace("Go on.", (thinking, [("Read", "/w/a.py")]))).reasoning_chain
    assert (step.kind, step.source, step.quote) == (kind, "thinking", thinking)


@pytest.mark.parametrize(
    "thinking",
    [
        "Perfect!",
        "Let me do that now.",
        "Good, now let me continue.",
        "Great! Let me provide a summary.",
        "Is it there?",
    ],
)
def test_greetings_and_empty_announcements_are_no_steps(write_trace: WriteTrace, thinking: str) -> None:
    assert extract_signals(write_trace("Go on.", (thinking, [("Read", "/w/a.py")]))).reasoning_steps == 0


def test_text_that_repeats_the_thinking_counts_once(write_trace: WriteTrace) -> None:
    trace = write_trace(
        "Go on.",
        (
            "I need to read the feeder schema before I join it.",
            [("Read", "/w/a.sql")],
            "I'll read the feeder schema before I join it:",
        ),
    )
    assert extract_signals(trace).reasoning_steps == 1


def test_the_chain_keeps_the_order_and_its_count(write_trace: WriteTrace) -> None:
    trace = write_trace(
        "Go on.",
        ("I need to list the tables. The names suggest a second database, since both end in _old.", [("Bash", "ls")]),
        ("There are two databases in the folder.", [], "The newer one is right, because it holds this year's rows."),
    )
    signals = extract_signals(trace)
    assert [(item.step, item.kind) for item in signals.reasoning_chain] == [
        (0, "plan"),
        (0, "inference"),
        (1, "observation"),
        (1, "inference"),
    ]
    assert signals.reasoning_steps == 4
