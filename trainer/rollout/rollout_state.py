"""What gateway and controller share: visits, pins, requests and decisions in one SQLite file, and the kill switch.

Every change is one committed transaction in WAL mode: a killed process loses nothing that it acted on. Decisions are
also synced to the disk, so that they outlive a power cut; a power cut may cost the last requests and pins. A decision
is stored together with what it changes and written to the log after that; whoever opens the state writes what a killed
process left unwritten. The kill switch is a file, so that it works without this program: `touch KILL` in the folder
stops the student at the next request.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from trainer.errors import TrainerError
from trainer.rollout.sequential_test import UNHEARD, Outcome, Walk, outcome, step
from trainer.rollout.session_pinning import SessionPins, Side

KILL_SWITCH = "KILL"
DATABASE = "rollout.sqlite3"
LOG = "stages.jsonl"
SCORES = "shadow.jsonl"

Entry = Literal["start", "advance", "force", "abort", "rollback", "new_model"]
"""What begins a visit."""
Action = Literal["start", "advance", "force", "abort", "rollback", "new_model", "propose", "judge", "refuse"]
"""What is decided; the last three leave the stage as it is, and so does a `force` that lets it be served."""
_FROM_STUDENT = ("abort", "rollback", "new_model")
"""Entries that give every session of the student's to the teacher."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS visit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, weight REAL NOT NULL, entered_at REAL NOT NULL,
    action TEXT NOT NULL, note TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answer (
    id INTEGER PRIMARY KEY, visit INTEGER NOT NULL, session TEXT NOT NULL, pinned TEXT NOT NULL,
    answered_by TEXT NOT NULL, reason TEXT NOT NULL, model TEXT NOT NULL, total_ms REAL, first_byte_ms REAL,
    request_bytes INTEGER NOT NULL, output_tokens INTEGER NOT NULL, retry INTEGER NOT NULL, after TEXT,
    results INTEGER NOT NULL, failed INTEGER NOT NULL, rejected INTEGER NOT NULL, interrupted INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS answer_of_session ON answer (visit, session);
CREATE TABLE IF NOT EXISTS walk (
    visit INTEGER PRIMARY KEY, score REAL NOT NULL, answered INTEGER NOT NULL, failed INTEGER NOT NULL,
    accepted INTEGER NOT NULL, outage INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS decision (id INTEGER PRIMARY KEY AUTOINCREMENT, line BLOB NOT NULL);
DROP TABLE IF EXISTS request;
"""
_COLUMNS = "id, weight, entered_at, action, note, model"
_UPGRADES = (
    "ALTER TABLE visit ADD COLUMN model TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE answer ADD COLUMN at REAL NOT NULL DEFAULT 0",
    "CREATE TABLE summary (visit INTEGER PRIMARY KEY, figures BLOB NOT NULL)",
)
"""What later versions added, in order; `PRAGMA user_version` says how many of them a file has."""
_CHUNK = 500
"""Rows that are deleted at a time: requests wait for a deletion that is under way."""


class Visit(NamedTuple):
    """One stay in a stage."""

    id: int
    weight: float
    """Share of new sessions that go to the student, in percent."""
    entered_at: float
    """Seconds since the epoch."""
    action: Entry
    note: str
    model: str
    """Whom it tries, as `local_student.model_of` names it; empty until somebody has said so."""


class AnsweredRequest(NamedTuple):
    """One answered POST /v1/messages of a session; figures alone, no content."""

    visit: int
    session: str
    pinned: Side
    answered_by: Side
    reason: str = ""
    """Why the pinned side did not answer."""
    model: str = ""
    """What the client asked for; known where the student was asked."""
    total_ms: float | None = None
    first_byte_ms: float | None = None
    request_bytes: int = 0
    output_tokens: int = 0
    """The student's; the teacher's replies are not read."""
    retry: bool = False
    """The client's repetition of a request that had failed."""
    after: Side | None = None
    """Whose calls the results in the request are of; None without results."""
    results: int = 0
    failed: int = 0
    """Results that are errors, rejections included."""
    rejected: int = 0
    interrupted: bool = False


class Decision(NamedTuple):
    """Who decided what, and why."""

    action: Action
    who: str
    why: str
    figures: dict[str, Any]
    """What was known then."""


class RolloutState:
    """The state of one rollout; several processes may have it open."""

    def __init__(self, folder: Path, salt: str, first_weight: float) -> None:
        """Opens the state, or starts it at `first_weight`.

        Raises:
            TrainerError: the file is not a database of a rollout, or is of a later version.
        """
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / DATABASE
        # A file that is there is not opened: closing it would take the locks away that another connection of this
        # process holds on it (POSIX), and the next process to leave would delete the log that it writes to.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
            self._upgrade(path)
            self.pins = SessionPins(self._connection, salt)
            with self._decided():
                if self._connection.execute("SELECT count(*) FROM visit").fetchone()[0] == 0:
                    self._enter(first_weight, Decision("start", "controller", "", {}), "")
            self._write_log()
        except TrainerError:
            self._connection.close()
            raise
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise TrainerError(f"{path}: another process holds it ({error}); try again") from None
            raise TrainerError(f"{path}: not the state of a rollout ({error}); restore it or move it away") from None

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    @property
    def killed(self) -> bool:
        """True while the kill switch is on."""
        return (self.folder / KILL_SWITCH).exists()

    def current(self) -> Visit:
        """The stage that new sessions meet."""
        row = self._connection.execute(f"SELECT {_COLUMNS} FROM visit ORDER BY id DESC LIMIT 1").fetchone()
        return Visit(*row)

    def visits(self) -> list[Visit]:
        """All visits, oldest first."""
        return [Visit(*row) for row in self._connection.execute(f"SELECT {_COLUMNS} FROM visit ORDER BY id")]

    def place(self, session: str) -> tuple[Visit, Side]:
        """The current visit, and whose the session is; a new one is the teacher's while the kill switch is on.

        A new session is pinned in one transaction with the look at the stage: an abort in between would miss its pin.
        """
        if known := self.pins.find(session):
            return self.current(), known.side
        with self._transaction():
            visit = self.current()
            return visit, self.pins.pin(session, 0 if self.killed else visit.weight, visit.id).side

    def enter(self, weight: float, decision: Decision, *, after: int | None, model: str | None = None) -> Visit:
        """Begins a visit. The way back to 0 % also gives every session of the student's to the teacher, for good.

        Args:
            decision: its action is an Entry.
            after: id of the visit that the decision was made in; None: whatever is decided meanwhile, it holds.
            model: whom it tries; None: whom the visit before it tried.

        Raises:
            TrainerError: somebody else has changed the stage since.
        """
        with self._decided():
            before = self._unchanged(after)
            self._enter(weight, decision, before.model if model is None else model)
            if decision.action in _FROM_STUDENT:
                self.pins.give_all_to_teacher()
        self._write_log()
        return self.current()

    def note(self, decision: Decision, *, after: int) -> None:
        """Keeps a decision that leaves the stage as it is.

        Raises:
            TrainerError: as `enter`.
        """
        with self._decided():
            visit = self._unchanged(after)
            self._decide(visit.weight, visit.weight, visit.id, decision)
        self._write_log()

    def name_model(self, visit: int, model: str) -> None:
        """Says whom a visit tries, where that was not known."""
        self._connection.execute("UPDATE visit SET model = ? WHERE id = ? AND model = ''", (model, visit))

    def decisions(self) -> list[dict[str, Any]]:
        """All decisions, oldest first, as they stand in the log."""
        return [orjson.loads(row[0]) for row in self._connection.execute("SELECT line FROM decision ORDER BY id")]

    def record(self, answer: AnsweredRequest, seen: Outcome | None, good: float, bad: float) -> Walk:
        """Counts one request, and takes the test of its visit a step further.

        Args:
            seen: what the request says about the student; None: nothing.
            good, bad: see `sequential_test.step`.

        Returns:
            Where the test stands; a new Walk where the request is not of its concern.
        """
        if seen is None:
            self._insert(answer)
            return Walk()
        with self._transaction():
            before = self._latest_outcome(answer.visit, answer.session)
            self._insert(answer)
            walk = step(self.walk(answer.visit), seen, before, good, bad)
            self._connection.execute("INSERT OR REPLACE INTO walk VALUES (?, ?, ?, ?, ?, ?)", (answer.visit, *walk))
        return walk

    def walk(self, visit: int) -> Walk:
        """Where the test of a visit stands."""
        row = self._connection.execute(
            "SELECT score, answered, failed, accepted, outage FROM walk WHERE visit = ?", (visit,)
        ).fetchone()
        if row is None:
            return Walk()
        score, answered, failed, accepted, outage = row
        return Walk(score, answered, failed, accepted, bool(outage))

    def sessions(self, visit: int) -> dict[Side, int]:
        """Sessions with a request in a visit, by where they were pinned."""
        found: dict[Side, int] = {"student": 0, "teacher": 0}
        query = "SELECT pinned, count(DISTINCT session) FROM answer WHERE visit = ? GROUP BY pinned"
        found.update(self._connection.execute(query, (visit,)).fetchall())
        return found

    def answers(self, visit: int) -> Iterator[AnsweredRequest]:
        """The requests of a visit in their order."""
        columns = ", ".join(AnsweredRequest._fields)
        for row in self._connection.execute(f"SELECT {columns} FROM answer WHERE visit = ? ORDER BY id", (visit,)):
            yield AnsweredRequest(*row)

    def summary(self, visit: int) -> bytes | None:
        """The figures that were kept of a visit; None while its requests are there."""
        row = self._connection.execute("SELECT figures FROM summary WHERE visit = ?", (visit,)).fetchone()
        return row[0] if row else None

    def keep_summary(self, visit: int, figures: bytes) -> None:
        """Keeps the figures of a visit that is over, so that its requests may go."""
        self._connection.execute("INSERT OR REPLACE INTO summary VALUES (?, ?)", (visit, figures))

    def forget_before(self, moment: float) -> int:
        """Removes the requests that are older, in seconds since the epoch; pins and decisions stay. Returns how many.

        Requests of a version that did not write down their time have that of their visit's beginning.
        """
        old = (
            "SELECT answer.id FROM answer JOIN visit ON visit.id = answer.visit"
            f" WHERE CASE at WHEN 0 THEN entered_at ELSE at END < ? LIMIT {_CHUNK}"
        )
        gone = 0
        while rows := self._connection.execute(old, (moment,)).fetchall():  # no lock is held while it looks
            with self._transaction():
                self._connection.executemany("DELETE FROM answer WHERE id = ?", rows)
            gone += len(rows)
        return gone

    def _latest_outcome(self, visit: int, session: str) -> Outcome | None:
        marks = ", ".join("?" * len(UNHEARD))
        row = self._connection.execute(
            f"SELECT answered_by, reason FROM answer WHERE visit = ? AND session = ? AND reason NOT IN ({marks})"
            " ORDER BY id DESC LIMIT 1",
            (visit, session, *UNHEARD),
        ).fetchone()
        return outcome(*row) if row else None

    def _insert(self, answer: AnsweredRequest) -> None:
        names, marks = ", ".join((*AnsweredRequest._fields, "at")), ", ".join("?" * (len(AnsweredRequest._fields) + 1))
        self._connection.execute(f"INSERT INTO answer ({names}) VALUES ({marks})", (*answer, time.time()))

    def _enter(self, weight: float, decision: Decision, model: str) -> None:
        before = self._connection.execute("SELECT weight FROM visit ORDER BY id DESC LIMIT 1").fetchone()
        visit = self._connection.execute(
            "INSERT INTO visit (weight, entered_at, action, note, model) VALUES (?, ?, ?, ?, ?)",
            (weight, time.time(), decision.action, decision.why, model),
        ).lastrowid
        assert visit is not None
        self._decide(before[0] if before else None, weight, visit, decision)

    def _decide(self, before: float | None, after: float, visit: int, decision: Decision) -> None:
        (latest,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM decision").fetchone()
        line = {"id": latest + 1, "t": round(time.time(), 3), "from": before, "to": after, "visit": visit}
        line |= decision._asdict()
        self._connection.execute("INSERT INTO decision VALUES (?, ?)", (latest + 1, orjson.dumps(line)))

    def _unchanged(self, after: int | None) -> Visit:
        visit = self.current()
        if after is not None and visit.id != after:
            raise TrainerError(
                f"{self.folder}: the stage was changed meanwhile; look at `rollout status` and try again"
            )
        return visit

    def _upgrade(self, path: Path) -> None:
        """Brings the file of an earlier version up to this one; whole or not at all.

        Raises:
            TrainerError: it is of a later version.
        """
        with self._transaction():
            (done,) = self._connection.execute("PRAGMA user_version").fetchone()
            if done > len(_UPGRADES):
                raise TrainerError(f"{path}: written by a later version of claude-capture; update this one")
            for statement in _UPGRADES[done:]:
                self._connection.execute(statement)
            if done < len(_UPGRADES):
                self._connection.execute(f"PRAGMA user_version = {len(_UPGRADES)}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:  # a full disk may have ended it already
                self._connection.execute("ROLLBACK")

    @contextmanager
    def _decided(self) -> Iterator[None]:
        """A transaction that is on the disk when it is done.

        Raises:
            TrainerError: it cannot be written.
        """
        self._connection.execute("PRAGMA synchronous = FULL")
        try:
            with self._transaction():
                yield
        except sqlite3.OperationalError as error:
            raise TrainerError(
                f"{self.folder / DATABASE}: {error}; nothing was decided: see whether the disk is full, and try again"
            ) from None
        finally:
            self._connection.execute("PRAGMA synchronous = NORMAL")

    def _write_log(self) -> None:
        """Appends the decisions that the log does not hold yet, and syncs them; a torn last line is ended first.

        Raises:
            TrainerError: they cannot be written.
        """
        try:
            self._append()
        except OSError as error:
            raise TrainerError(
                f"{self.folder / LOG}: {error.strerror}; the decision stands, the next command logs it"
            ) from None

    def _append(self) -> None:
        handle = os.open(self.folder / LOG, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with open(handle, "r+b", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            written = stream.read()
            latest = max(map(_id, written.splitlines()), default=0)
            rows = self._connection.execute("SELECT line FROM decision WHERE id > ? ORDER BY id", (latest,)).fetchall()
            if rows:
                ending = b"" if written.endswith(b"\n") or not written else b"\n"
                stream.write(ending + b"".join(row[0] + b"\n" for row in rows))
                os.fsync(stream.fileno())


def _id(line: bytes) -> int:
    """The number of a decision in the log; 0 for a line that was torn."""
    try:
        return int(orjson.loads(line)["id"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return 0
