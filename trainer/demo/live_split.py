"""Hundreds of short sessions through the gateway while its stage widens: who got which, and did any change sides?

In every stage new sessions make their first request; the next stage begins while they are on their way; then they go
on. Most of them speak HTTP as Claude Code does (live_session), some are the real CLI, resumed after the widening.
What counts is what the gateway wrote down of each request, beside the names that the clients saw.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from trainer.demo.live_claude_code import ClaudeCode
from trainer.demo.live_session import LiveSession
from trainer.demo.messages_api import Recorded
from trainer.demo.scripted_teacher import DemoEpisode
from trainer.demo.session_file import TEACHER, uuid_from
from trainer.demo.world import check_answer
from trainer.report.statistics import Interval, wilson_interval

WEIGHTS = (5.0, 20.0, 50.0, 80.0)
CLI_OPTIONS = ("--tools", "Bash,Edit,Grep,Read", "--allowedTools", "Read,Grep,Edit,Bash(sqlite3:*),Bash(grep:*)")
"""The tools of the demo world; of the shell only two commands, as nobody is there to be asked for more."""
_HTTP_AT_ONCE = 4
_CLI_AT_ONCE = 2


class Workplace(NamedTuple):
    """A question, and a Claude Code whose project is the workspace that it is about."""

    episode: DemoEpisode
    claude: ClaudeCode


@dataclass
class SplitRow:
    """What one stage did with its new sessions."""

    weight: float
    """Of the stage, in percent."""
    sessions: int
    real: int
    """How many of them were the real CLI."""
    student: int
    """How many were the student's."""
    interval: Interval
    """Wilson's 95 % interval of the student's share."""
    widened: int = 0
    """Sessions with requests before and after the next stage began."""
    changed: int = 0
    """Sessions with requests on both sides."""
    requests: int = 0
    fallbacks: Counter[str] = field(default_factory=Counter)
    """Requests of the student's sessions that the teacher answered, by reason."""

    @property
    def holds(self) -> bool:
        """Whether the interval holds the weight."""
        return self.interval.low <= self.weight / 100 <= self.interval.high


@dataclass
class Split:
    """What all stages did."""

    rows: list[SplitRow]
    contradictions: int = 0
    """Requests whose client saw another name than that of the side which the gateway noted."""
    right: dict[str, int] = field(default_factory=dict)
    """Right first answers by who gave them."""
    answers: dict[str, int] = field(default_factory=dict)
    """First answers by who gave them."""


class Running(NamedTuple):
    """A session and what it did."""

    id: str
    place: Workplace
    http: LiveSession | None
    """None for the real CLI."""
    seen: list[tuple[str, str]]
    """Real CLI: model of the last message, and the answer, of each prompt."""


def run_split(
    gateway: str,
    widen: Callable[[], None],
    places: Sequence[Workplace],
    pattern: Recorded,
    *,
    asked_then: str,
    sessions: int,
    real: int,
    seed: int,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[float, list[Running]]:
    """Runs all stages of WEIGHTS; returns the new sessions of each.

    Args:
        gateway: its base URL; it is in the first stage.
        widen: enters the next stage.
        pattern, asked_then: see `LiveSession`.
        sessions: new sessions in each stage.
        real: how many of them are the real CLI.
        seed: gives the session ids, so that a second run makes the same split.

    Raises:
        TrainerError: a session failed.
    """
    total, done, lock = len(WEIGHTS) * sessions, 0, threading.Lock()
    everything: dict[float, list[Running]] = {}

    def begun(running: Running) -> None:
        nonlocal done
        if running.http is not None:
            running.http.go_on(gateway, 1)
        else:
            running.seen.append(_ask(running, "--session-id"))
        with lock:
            done += 1
            progress(done, total, f"{done} sessions")

    def finished(running: Running) -> None:
        if running.http is not None:
            running.http.go_on(gateway)
        else:
            running.seen.append(_ask(running, "--resume"))

    for number, weight in enumerate(WEIGHTS):
        new = []
        for n in range(sessions):
            place, key = places[n % len(places)], uuid_from(random.Random(f"live/{seed}/{weight:g}/{n}"))
            speaks = LiveSession(pattern, asked_then, key, place.episode, place.claude.project) if n >= real else None
            new.append(Running(key, place, speaks, []))
        _each(begun, new)
        if number + 1 < len(WEIGHTS):
            widen()
        _each(finished, new)
        everything[weight] = new
    return everything


def _each(step: Callable[[Running], None], sessions: Sequence[Running]) -> None:
    with ThreadPoolExecutor(_CLI_AT_ONCE) as slow, ThreadPoolExecutor(_HTTP_AT_ONCE) as quick:
        work = [(slow if session.http is None else quick).submit(step, session) for session in sessions]
        for future in work:
            future.result()


def _ask(session: Running, option: str) -> tuple[str, str]:
    """Lets the real CLI ask the question; the model of its last message, and the answer."""
    model, answer = "", ""
    for message in session.place.claude.messages(session.place.episode.prompt, option, session.id, *CLI_OPTIONS):
        if message["type"] == "assistant":
            model = message["message"]["model"]
        elif message["type"] == "result":
            answer = str(message.get("result") or "")
    return model, answer


def judge_split(everything: dict[float, list[Running]], decisions: Path) -> Split:
    """What became of the sessions, by the log of a gateway that has ended: it writes a request down after its reply."""
    split = Split([])
    lines = decisions_of(decisions)
    for weight, sessions in everything.items():
        sides = {session.id: {line["pinned"] for line in lines[session.id]} for session in sessions}
        student = sum("student" in found for found in sides.values())
        row = SplitRow(
            weight,
            len(sessions),
            sum(session.http is None for session in sessions),
            student,
            wilson_interval(student, len(sessions)),
        )
        for session in sessions:
            asked = lines[session.id]
            row.requests += len(asked)
            row.widened += len({line["weight"] for line in asked}) > 1
            row.changed += len(sides[session.id]) > 1
            row.fallbacks += Counter(line["reason"] for line in asked if line["pinned"] != line["answered_by"])
            _compare(session, asked, split)
        split.rows.append(row)
    return split


def decisions_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The gateway's log by session."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for text in path.read_text("utf-8").splitlines():
        line = json.loads(text)
        lines.setdefault(line["session"], []).append(line)
    return lines


def _compare(session: Running, asked: list[dict[str, Any]], split: Split) -> None:
    """What the client saw against what the gateway wrote down."""
    if session.http is not None:
        names, answers = session.http.models, [session.http.answer or ""]
        split.contradictions += len(names) != len(asked)
        pairs = zip(names, (line["answered_by"] for line in asked), strict=False)
        split.contradictions += sum((name == TEACHER) != (side == "teacher") for name, side in pairs)
        last = names[-1]
    else:
        answers = [answer for _, answer in session.seen]
        last = session.seen[0][0]
    who = "teacher" if last == TEACHER else "student"
    split.answers[who] = split.answers.get(who, 0) + 1
    split.right[who] = split.right.get(who, 0) + check_answer(session.place.episode, answers[0])


def split_table(split: Split) -> Table:
    """The stages as a table for the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("stage", "sessions", "CLI", "student's", "share, 95 % interval", "holds", "went on", "changed"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for row in split.rows:
        share = row.interval
        table.add_row(
            f"{row.weight:g} %",
            str(row.sessions),
            str(row.real),
            str(row.student),
            f"{100 * share.mean:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]",
            "yes" if row.holds else "no",
            str(row.widened),
            str(row.changed),
        )
    return table
