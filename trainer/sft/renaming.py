"""Copies of a training conversation in which names and numbers are exchanged for others of the same kind.

A teacher who asked for transformer 12 would have asked for transformer 47 in the same way. Exchanging a name wherever
it stands (prompt, calls, results, answer) keeps the conversation true to itself, and a student that sees the same
workflow under ever new names learns to copy them from its context instead of remembering them. Small bases gain most.

What is exchanged: whole numbers and decimals that stand in the prompt or in a result and again in something the
teacher wrote; and words that few conversations share and that teachers carry from what is given into what they write
(`Oakridge`, `MAX_LOAD`, `retry_limit`), each for another of the same shape. Line numbers, and words that many
conversations share, are left alone.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from trainer.records import BCSample, Message

COMMON = 0.2
"""A word in more than this share of the conversations is vocabulary, not a name."""
CARRIED = 0.1
"""A name is carried from what was given into what is written in at least this share of its conversations."""
_WORD = re.compile(r"[A-Za-z]+(?:_[A-Za-z]+)*")
_NUMBER = re.compile(r"(?<![\w.:])\d{1,4}(?:\.\d{1,2})?(?!\w|\t|\.\d)")
_TOKEN = re.compile(f"({_NUMBER.pattern})|({_WORD.pattern})")
_SHAPES = (
    ("CONSTANT", re.compile(r"[A-Z]{2,}_[A-Z]{2,}")),
    ("key_name", re.compile(r"[a-z]{3,}_[a-z]{3,}")),
    ("Name", re.compile(r"[A-Z][a-z]{3,}")),
)


def _shape(word: str) -> str | None:
    """Which kind of name a word looks like; None for an ordinary word."""
    return next((name for name, pattern in _SHAPES if pattern.fullmatch(word)), None)


def _texts(message: Message) -> list[str]:
    calls = (json.dumps(call["function"]["arguments"]) for call in message.get("tool_calls") or [])
    return [message.get("content") or "", *calls]


def _given_and_written(sample: BCSample) -> tuple[str, str]:
    """What the student is given (prompt and results), and what it writes."""
    given = (text for m in sample.messages if m["role"] in ("user", "tool") for text in _texts(m))
    written = (text for m in sample.messages if m["role"] == "assistant" for text in _texts(m))
    return "\n".join(given), "\n".join(written)


class Renamer:
    """Knows the names of a training set, by shape."""

    def __init__(self, samples: Sequence[BCSample]) -> None:
        seen: Counter[str] = Counter()
        carried: Counter[str] = Counter()
        for sample in samples:
            given, written = (set(_WORD.findall(text)) for text in _given_and_written(sample))
            seen.update(word for word in given | written if _shape(word))
            carried.update(word for word in given & written if _shape(word))
        self._pools: dict[str, list[str]] = defaultdict(list)
        for word, count in sorted(seen.items()):
            if count <= max(1, COMMON * len(samples)) and carried[word] >= CARRIED * count:
                self._pools[_shape(word) or ""].append(word)
        self._names = {word for pool in self._pools.values() for word in pool}

    def renamed(self, sample: BCSample, draw: random.Random) -> BCSample:
        """One copy with names and numbers exchanged; the same draw gives the same copy."""
        given, written = _given_and_written(sample)
        numbers = sorted(set(_NUMBER.findall(given)) & set(_NUMBER.findall(written)))
        names = sorted(set(_WORD.findall(given + " " + written)) & self._names)
        exchange = self._numbers(numbers, draw) | self._words(names, draw)
        messages = [_exchanged(message, exchange) for message in sample.messages]
        return sample.model_copy(update={"messages": messages})

    def _numbers(self, numbers: Sequence[str], draw: random.Random) -> dict[str, str]:
        """A random number of the same length for each; two never become one."""
        exchange: dict[str, str] = {}
        for number in numbers:
            for _ in range(20):
                digits = [draw.choice("0123456789") if char.isdigit() else char for char in number]
                if digits[0] == "0" and len(digits) > 1 and digits[1] != ".":
                    digits[0] = draw.choice("123456789")
                candidate = "".join(digits)
                if candidate not in exchange.values():
                    exchange[number] = candidate
                    break
        return exchange

    def _words(self, names: Sequence[str], draw: random.Random) -> dict[str, str]:
        exchange: dict[str, str] = {}
        by_shape: dict[str, list[str]] = defaultdict(list)
        for name in names:
            by_shape[_shape(name) or ""].append(name)
        for shape, group in by_shape.items():
            pool = self._pools[shape]
            exchange |= dict(zip(group, draw.sample(pool, len(group)), strict=True))
        return exchange


def _exchanged(message: Message, exchange: dict[str, str]) -> Message:
    def text(value: str) -> str:
        return _TOKEN.sub(lambda match: exchange.get(match[0], match[0]), value)

    def anywhere(value: Any) -> Any:
        if isinstance(value, str):
            return text(value)
        if isinstance(value, dict):
            return {key: anywhere(item) for key, item in value.items()}
        return [anywhere(item) for item in value] if isinstance(value, list) else value

    copy = dict(message)
    copy["content"] = text(message.get("content") or "")
    if message.get("tool_calls"):
        copy["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": anywhere(call["function"]["arguments"])}}
            for call in message["tool_calls"]
        ]
    return copy


def with_renamed_copies(samples: Sequence[BCSample], copies: int, seed: int) -> list[BCSample]:
    """The samples, followed by `copies` renamed versions of each; deterministic in the seed."""
    if not copies:
        return list(samples)
    renamer = Renamer(samples)
    draw = random.Random(seed)
    return [*samples, *(renamer.renamed(sample, draw) for _ in range(copies) for sample in samples)]
