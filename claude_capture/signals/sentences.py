"""Prose out of prompts, thinking and answers, cut into statements that know their offsets.

The signals judge statements, not messages. Whatever is not the speaker's own prose is left out first: fenced
code, pasted terminal output, tables, headings, blocks that a client injected. Offsets stay those of the original
text, so that every piece of evidence can be shown where it stands.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_INJECTED = (
    "system-reminder|ide_opened_file|ide_selection|ide_diagnostics|bash-stdout|bash-stderr|bash-input|"
    "task-notification|local-command-stdout|local-command-stderr|local-command-caveat|command-name|command-args|"
    "command-message|function_calls|result|tool_use_error"
)
_BLOCK = re.compile(rf"```.*?(?:```|\Z)|<({_INJECTED})\b[^>]*>.*?(?:</\1>|\Z)", re.DOTALL)
_LINE = re.compile(r"[^\n]+")
_BULLET = re.compile(r"\s*(?:>\s*)?(?:[-*+•]|\d{1,2}[.)]|[a-z]\))\s+(?:\[[ x]\]\s*)?")
_CODE_LINE = re.compile(
    r"\s*(?:def \w+\(|class \w+[:(]|import \w|from \S+ import|(?:const|let|var)\s+\w+\s*=|function \w*\("
    r"|return\b.*[;)]$"
    r"|if \(|for \(|while \(|@\w+$|//|#!|#include|diff --git|index [0-9a-f]{7}|@@ |[+-]{3} \S|>>> |\$ |➜|[+] ?\S"
    r"|Traceback \(|File \"|[A-Za-z.]+(?:Error|Exception): |\w+(?:\.\w+)*\([^)]*\);?$|</?\w+[^>]*>$"
    r"|[\w-]+: [\w.-]+;$)"
    r"|.*[{};]\s*\\?$"
)
_INDENTED = re.compile(r"(?: {4}|\t)\s*\S")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)*`_]*\s+(?=[\"'“‘(*`_\[]*[A-Z0-9À-Þ✅❌⚠])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|approx|resp|no|fig)|\b[A-Z]|(?:^|\s)\d{1,2})\.$", re.IGNORECASE
)
_SEPARATORS = str.maketrans(
    dict.fromkeys('0123456789!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\u2013\u2014\u2018\u201c\u201d\u2026\u2192', " ")
)
_ASCII_LOWER = {code: code + 32 for code in range(65, 91)} | {0x2019: 0x27}


class Statement(NamedTuple):
    """One sentence or list item. `start` and `end` are offsets of `text` in the source text, in characters."""

    text: str
    lower: str
    """`text` in lower case with straight apostrophes; same length, so offsets carry over."""
    words: frozenset[str]
    """Words of `lower` without digits and signs; parts of hyphenated words and identifiers count on their own."""
    start: int
    end: int
    bullet: bool
    question: bool


def word_set(words: str) -> frozenset[str]:
    """The blank-separated words of `words` as a set."""
    return frozenset(words.split())


def lowered(text: str) -> str:
    """Lower case with straight apostrophes and the same length as `text`."""
    lower = text.lower().replace("\u2019", "'")
    return lower if len(lower) == len(text) else text.translate(_ASCII_LOWER)


def split_statements(text: str) -> list[Statement]:
    """The statements of `text` in order; code, tables, headings and injected blocks are left out."""
    if not text:
        return []
    if "```" in text or "<" in text:
        text = _BLOCK.sub(lambda block: "\n" * len(block[0]), text)
    found: list[Statement] = []
    for line in _LINE.finditer(text):
        raw = line[0]
        first = raw.lstrip()[:1]
        if first in ("", "#", "|", "+"):
            continue
        begin = line.start()
        bullet = _BULLET.match(raw)
        if bullet is None and (_INDENTED.match(raw) or _CODE_LINE.match(raw)):
            continue
        position = bullet.end() if bullet else 0
        for stop in _SENTENCE_END.finditer(raw, position):
            if _ABBREVIATION.search(raw, position, stop.start() + 1):
                continue
            _add(found, raw, position, stop.end(), begin, bullet is not None)
            position = stop.end()
        _add(found, raw, position, len(raw), begin, bullet is not None)
    return found


def _add(found: list[Statement], raw: str, start: int, end: int, begin: int, bullet: bool) -> None:
    piece = raw[start:end]
    text = piece.strip(" \t\r\\")
    if len(text) < 3:
        return
    lower = lowered(text)
    words = frozenset(lower.translate(_SEPARATORS).split())
    if not words:
        return
    offset = begin + start + piece.index(text)
    question = "?" in text[-4:]
    found.append(Statement(text, lower, words, offset, offset + len(text), bullet, question))
