"""One request on its way through the gateway, and what is written down of it: figures alone, no content."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import orjson

from trainer.rollout.rescue import results_in
from trainer.rollout.rollout_state import AnsweredRequest, Visit
from trainer.rollout.session_pinning import Side
from trainer.rollout.teacher_proxy import Question

MAX_READ = 4 * 1024 * 1024
"""Largest request of a teacher's session, in bytes, whose results are counted."""

Ending = Literal["complete", "cut", "unreachable", "late_error", "client_left"]


class Placement(NamedTuple):
    """Where a request of a session belongs."""

    session: str
    pinned: Side
    visit: Visit
    moved: bool
    """True where the kill switch has just taken the session from the student."""


@dataclass
class Exchange:
    """A request on its way, and what became of it."""

    question: Question
    is_message: bool
    placement: Placement | None
    """None without a session, and for what is not a message."""
    began: float
    answered: Side | None = None
    reason: str = ""
    """Why the pinned side did not answer."""
    status: int = 0
    ending: Ending = "client_left"
    first_byte: float | None = None
    """Seconds."""
    message: dict[str, Any] | None = None
    """The student's."""

    @cached_property
    def asked(self) -> dict[str, Any] | None:
        """The body, parsed; None where it is no JSON object."""
        try:
            body = orjson.loads(self.question.body)
        except orjson.JSONDecodeError:
            return None
        return body if isinstance(body, dict) else None

    def begins(self, status: int, answered: Side | None) -> None:
        """The first byte is about to be sent."""
        self.status, self.answered = status, answered
        if self.first_byte is None:
            self.first_byte = time.monotonic() - self.began


def line_of(exchange: Exchange, placement: Placement) -> dict[str, Any]:
    """What is written down of a request: who, where, how long, what became of earlier calls; no content."""
    headers = dict(exchange.question.headers)
    line = {
        "t": round(time.time(), 3),
        "session": placement.session,
        "subagent": b"x-claude-code-agent-id" in headers,
        "visit": placement.visit.id,
        "weight": placement.visit.weight,
        "pinned": placement.pinned,
        "answered_by": exchange.answered,
        "reason": exchange.reason,
        "status": exchange.status,
        "ending": exchange.ending,
        "first_byte_ms": None if exchange.first_byte is None else round(exchange.first_byte * 1000, 1),
        "total_ms": round((time.monotonic() - exchange.began) * 1000, 1),
        "retry": headers.get(b"x-stainless-retry-count", b"0") != b"0",
    }
    if exchange.message is not None:
        line["version"] = exchange.message["model"]
    if len(exchange.question.body) <= MAX_READ and exchange.asked is not None:
        line |= results_in(exchange.asked)._asdict()
    return line


def figures_of(exchange: Exchange, placement: Placement, answered: Side, line: dict[str, Any]) -> AnsweredRequest:
    """What the controller counts of a request."""
    told = {name: line[name] for name in ("after", "results", "failed", "rejected", "interrupted") if name in line}
    asked = exchange.asked if placement.pinned == "student" else None
    return AnsweredRequest(
        visit=placement.visit.id,
        session=placement.session,
        pinned=placement.pinned,
        answered_by=answered,
        reason=exchange.reason,
        model=str((asked or {}).get("model", ""))[:100],
        total_ms=line["total_ms"],
        first_byte_ms=line["first_byte_ms"],
        request_bytes=len(exchange.question.body),
        output_tokens=line.get("output_tokens", 0),
        retry=line["retry"],
        **told,
    )
