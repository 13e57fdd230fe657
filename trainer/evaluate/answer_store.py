"""Raters and their answers in SQLite: every answer is on disk before the page says "saved".

An answer is saved as a whole, again and again while the rater works on it; the last save counts, also from a second
tab. Nothing here depends on the clock of the wall: it is written down for people and never compared.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from trainer.errors import TrainerError

Choice = Literal["1", "2", "0"]
"""The side that the rater takes for the teacher; 0: cannot tell."""
Preference = Literal["1", "2", "0", "3"]
"""The side that the rater would rather have; 0: tie, 3: both are bad."""
MAX_NOTE = 2000
"""Longest note, in characters."""

_VERSION = 1
_SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE rater (name TEXT PRIMARY KEY, token TEXT NOT NULL UNIQUE);
CREATE TABLE answer (
    rater TEXT NOT NULL REFERENCES rater (name), item TEXT NOT NULL,
    choice TEXT CHECK (choice IN ('1', '2', '0')), preference TEXT CHECK (preference IN ('1', '2', '0', '3')),
    note TEXT NOT NULL, seconds REAL NOT NULL, saved_at TEXT NOT NULL,
    PRIMARY KEY (rater, item)
);
PRAGMA user_version = {_VERSION};
"""
_OPEN = "NOT EXISTS (SELECT 1 FROM meta WHERE name = 'closed_at')"


class Answer(NamedTuple):
    """What one rater said of one item."""

    rater: str
    item: str
    choice: Choice | None = None
    """None: not chosen yet, or taken back."""
    preference: Preference | None = None
    note: str = ""
    seconds: float = 0.0
    """Time with the item open up to the last save, breaks included."""

    @property
    def complete(self) -> bool:
        """Both questions are answered."""
        return self.choice is not None and self.preference is not None


class AnswerStore:
    """The answers of one test. Several processes may have it open."""

    def __init__(self, path: Path) -> None:
        """Raises TrainerError where the file is not a database of this version."""
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):  # closing a file that is there would take away other connections' locks (POSIX)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA synchronous = FULL")
            with self._transaction():
                version = self._connection.execute("PRAGMA user_version").fetchone()[0]
                tables = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if not tables:
                    for statement in _SCHEMA.split(";"):
                        self._connection.execute(statement)
                elif version != _VERSION:
                    raise sqlite3.DatabaseError(f"its version is {version}, not {_VERSION}")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise TrainerError(f"{path}: not a file of answers ({error}); restore it or remove it") from None

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    def invite(self, rater: str) -> str:
        """The rater's token; made at the first call, the same ever after."""
        self._connection.execute("INSERT OR IGNORE INTO rater VALUES (?, ?)", (rater, secrets.token_urlsafe(24)))
        row = self._connection.execute("SELECT token FROM rater WHERE name = ?", (rater,)).fetchone()
        return str(row[0])

    def raters(self) -> dict[str, str]:
        """Name → token."""
        return dict(self._connection.execute("SELECT name, token FROM rater ORDER BY name"))

    def rater_of(self, token: str) -> str | None:
        """Whose token this is."""
        found = None
        for name, known in self.raters().items():
            if secrets.compare_digest(known.encode(), token.encode("utf-8", "replace")):
                found = name
        return found

    def save(self, answer: Answer) -> bool:
        """Stores the whole answer in place of what was there; `seconds` is added up.

        Returns:
            False where the test is closed: then nothing is stored.
        """
        cursor = self._connection.execute(
            f"INSERT INTO answer SELECT ?, ?, ?, ?, ?, ?, ? WHERE {_OPEN} ON CONFLICT (rater, item) DO UPDATE SET"
            " choice = excluded.choice, preference = excluded.preference, note = excluded.note,"
            " seconds = answer.seconds + excluded.seconds, saved_at = excluded.saved_at",
            (*answer, datetime.now(UTC).isoformat(timespec="seconds")),
        )
        return cursor.rowcount == 1

    def answers(self, rater: str | None = None) -> list[Answer]:
        """All answers, or one rater's, whatever of them is there; ordered by rater and item."""
        rows = self._connection.execute(
            "SELECT rater, item, choice, preference, note, seconds FROM answer WHERE ?1 IS NULL OR rater = ?1"
            " ORDER BY rater, item",
            (rater,),
        )
        return [Answer(*row) for row in rows]

    @property
    def closed_at(self) -> str | None:
        """When the test was closed; None while answers are taken."""
        row = self._connection.execute("SELECT value FROM meta WHERE name = 'closed_at'").fetchone()
        return str(row[0]) if row else None

    @contextmanager
    def closing(self) -> Iterator[str]:
        """Closes the test for good (the first time counts) and gives when; an error in the block leaves it open.

        No answer is stored during the block, so that what is read in it is all there will ever be.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._transaction():
            self._connection.execute("INSERT OR IGNORE INTO meta VALUES ('closed_at', ?)", (now,))
            yield self.closed_at or now

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
