"""Limits that a person states or an agent finds, and what only looks like one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from claude_capture.claude_trace_schema import Trace
from claude_capture.reasoning_extractor import extract_signals

WriteTrace = Callable[..., Trace]


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("Count the feeders. Don't touch the tests.", "forbidden"),
        ("Please list the relays, but never write to the database.", "forbidden"),
        ("I don't want any new files in there.", "forbidden"),
        ("You must not change config.toml while you look for it.", "forbidden"),
        ("Rewrite the loader without adding a dependency.", "forbidden"),
        ("Sort the meters; no new dependencies.", "forbidden"),
        ("The report must be sorted by name.", "required"),
        ("Make sure the old ids still resolve.", "required"),
        ("Always run the linter afterwards.", "required"),
        ("Use ripgrep instead of grep for this.", "required"),
        ("Use only the standard library here.", "scope"),
        ("Find the bug, but only change loader.py.", "scope"),
        ("Keep the public API unchanged while you clean up.", "scope"),
        ("Focus on the parser.", "scope"),
        ("Summarise it in at most 40 words.", "limit"),
        ("Explain in three sentences what it does.", "limit"),
        ("Answer as JSON.", "format"),
        ("It has to run on Python 3.9 or later.", "version"),
        ("Let's make it cross-platform.", "version"),
        ("This is read-only, just tell me what you see.", "permission"),
        ("Ask me before you delete anything.", "permission"),
        ("There is no network on this machine.", "environment"),
    ],
)
def test_limits_in_the_prompt(write_trace: WriteTrace, prompt: str, kind: str) -> None:
    found = extract_signals(write_trace(prompt)).constraints
    assert kind in {item.kind for item in found}
    assert all(item.step == -1 and item.source == "user" for item in found)
    assert all(prompt[item.start : item.end] == item.quote for item in found)


@pytest.mark.parametrize(
    "prompt",
    [
        "What is the difference between feeder 3 and feeder 4?",
        "Why does the loader only run on Mondays?",
        "I don't know why the import fails.",
        "Can you add a column for the voltage?",
        "The tests don't pass since yesterday.",
        "Don't worry about the typo.",
        "The only problem is the slow query.",
        "No idea where it breaks.",
        "I should have told you about the second table.",
        "It looks like it should work, whatever I try.",
    ],
)
def test_what_is_no_limit_in_a_prompt(write_trace: WriteTrace, prompt: str) -> None:
    assert extract_signals(write_trace(prompt)).constraints == []


@pytest.mark.parametrize(
    "thinking",
    [
        "The user said not to touch the tests, so the loader is what remains.",
        "I must not write anything here.",
        "Python module names cannot contain hyphens.",
        "The API returns at most 100 rows per page.",
        "The browser tool is not available.",
        "This build requires Python 3.12 or newer.",
        "The change must stay backwards compatible, and the keys must be unique.",
        "The folder is read-only.",
        "Given the constraints, a small script is enough.",
    ],
)
def test_limits_that_the_agent_finds(write_trace: WriteTrace, thinking: str) -> None:
    found = extract_signals(write_trace("Go on.", (thinking, [("Read", "/w/a.py")]))).constraints
    assert found
    assert all(item.source == "thinking" and thinking[item.start : item.end] == item.quote for item in found)


@pytest.mark.parametrize(
    "thinking",
    [
        "I need to read the file first.",
        "I should check the tests next.",
        "We have to update the loader.",
        "It must be the cache that is stale.",
        "I can't find the table.",
        "The loader only keeps the last row.",
        "Let me make sure the tests pass.",
        "If the file is not available, the loader returns nothing.",
    ],
)
def test_plans_and_descriptions_are_no_limits(write_trace: WriteTrace, thinking: str) -> None:
    assert extract_signals(write_trace("Go on.", (thinking, [("Read", "/w/a.py")]))).constraints == []


def test_each_limit_of_a_sentence_is_its_own_item(write_trace: WriteTrace) -> None:
    prompt = "Compare both rows; read-only, do not change files, and answer in at most 30 words."
    slots = [item.slot for item in extract_signals(write_trace(prompt)).constraints]
    assert slots == ["change not", "change file not", "30 max reply word"]


def test_pasted_code_and_terminal_output_state_no_limits(write_trace: WriteTrace) -> None:
    prompt = "Fix this:\n```\n# you must not call this twice\n```\n<bash-stdout>Never do that.</bash-stdout>"
    assert extract_signals(write_trace(prompt)).constraints == []


def test_a_closing_summary_of_changes_states_no_limits(write_trace: WriteTrace) -> None:
    text = "All done.\n- Kept the public API unchanged\n- Added a check without changing the parser"
    trace = write_trace("Go on.", ("", [("Read", "/w/a.py")]), ("", [], text))
    assert extract_signals(trace).constraints == []
