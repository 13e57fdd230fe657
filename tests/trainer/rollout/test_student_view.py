"""What a request says is found in it, however long and odd its texts are."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.rollout.student_view import project_root, without_reminders


@pytest.mark.parametrize(
    ("line", "root"),
    [
        (" - Primary working directory: /srv/a b/grid", "/srv/a b/grid"),
        ("Working directory: /p (was /srv/a) ", "/p"),
        ("Working directory: /p (was", "/p (was"),
        ("> Working directory:   ", None),
        ("The working directory: /p", None),
    ],
)
def test_the_project_is_the_one_that_claude_code_names(line: str, root: str | None) -> None:
    assert project_root({"system": f"You are …\n{line}\nmore"}) == root
    assert project_root({"messages": [{"role": "user", "content": [{"type": "text", "text": line}]}]}) == root


WORDS = st.lists(st.sampled_from(["<system-reminder>", "</system-reminder>", "a", " ", "\n"]), max_size=12).map("".join)


@given(WORDS)
def test_reminders_and_what_follows_them_are_taken_out(text: str) -> None:
    assert without_reminders(text) == re.sub(r"(?s)<system-reminder>.*?</system-reminder>\s*", "", text)


def test_no_text_holds_everybody_up() -> None:
    began = time.process_time()
    many = "<system-reminder>" * 20_000
    assert without_reminders(many) == many
    assert without_reminders(f"{many}x</system-reminder> y{many}") == f"y{many}"
    moved = "Working directory: " + "/p (was " * 100_000
    assert project_root({"system": moved}) == moved.removeprefix("Working directory: ").rstrip(" ")
    assert time.process_time() - began < 2
