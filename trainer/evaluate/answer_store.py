"""Raters and their choices in SQLite: every choice is on disk before the next page is shown."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Literal, NamedTuple

from trainer.errors import TrainerError

Choice = Literal["1", "2", "0"]
"""The side that the rater takes for the teacher; 0: cannot tell."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rater (name TEXT PRIMARY KEY, token TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS shown (rater TEXT, item TEXT, at REAL NOT NULL, PRIMARY KEY (rater, item));
CREATE TABLE IF NOT EXISTS answer (
    number INTEGER PRIMARY KEY AUTOINCREMENT, rater TEXT NOT NULL, item TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('1', '2', '0')), seconds REAL, at REAL NOT NULL, UNIQUE (rater, item)
);
"""


class Answer(NamedTuple):
    """One choice."""

    rater: str
    item: str
    choice: Choice
    seconds: float | None
    """From the first sight of the item to the choice, breaks included."""


class AnswerStore:
    """The answers of one test. Several processes may have it open."""

    def __init__(self, path: Path) -> None:
        """Raises TrainerError where the file is not a database."""
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            self._connection.executescript(_SCHEMA)
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
        for name, known in self.raters().items():
            if secrets.compare_digest(known.encode(), token.encode()):
                return name
        return None

    def saw(self, rater: str, item: str) -> None:
        """Starts the clock of an item, once."""
        self._connection.execute("INSERT OR IGNORE INTO shown VALUES (?, ?, ?)", (rater, item, time.time()))

    def record(self, rater: str, item: str, choice: Choice) -> bool:
        """Stores a choice; the first one of an item counts. False where there was one, or the test is closed."""
        now = time.time()
        row = self._connection.execute("SELECT at FROM shown WHERE rater = ? AND item = ?", (rater, item)).fetchone()
        cursor = self._connection.execute(
            "INSERT OR IGNORE INTO answer (rater, item, choice, seconds, at) SELECT ?, ?, ?, ?, ?"
            " WHERE NOT EXISTS (SELECT 1 FROM meta WHERE name = 'closed_at')",
            (rater, item, choice, round(now - row[0], 1) if row else None, now),
        )
        return cursor.rowcount == 1

    def undo(self, rater: str) -> None:
        """Takes the rater's last choice back; nothing happens where there is none, or the test is closed."""
        self._connection.execute(
            "DELETE FROM answer WHERE number = (SELECT max(number) FROM answer WHERE rater = ?)"
            " AND NOT EXISTS (SELECT 1 FROM meta WHERE name = 'closed_at')",
            (rater,),
        )

    def answers(self, rater: str | None = None) -> list[Answer]:
        """All choices, or one rater's, in the order in which they were made."""
        rows = self._connection.execute(
            "SELECT rater, item, choice, seconds FROM answer WHERE ?1 IS NULL OR rater = ?1 ORDER BY number", (rater,)
        )
        return [Answer(*row) for row in rows]

    @property
    def closed_at(self) -> str | None:
        """When the test was closed; None while answers are taken."""
        row = self._connection.execute("SELECT value FROM meta WHERE name = 'closed_at'").fetchone()
        return str(row[0]) if row else None

    def end(self, at: str) -> None:
        """Closes the test for good; the first time counts."""
        self._connection.execute("INSERT OR IGNORE INTO meta VALUES ('closed_at', ?)", (at,))
