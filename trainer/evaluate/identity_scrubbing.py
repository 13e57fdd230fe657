"""Takes out of a text what would tell a rater who wrote it: names of models and vendors, commit trailers.

Both sides and the prompt go through the same rules, so that a replacement itself tells nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

NAME = "[name]"
_TAIL = r"(?:[-_.:]?\w+)*"
_RULES = (
    ("trailer", re.compile(r"^[ \t]*Co-Authored-By:.*$", re.IGNORECASE | re.MULTILINE), "[trailer]"),
    (
        "trailer",
        re.compile(r"^.*Generated with \[?(?:Claude|Ollama|Llama).*$", re.IGNORECASE | re.MULTILINE),
        "[trailer]",
    ),
    ("trailer", re.compile(r"Co-Authored-By", re.IGNORECASE), "[trailer]"),
    ("llama", re.compile(rf"(?:meta[-/])?llama{_TAIL}", re.IGNORECASE), NAME),
    ("claude", re.compile(rf"claude{_TAIL}", re.IGNORECASE), NAME),
    ("anthropic", re.compile(r"anthropic", re.IGNORECASE), NAME),
    (
        "meta",
        re.compile(r"(?<![<\w.-])meta(?![\w=-])(?! +(?:name|charset|property|content|http))", re.IGNORECASE),
        NAME,
    ),
)
_OLLAMA = ("ollama", re.compile(rf"ollama{_TAIL}", re.IGNORECASE), NAME)


class Scrubber:
    """Scrubs texts of one test; `found` counts the replacements by kind."""

    def __init__(self, model_names: Iterable[str] = ()) -> None:
        """`model_names`: the ids of the models in the test, scrubbed wherever they stand."""
        names = sorted({name for name in model_names if len(name) >= 3}, key=len, reverse=True)
        self._rules = [*_RULES[:3], _OLLAMA, *_RULES[3:]]
        if names:
            pattern = re.compile("|".join(map(re.escape, names)), re.IGNORECASE)
            self._rules.insert(3, ("model name", pattern, NAME))
        self.found: Counter[str] = Counter()

    def text(self, text: str) -> str:
        """The text without the leaks."""
        for kind, pattern, replacement in self._rules:
            text, count = pattern.subn(replacement, text)
            if count:
                self.found[kind] += count
        return text
