"""Replaces secrets by typed placeholders before anything is stored in a trace.

`«AWS_ACCESS_KEY:1»` names the kind and a number; within a session the same secret always gets the same number, so that
a trace still shows that the key read here is the key used there. Redaction works on string values, hence JSON stays
valid. It fails closed: a string that cannot be checked is not stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import orjson

from claude_capture.redaction_rules import RULES, Rule, is_plausible_secret, is_secret_name

_SHORTEST = 6
_SHORTEST_KNOWN = 12
FAILED = "«REDACTION_FAILED»"

Keywords = tuple[tuple[str, Rule], ...]
_ALL_KEYWORDS: Keywords = tuple((keyword, rule) for rule in RULES for keyword in rule.keywords)


class Redactor:
    """Redacts the values of one session. `counts` holds the number of replacements by kind so far."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._placeholders: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self._numbers: Counter[str] = Counter()
        self._known: list[str] = []

    def text(self, text: str) -> str:
        """The text without its secrets; `FAILED` where redaction itself fails."""
        return self._checked(text, _ALL_KEYWORDS)

    def value(self, value: Any) -> Any:
        """A copy of a JSON value with every string in it redacted, keys included."""
        return self._walk(value, "", _keywords_in(value))

    def _walk(self, value: Any, name: str, keywords: Keywords) -> Any:
        if isinstance(value, str):
            redacted = self._checked(value, keywords)
            if redacted == value and name and is_secret_name(name):
                return self._by_name(value)
            return redacted
        if isinstance(value, dict):
            return {self._checked(key, keywords): self._walk(item, key, keywords) for key, item in value.items()}
        if isinstance(value, list):
            return [self._walk(item, name, keywords) for item in value]
        return value

    def _checked(self, text: str, keywords: Keywords) -> str:
        try:
            return self._redact(text, keywords)
        except Exception:
            # Fail closed: whatever went wrong, storing the unchecked text would be worse than losing it.
            self.counts["REDACTION_FAILED"] += 1
            return FAILED

    def _by_name(self, value: str) -> str:
        if len(value) >= 4 and "«" not in value and " " not in value and is_plausible_secret("PASSWORD", value):
            return self._placeholder("SECRET", value)
        return value

    def _redact(self, text: str, keywords: Keywords) -> str:
        if len(text) < _SHORTEST:
            return text
        lower = text.lower()
        found: list[tuple[int, int, str]] = []
        for rule in _rules([rule for keyword, rule in keywords if keyword in lower]):
            for match in rule.pattern.finditer(text):
                group = next((name for name in ("s", "b") if match.groupdict().get(name) is not None), 0)
                start, end = match.span(group)
                if "«" in text[start:end] or (rule.needs_check and not is_plausible_secret(rule.kind, text[start:end])):
                    continue
                found.append((start, end, rule.kind))
        for secret in self._known:
            at = text.find(secret)
            while at >= 0:
                found.append((at, at + len(secret), self._kinds[secret]))
                at = text.find(secret, at + len(secret))
        if not found:
            return text
        found.sort(key=lambda span: (span[0], -span[1]))
        parts: list[str] = []
        position = 0
        for start, end, kind in found:
            if start < position:
                if end <= position:
                    continue
                start = position  # overlapping finds: the rest is secret as well
            parts += (text[position:start], self._placeholder(kind, text[start:end]))
            position = end
        return "".join([*parts, text[position:]])

    def _placeholder(self, kind: str, secret: str) -> str:
        placeholder = self._placeholders.get(secret)
        if placeholder is None:
            self._numbers[kind] += 1
            placeholder = f"«{kind}:{self._numbers[kind]}»"
            self._placeholders[secret] = placeholder
            self._kinds[secret] = kind
            if len(secret) >= _SHORTEST_KNOWN:
                self._known.append(secret)
        self.counts[self._kinds[secret]] += 1
        return placeholder


def _keywords_in(value: Any) -> Keywords:
    """The keywords that occur anywhere in the value: most values hold few, and only these are looked for again."""
    try:
        whole = orjson.dumps(value).lower()
    except (TypeError, ValueError, RecursionError):
        return _ALL_KEYWORDS
    return tuple(pair for pair in _ALL_KEYWORDS if pair[0].encode() in whole)


def _rules(found: list[Rule]) -> Iterable[Rule]:
    """Each rule once, in the order of the rule set."""
    return dict.fromkeys(found) if len(found) > 1 else found
