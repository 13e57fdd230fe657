"""Reads Claude Code's session files line by line and loses no record, whatever state they are in.

Real session files hold two objects on one line, lines cut by a crash, NUL runs left by a file system, replayed
records, comments, and record types that this version has never heard of. Whatever parses as a record is handed on
untouched; whatever does not is counted by reason, never dropped in silence. Unknown record types and fields are
handed on as well and counted per client version, so that a new Claude Code shows up as drift before it does harm.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from claude_capture.transcript_vocabulary import COMMON_FIELDS, KNOWN_FIELDS

JsonObject = dict[str, Any]

# What a record of a session file starts with; used to find a whole record behind a torn one on the same line.
_RECORD_STARTS = tuple(f'{{"{key}"'.encode() for key in ("parentUuid", "type", "uuid", "sessionId", "isSidechain", "v"))
"""How records of session files and hook event lines start."""
_MAX_RESUME_POINTS = 64


@dataclass
class ReadStats:
    """What reading found. Counters are summed over files with `add`."""

    lines: int = 0
    bytes: int = 0
    records: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)
    """Lines (or parts of lines) that hold no record, by reason."""
    repaired: Counter[str] = field(default_factory=Counter)
    """Lines that were damaged but gave up their records, by kind of damage."""
    drift: Counter[str] = field(default_factory=Counter)
    """Unknown record types and fields as `<client version> <type>[.<field>]`."""

    def add(self, other: ReadStats) -> None:
        """Adds the counts of `other` to these."""
        self.lines += other.lines
        self.bytes += other.bytes
        self.records += other.records
        self.set_aside.update(other.set_aside)
        self.repaired.update(other.repaired)
        self.drift.update(other.drift)


def read_records(path: Path, stats: ReadStats) -> Iterator[JsonObject]:
    """All records of a session file in file order; damage and drift are counted in `stats`.

    A record is a JSON object with a `type`. Raises OSError where the file cannot be read.
    """
    with path.open("rb") as stream:
        for line in stream:
            stats.lines += 1
            stats.bytes += len(line)
            for value in parse_line(line, stats):
                if _is_record(value, stats):
                    stats.records += 1
                    _count_drift(value, stats)
                    yield value


def parse_line(line: bytes, stats: ReadStats) -> list[Any]:
    """The JSON values of one line: one as a rule, more where objects share a line, none where nothing can be read."""
    try:
        return [orjson.loads(line)]
    except orjson.JSONDecodeError:
        pass
    text = line.strip(b"\x00 \t\r\n\xef\xbb\xbf")
    if not text:
        if line.strip():
            stats.set_aside["nul_run"] += 1
        return []
    if b"\x00" in line:
        stats.repaired["nul_run"] += 1
        text = text.replace(b"\x00", b"")
    values, rest = _salvage(text, stats)
    if rest:
        cut = not values and not line.endswith(b"\n")
        reason = "cut_last_line" if cut else "torn_line" if text.startswith((b"{", b"[")) else "not_json"
        stats.set_aside[reason] += 1
    if len(values) > 1:
        stats.repaired["several_objects_on_a_line"] += 1
    elif values and rest:
        stats.repaired["record_behind_a_torn_one"] += 1
    return values


def _salvage(text: bytes, stats: ReadStats) -> tuple[list[Any], bool]:
    """Reads as many values as a damaged line gives; the flag says whether something was left unread."""
    try:
        return [orjson.loads(text)], False
    except orjson.JSONDecodeError:
        pass
    decoded = text.decode("utf-8", "replace")
    if "�" in decoded and "�".encode() not in text:
        stats.repaired["invalid_utf8"] += 1
    decoder = json.JSONDecoder()
    values: list[Any] = []
    position, left_over, attempts = 0, False, 0
    while position < len(decoded):
        try:
            value, position = decoder.raw_decode(decoded, position)
            if values or left_over:
                if isinstance(value, dict) and _looks_like_record(value):
                    values.append(_without_surrogates(value))
                else:
                    left_over = True
            else:
                values.append(_without_surrogates(value))
        except (ValueError, RecursionError):
            left_over = True
            attempts += 1
            position = _next_record_start(decoded, position + 1) if attempts < _MAX_RESUME_POINTS else len(decoded)
        while position < len(decoded) and decoded[position] in " \t\r\n":
            position += 1
    if values and not isinstance(values[0], dict):
        return [], True  # a number or a string at the start of damaged text is damage, not a value
    return values, left_over


def _next_record_start(text: str, position: int) -> int:
    found = [text.find(start.decode(), position) for start in _RECORD_STARTS]
    return min((index for index in found if index >= 0), default=len(text))


def _looks_like_record(value: JsonObject) -> bool:
    return (
        "uuid" in value
        or "sessionId" in value
        or value.get("type") in KNOWN_FIELDS
        or (value.get("v") == 1 and isinstance(value.get("payload"), dict))
    )


def _without_surrogates(value: Any) -> Any:
    """Lone surrogates, which JSON escapes may carry and UTF-8 cannot, become U+FFFD."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def _is_record(value: Any, stats: ReadStats) -> bool:
    if not isinstance(value, dict):
        stats.set_aside["not_an_object"] += 1
        return False
    if not isinstance(value.get("type"), str):
        stats.set_aside["no_type"] += 1
        return False
    return True


def _count_drift(record: JsonObject, stats: ReadStats) -> None:
    known = KNOWN_FIELDS.get(record["type"])
    version = record.get("version") if isinstance(record.get("version"), str) else "unknown"
    if known is None:
        stats.drift[f"{version} {record['type']}"] += 1
    elif not known.issuperset(record):
        for name in record.keys() - known:
            stats.drift[f"{version} {record['type']}.{name}"] += 1


def content_blocks(record: JsonObject) -> list[JsonObject]:
    """The content blocks of a user or assistant record; a plain string counts as one text block."""
    message = record.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if isinstance(content, list):
        return [
            block if isinstance(block, dict) else {"type": "text", "text": str(block)}
            for block in content
            if block is not None
        ]
    return []


def text_of(content: Any) -> str:
    """The text of a tool result or content list as the model saw it; an image becomes `[image]`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return "" if content is None else orjson.dumps(content, default=str).decode()
    parts: list[str] = []
    for block in content:
        if isinstance(block, str):
            parts.append(block)
        elif isinstance(block, dict):
            text = block.get("text")
            if isinstance(text, str):
                parts.append(text)
            elif block.get("type") == "tool_reference":
                parts.append(str(block.get("tool_name", "")))
            else:
                parts.append(f"[{block.get('type', 'content')}]")
    return "\n".join(parts)


__all__ = ["COMMON_FIELDS", "JsonObject", "ReadStats", "content_blocks", "parse_line", "read_records", "text_of"]
