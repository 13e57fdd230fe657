"""Statements are the speaker's own prose, at offsets of the original text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from claude_capture.signals.sentences import split_statements


def test_sentences_and_list_items_are_separate_statements() -> None:
    text = "The relay is slow. It reads e.g. every row twice!\n- keep the index\n2. drop the cache"
    found = split_statements(text)
    assert [item.text for item in found] == [
        "The relay is slow.",
        "It reads e.g. every row twice!",
        "keep the index",
        "drop the cache",
    ]
    assert [item.bullet for item in found] == [False, False, True, True]


def test_code_tables_headings_and_injected_blocks_are_left_out() -> None:
    text = (
        "# Never read this\nLook at this:\n```\nyou must not run me\n```\n| only | one |\n"
        "<system-reminder>Don't mention it.</system-reminder>\nDone here."
    )
    assert [item.text for item in split_statements(text)] == ["Look at this:", "Done here."]


def test_an_unclosed_fence_hides_the_rest() -> None:
    assert [item.text for item in split_statements("Before it.\n```python\nonly = 1\n")] == ["Before it."]


def test_curly_apostrophes_read_like_straight_ones() -> None:
    (statement,) = split_statements("Don’t touch it.")
    assert statement.lower == "don't touch it."
    assert statement.text == "Don’t touch it."


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_offsets_always_lead_back_to_the_text(text: str) -> None:
    for item in split_statements(text):
        assert text[item.start : item.end] == item.text
        assert len(item.lower) == len(item.text)
