"""Which sessions go to the student: decided by a hash at first sight, then never changed by a later stage.

A session falls into one of 10,000 buckets by a salted BLAKE2b hash and is local where bucket < weight · 100, so that
a wider stage holds every session of a narrower one. The decision is stored at the session's first request: a session
that began with the teacher stays with the teacher when the stage widens in mid-conversation.
"""

from __future__ import annotations

import sqlite3
import time
from hashlib import blake2b
from typing import Literal, NamedTuple

BUCKETS = 10_000

Side = Literal["student", "teacher"]


def bucket(salt: str, session: str) -> int:
    """The session's bucket in 0..9999, even over sessions and independent between salts."""
    digest = blake2b(f"{salt}\x1f{session}".encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def side_at(weight: float, place: int) -> Side:
    """Whose session a bucket is at a weight in percent."""
    return "student" if place < weight * (BUCKETS / 100) else "teacher"


class Pin(NamedTuple):
    """Where a session was sent at first sight."""

    session: str
    side: Side
    new: bool
    """True at the session's first request."""


class SessionPins:
    """The pins of a rollout, in its SQLite file. A pin is committed before it is acted on."""

    def __init__(self, connection: sqlite3.Connection, salt: str) -> None:
        self._connection = connection
        self._salt = salt
        connection.execute(
            "CREATE TABLE IF NOT EXISTS pin (session TEXT PRIMARY KEY, side TEXT NOT NULL, bucket INTEGER NOT NULL,"
            " visit INTEGER NOT NULL, at REAL NOT NULL)"
        )

    def find(self, session: str) -> Pin | None:
        """The pin of a session that was seen before."""
        row = self._connection.execute("SELECT side FROM pin WHERE session = ?", (session,)).fetchone()
        return Pin(session, row[0], False) if row else None

    def pin(self, session: str, weight: float, visit: int) -> Pin:
        """The session's pin; decided now, at `weight` percent, where it has none.

        Args:
            visit: the stage visit that the session was first seen in.
        """
        if known := self.find(session):
            return known
        place = bucket(self._salt, session)
        cursor = self._connection.execute(
            "INSERT OR IGNORE INTO pin VALUES (?, ?, ?, ?, ?)",
            (session, side_at(weight, place), place, visit, time.time()),
        )
        known = self.find(session)
        assert known is not None
        return known._replace(new=cursor.rowcount == 1)

    def give_to_teacher(self, session: str) -> None:
        """Moves a session to the teacher for good: the only change of sides there is."""
        self._connection.execute("UPDATE pin SET side = 'teacher' WHERE session = ?", (session,))

    def give_all_to_teacher(self) -> None:
        """Moves every session to the teacher for good."""
        self._connection.execute("UPDATE pin SET side = 'teacher' WHERE side = 'student'")
