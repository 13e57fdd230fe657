"""Rules that are only tried on statements that hold one of their cue words.

Most statements hold no cue at all, and most rules have few cues; an index from word to rules makes a statement cost
one set intersection instead of a pass over every rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar


class Cued(Protocol):
    """Anything with cue words."""

    @property
    def cues(self) -> frozenset[str]:
        """Words in lower case of which a statement must hold one."""


RuleT = TypeVar("RuleT", bound=Cued)


class CuedRules(Generic[RuleT]):
    """Rules in order of precedence, found by the words of a statement."""

    def __init__(self, rules: Iterable[RuleT]) -> None:
        self._rules: list[RuleT] = list(rules)
        self._by_word: dict[str, list[int]] = {}
        for position, rule in enumerate(self._rules):
            for word in rule.cues:
                self._by_word.setdefault(word, []).append(position)
        self._words = frozenset(self._by_word)
        self._known: dict[frozenset[str], list[RuleT]] = {frozenset(): []}

    def candidates(self, words: frozenset[str]) -> Sequence[RuleT]:
        """The rules that have a cue among `words`, in order of precedence."""
        cues = words & self._words
        known = self._known.get(cues)
        if known is None:
            positions = sorted({position for word in cues for position in self._by_word[word]})
            known = [self._rules[position] for position in positions]
            if len(self._known) < _REMEMBERED:
                self._known[cues] = known
        return known


_REMEMBERED = 4096
"""Combinations of cue words whose rules are kept."""
