"""What gateway and controller share: stage visits, pins and request counts in one SQLite file, and the kill switch.

Every change is one committed transaction in WAL mode: a killed process loses nothing that it acted on. The kill switch
is a file, so that it works without this program: `touch KILL` in the folder stops the student at the next request.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Literal, NamedTuple

from trainer.errors import TrainerError
from trainer.rollout.session_pinning import SessionPins, Side
from trainer.run_folder import write_atomic

KILL_SWITCH = "KILL"
DATABASE = "rollout.sqlite3"

Action = Literal["start", "advance", "force", "abort"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS visit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, weight REAL NOT NULL, entered_at REAL NOT NULL,
    action TEXT NOT NULL, note TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS request (
    visit INTEGER, session TEXT, pinned TEXT, answered_by TEXT, reason TEXT, n INTEGER NOT NULL,
    PRIMARY KEY (visit, session, pinned, answered_by, reason));
"""


class Visit(NamedTuple):
    """One stay in a stage."""

    id: int
    weight: float
    """Share of new sessions that go to the student, in percent."""
    entered_at: float
    """Seconds since the epoch."""
    action: Action
    note: str


class Traffic(NamedTuple):
    """What passed during a visit. Requests count POST /v1/messages alone."""

    sessions: dict[Side, int]
    """Sessions with a request in this visit, by where they are pinned."""
    answered: dict[Side, int]
    """Requests, by who answered."""
    reasons: dict[str, int]
    """Requests of the student's sessions that the teacher answered, by reason."""


class RolloutState:
    """The state of one rollout; several processes may have it open."""

    def __init__(self, folder: Path, salt: str, first_weight: float) -> None:
        """Opens the state, or starts it at `first_weight`.

        Raises:
            TrainerError: the file is not a database of a rollout.
        """
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / DATABASE
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
            self.pins = SessionPins(self._connection, salt)
            self._connection.execute(
                "INSERT INTO visit (weight, entered_at, action, note) SELECT ?, ?, 'start', ''"
                " WHERE NOT EXISTS (SELECT 1 FROM visit)",
                (first_weight, time.time()),
            )
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise TrainerError(f"{path}: not the state of a rollout ({error}); restore it or move it away") from None

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    @property
    def killed(self) -> bool:
        """True while the kill switch is on."""
        return (self.folder / KILL_SWITCH).exists()

    def kill(self, note: str) -> None:
        """Puts the kill switch on."""
        write_atomic(self.folder / KILL_SWITCH, note + "\n")

    def revive(self) -> None:
        """Takes the kill switch off."""
        (self.folder / KILL_SWITCH).unlink(missing_ok=True)

    def current(self) -> Visit:
        """The stage that new sessions meet."""
        row = self._connection.execute("SELECT * FROM visit ORDER BY id DESC LIMIT 1").fetchone()
        return Visit(*row)

    def visits(self) -> list[Visit]:
        """All visits, oldest first."""
        return [Visit(*row) for row in self._connection.execute("SELECT * FROM visit ORDER BY id")]

    def enter(self, weight: float, action: Action, note: str, *, after: int) -> Visit:
        """Begins a visit.

        Args:
            after: id of the visit that the decision was made in.

        Raises:
            TrainerError: somebody else has changed the stage since.
        """
        cursor = self._connection.execute(
            "INSERT INTO visit (weight, entered_at, action, note) SELECT ?, ?, ?, ?"
            " WHERE (SELECT max(id) FROM visit) = ?",
            (weight, time.time(), action, note, after),
        )
        if cursor.rowcount != 1:
            raise TrainerError(
                f"{self.folder}: the stage was changed meanwhile; look at `rollout status` and try again"
            )
        return self.current()

    def count(self, visit: int, session: str, pinned: Side, answered_by: Side, reason: str) -> None:
        """Counts one request; `reason` is empty where the pinned side answered."""
        self._connection.execute(
            "INSERT INTO request VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET n = n + 1",
            (visit, session, pinned, answered_by, reason),
        )

    def traffic(self, visit: int) -> Traffic:
        """What passed during a visit."""
        sessions: dict[Side, set[str]] = defaultdict(set)
        answered: Counter[Side] = Counter()
        reasons: Counter[str] = Counter()
        rows = self._connection.execute(
            "SELECT session, pinned, answered_by, reason, n FROM request WHERE visit = ?", (visit,)
        )
        for session, pinned, answered_by, reason, n in rows:
            sessions[pinned].add(session)
            answered[answered_by] += n
            if reason:
                reasons[reason] += n
        return Traffic({side: len(found) for side, found in sessions.items()}, dict(answered), dict(reasons))
