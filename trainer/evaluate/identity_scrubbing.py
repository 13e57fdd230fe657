"""Takes out of a text what would tell a rater who wrote it, and counts what it took.

Names of models and vendors, commit trailers, ids of calls and sessions, folders of sessions, machines and people; in
tool outputs also run times, terminal colours and notes that only one client adds. Both sides and the prompt go through
the same rules, so that a replacement itself tells nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

NAME, ID, TRAILER, FOLDER, HOME, TIME = "[name]", "[id]", "[trailer]", "[folder]", "[home]", "[time]"


class _Rule(NamedTuple):
    kind: str
    pattern: re.Pattern[str]
    replacement: str


def _rule(kind: str, pattern: str, replacement: str, flags: re.RegexFlag = re.IGNORECASE) -> _Rule:
    return _Rule(kind, re.compile(pattern, flags), replacement)


_LINES = re.IGNORECASE | re.MULTILINE
_TAIL = r"(?:[-_.:]?\w+)*"
_TRAILERS = (
    _rule("trailer", r"^[ \t]*Co-Authored-By:.*$", TRAILER, _LINES),
    _rule("trailer", r"^.*Generated with \[?(?:Claude|Ollama|Llama).*$", TRAILER, _LINES),
    _rule("trailer", r"Co-Authored-By", TRAILER),
)
_PLACES = (
    _rule("session folder", r"(?:~|/root|/(?:home|Users)/[\w.-]+)?/\.claude(?:/[\w.@%+-]+)*", FOLDER),
    _rule("session folder", r"(?<![\w.])(?:/private)?/(?:var/)?tmp/[\w.-]+|/var/folders/\w+/\w+/T/[\w.-]+", FOLDER),
    _rule("home folder", r"(?<![\w.])/(?:home|Users)/[\w.-]+|(?<![\w.])/root(?![\w-])", HOME),
)
_IDS = (
    _rule("id", r"\b(?:toolu|msg|req|resp)_(?:local_)?[0-9a-z]{16,}\b|\bchatcmpl-\w{8,}", ID),
    _rule("id", r"\bcall_(?:\d+|[0-9a-z]{16,})\b", ID),
    _rule("id", r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", ID),
)
_VENDORS = (
    _rule("ollama", rf"ollama{_TAIL}", NAME),
    _rule("llama", rf"(?:meta[-/])?llama{_TAIL}", NAME),
    _rule("claude", rf"(?:cc-)?claude{_TAIL}", NAME),
    _rule("anthropic", r"anthropic", NAME),
    _rule("meta", r"(?<![<\w.-])meta(?![\w=-])(?! +(?:name|charset|property|content|http))", NAME),
)
_OUTPUTS = (
    _rule("client note", r"\s*<system-reminder>.*?</system-reminder>\s*", "\n", re.DOTALL),
    _rule("client note", r"</?tool_use_error>", ""),
    _rule("terminal colour", r"\x1b\[[0-9;?]*[A-Za-z]", ""),
    _rule("run time", r"\b(in|took) \d+(?:\.\d+)? ?(?:ms|µs|s|secs?|seconds)\b", rf"\1 {TIME}"),
    _rule("run time", r"^(real|user|sys)(\s+)\d+m[\d.]+s$", rf"\1\2{TIME}", _LINES),
)


class Scrubber:
    """Scrubs the texts of one role; `found` counts by kind what was replaced or left out."""

    def __init__(self, model_names: Iterable[str] = ()) -> None:
        """`model_names`: the ids of the models in the test, scrubbed wherever they stand as words."""
        names = sorted({name for name in model_names if len(name) >= 3}, key=len, reverse=True)
        words = rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, names))})(?![A-Za-z0-9])"
        named = (_rule("model name", words, NAME),) if names else ()
        self._rules = (*_TRAILERS, *_PLACES, *named, *_IDS, *_VENDORS)
        self.found: Counter[str] = Counter()

    def text(self, text: str) -> str:
        """The text without the leaks."""
        return self._apply(self._rules, text)

    def output(self, text: str) -> str:
        """A tool's output without the leaks, and without what only one client adds."""
        return self.text(self._apply(_OUTPUTS, text))

    def _apply(self, rules: Iterable[_Rule], text: str) -> str:
        for kind, pattern, replacement in rules:
            text, count = pattern.subn(replacement, text)
            if count:
                self.found[kind] += count
        return text
