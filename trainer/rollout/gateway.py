"""The gateway: an Anthropic-Messages reverse proxy between Claude Code and teacher or student.

Point Claude Code's ANTHROPIC_BASE_URL at it. A session (header `x-claude-code-session-id`) is pinned at its first
request. To the teacher everything goes byte for byte, streamed as it comes, errors included (teacher_proxy). A
student's session: `POST /v1/messages` with tools goes to the local server (local_student); the reply is held until it
is complete and checked. Whatever fails before that is answered by the teacher, with the client's own bytes but for
what its API would refuse in a rescued session (rescue). While a reply is held, a streaming client gets pings.

Bodies and credentials are never logged. Each decision is one line without content in decisions.jsonl.

Two things are asked in passing, because they may change under a gateway that runs: whether the current stage may be
served (once for each visit), and whether the registry's current model is still the one that the stage tries (a look at
the file's date for each request). Another model begins at 0 %.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from trainer.config import Config
from trainer.errors import TrainerError
from trainer.export.registry import Registry
from trainer.rollout.bounded_log import BoundedLog
from trainer.rollout.circuit_breaker import CircuitBreaker
from trainer.rollout.controller import Controller
from trainer.rollout.exchange import Exchange, Placement, figures_of, line_of
from trainer.rollout.local_student import Fallback, LocalStudent, Student, student_of
from trainer.rollout.message_stream import PING, event, events
from trainer.rollout.metrics import CONTENT_TYPE, Metrics
from trainer.rollout.request_guard import ClientLeft, Refused, admit, read_body, session_of
from trainer.rollout.rescue import for_teacher
from trainer.rollout.rollout_state import RolloutState
from trainer.rollout.shadow import MAX_TURN, Shadow, Turn
from trainer.rollout.stage_watch import StageWatch
from trainer.rollout.student_view import LOCAL_ID
from trainer.rollout.teacher_proxy import (
    BrokenOff,
    Headers,
    Question,
    TeacherProxy,
    TeacherUnreachable,
    Tee,
    pass_on,
    pass_on_late,
    send_error,
)
from trainer.rollout.upstreams import open_client, upstream

DECISIONS = "decisions.jsonl"
WATCH_SECONDS = 0.5
"""Longest time until a held reply learns of the kill switch, an abort or a rollback."""
_SERVER_FAULTS = frozenset(("unreachable", "timeout", "reset", "malformed_reply", "endless_reply", "wrong_model"))
_NOT_ASKED = frozenset(("unreadable_request", "no_tools"))
_STATES = {"closed": 0, "half_open": 1, "open": 2}


class Gateway:
    """One gateway over one rollout state, as an ASGI application.

    Args:
        student: who answers a student's sessions; default: what config and registry say.
        token: what clients must send in `x-claude-trainer-token`; empty asks for none.

    Raises:
        TrainerError: an upstream is not an http(s) address, credentials would leave this machine unencrypted, or the
            student cannot be found.
    """

    def __init__(self, config: Config, state: RolloutState, *, student: Student | None = None, token: str = "") -> None:
        self._config = config
        self._rollout = config.rollout
        self._state = state
        self._token = token.encode()
        self._teacher_at = upstream(config.rollout.teacher_url, "rollout.teacher_url", encrypted=True)
        self._local_at = upstream(config.rollout.local_url, "rollout.local_url", encrypted=False)
        self._fixed = student
        self._student = student or student_of(config)
        self._controller = Controller(state, config)
        self._registry = Registry(Path(config.models)).path
        self._registry_seen: tuple[int, int, int] | None = _stamp(self._registry)
        self._controller.follow_model()
        self._loaded = state.current().model
        self._admitted = 0
        """The visit that has been found fit to be served."""
        self._watch = StageWatch(config, state.folder)
        self._log = BoundedLog(state.folder / DECISIONS, config.rollout.log_bytes, config.rollout.log_files)
        self._complained: set[str] = set()
        self.metrics = Metrics()
        self._breaker = CircuitBreaker(config.rollout.breaker_failures, config.rollout.breaker_seconds)
        self._shadow = Shadow(config, state.folder, self.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection's request, or the server's start and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with open_client() as client:
            self._client = client
            self._teacher = TeacherProxy(self._teacher_at, client)
            self._local = self._way_to(self._student)
            watch = asyncio.ensure_future(self._watch.run())
            await send({"type": "lifespan.startup.complete"})
            await receive()
            watch.cancel()
            self._first_look.cancel()
            await self._shadow.close()
        await send({"type": "lifespan.shutdown.complete"})

    def _way_to(self, student: Student) -> LocalStudent:
        seconds, repeats = self._rollout.local_seconds, self._rollout.loop_calls
        local = LocalStudent(student, self._local_at, self._client, seconds=seconds, repeats=repeats)
        self._first_look = asyncio.ensure_future(local.served.is_another())  # to say it before anybody waits
        return local

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = scope["headers"]
        try:
            query = scope["query_string"]
            admit(scope["method"], scope["raw_path"], query, headers, self._token)
            if scope["path"] == "/metrics":
                await self._show_metrics(send)
                return
            if scope["path"] == "/status":
                await self._watch.show(send)
                return
            session = session_of(headers)
            body = await read_body(receive)
        except Refused as refused:
            self.metrics.refused.labels(str(refused.status)).inc()
            await send_error(send, refused.status, refused.kind, str(refused), headers=[(b"connection", b"close")])
            return
        except ClientLeft:
            return
        if _stamp(self._registry) != self._registry_seen:
            await self._look_at_registry()
        target = (scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1")
        is_message = scope["method"] == "POST" and scope["path"] == "/v1/messages"
        exchange = Exchange(
            Question(scope["method"], target, headers, body),
            is_message,
            self._place(session) if is_message and session else None,
            time.monotonic(),
        )
        with self.metrics.in_flight.track_inprogress():
            await self._watched(exchange, receive, send)

    async def _watched(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        """Answers; gives up when the client hangs up."""
        work = asyncio.ensure_future(self._answer(exchange, send))
        gone = asyncio.ensure_future(_hung_up(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
            with suppress(asyncio.CancelledError):
                await work
        except BrokenOff:
            exchange.ending = "cut"
            raise
        except Exception as error:
            self._complain(error)
            if exchange.first_byte is not None:
                raise BrokenOff from error
            exchange.begins(500, None)
            await send_error(send, 500, "api_error", f"gateway: internal error ({type(error).__name__})")
        finally:
            work.cancel()
            gone.cancel()
            self._note(exchange)

    async def _answer(self, exchange: Exchange, send: Send) -> None:
        placement = exchange.placement
        if placement is not None and placement.moved:
            exchange.reason = "kill_switch"
        if placement is None or placement.pinned == "teacher" or not await self._from_student(exchange, send):
            await self._from_teacher(exchange, send)

    async def _look_at_registry(self) -> None:
        """Follows the current model. While the new student is being read, everything is the teacher's already."""
        self._registry_seen = _stamp(self._registry)
        try:
            self._controller.follow_model()
            model = self._state.current().model
            if model == self._loaded:
                return
            student = await asyncio.to_thread(student_of, self._config) if self._fixed is None else self._fixed
            if model == self._state.current().model:  # or it has changed again, and that look brings the student
                self._loaded, self._local = model, self._way_to(student)
                self._shadow.renew()
        except (sqlite3.Error, OSError, TrainerError) as error:
            self._registry_seen = None  # the next request tries again
            self._complain(error)

    def _place(self, session: str) -> Placement | None:
        """Where the request belongs; None while the state is broken."""
        try:
            visit, side = self._state.place(session)
            if visit.weight > 0 and visit.id != self._admitted:
                if self._controller.may_serve(visit):
                    self._admitted = visit.id
                else:
                    visit, side = self._state.place(session)
            moved = side == "student" and self._state.killed
            if moved:
                self._state.pins.give_to_teacher(session)
        except (sqlite3.Error, TrainerError) as error:
            self._complain(error)
            return None
        return Placement(session, "teacher" if moved else side, visit, moved)

    async def _from_teacher(self, exchange: Exchange, send: Send) -> None:
        """The teacher's answer, or the error that there is none."""
        held = exchange.first_byte is not None
        try:
            reply = await self._teacher.ask(self._for_teacher(exchange), plain=held)
        except TeacherUnreachable as error:
            text = f"gateway: the teacher's server cannot be reached ({error})"
            exchange.ending = "unreachable"
            exchange.begins(502, "teacher")
            if held:
                told = event("error", {"error": {"type": "api_error", "message": text}})
                await send({"type": "http.response.body", "body": told})
            else:
                await send_error(send, 502, "api_error", text)
            return
        try:
            exchange.begins(reply.status, "teacher")
            if held:
                exchange.ending = "complete" if await pass_on_late(reply, send) else "late_error"
            else:
                tee = Tee(MAX_TURN) if self._shadows(exchange) and reply.status == 200 else None
                await pass_on(reply, send, tee)
                exchange.ending = "complete"
                if tee is not None:
                    self._cast_shadow(exchange, tee.whole(), reply.headers.get("content-encoding", ""))
        finally:
            reply.close()

    def _for_teacher(self, exchange: Exchange) -> Question:
        """The client's own bytes, but where a session that the student has had a part in needs a change."""
        question, placement = exchange.question, exchange.placement
        students = placement is not None and placement.pinned == "student"
        if not exchange.is_message or not (students or LOCAL_ID.encode() in question.body):
            return question
        changed = for_teacher(exchange.asked) if exchange.asked is not None else None
        return question if changed is None else question._replace(body=orjson.dumps(changed))

    async def _from_student(self, exchange: Exchange, send: Send) -> bool:
        """Releases the student's checked reply; False where the teacher has to answer."""
        try:
            message = await self._held(exchange, send)
            self._still_wanted(exchange)  # an abort in the meantime counts for this reply too
        except Fallback as fallback:
            exchange.reason = str(fallback)
            return False
        streaming = exchange.asked is not None and exchange.asked.get("stream") is True
        body = b"".join(events(message)) if streaming else orjson.dumps(message)
        if exchange.first_byte is None:
            await send(_local_head(streaming))
        exchange.begins(200, "student")
        exchange.message = message
        await send({"type": "http.response.body", "body": body})
        exchange.ending = "complete"
        return True

    async def _held(self, exchange: Exchange, send: Send) -> dict[str, Any]:
        """The student's message; while it is awaited, a streaming client is told that its request is alive.

        Raises:
            Fallback: for every reason not to release one.
        """
        asked = exchange.asked
        if asked is None:
            raise Fallback("unreadable_request")
        if not isinstance(asked.get("tools"), list) or not asked["tools"]:
            raise Fallback("no_tools")  # titles and summaries: the student has only learned to work with tools
        if not self._breaker.admits():
            raise Fallback("circuit_open")
        turn = asyncio.ensure_future(self._local.turn(asked))
        silent_since = time.monotonic()
        try:
            while not (await asyncio.wait({turn}, timeout=min(WATCH_SECONDS, self._rollout.ping_seconds)))[0]:
                self._still_wanted(exchange)
                if asked.get("stream") is True and time.monotonic() - silent_since >= self._rollout.ping_seconds:
                    if exchange.first_byte is None:
                        exchange.begins(200, None)
                        await send(_local_head(True))
                    await send({"type": "http.response.body", "body": PING, "more_body": True})
                    silent_since = time.monotonic()
            return self._judged(turn)
        finally:
            turn.cancel()
            self._breaker.abandoned()  # also where the turn ended just when the client left: nobody has judged it then

    def _still_wanted(self, exchange: Exchange) -> None:
        """Raises Fallback where the session has been taken from the student since the request came."""
        assert exchange.placement is not None
        session, killed, pin = exchange.placement.session, self._state.killed, None
        try:
            if killed:
                self._state.pins.give_to_teacher(session)
            pin = self._state.pins.find(session)
        except sqlite3.Error as error:
            self._complain(error)
        if pin is None or pin.side == "teacher":
            raise Fallback("kill_switch" if killed else "withdrawn")

    def _judged(self, turn: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
        """The result of a turn; the circuit breaker learns whether the server did its part."""
        try:
            message = turn.result()
        except Fallback as fallback:
            reason = str(fallback)
            if reason in _SERVER_FAULTS or reason.startswith(("http_5", "http_429")):
                self._breaker.failed()
            elif reason not in _NOT_ASKED:
                self._breaker.succeeded()
            raise
        except Exception as error:  # a fault of ours must not cost a person the answer
            self._complain(error)
            raise Fallback("internal_error") from error
        self._breaker.succeeded()
        return message

    def _shadows(self, exchange: Exchange) -> bool:
        placement = exchange.placement
        return (
            self._rollout.shadow
            and placement is not None
            and placement.pinned == "teacher"
            and placement.visit.weight == 0
            and len(exchange.question.body) <= MAX_TURN
            and not self._state.killed
        )

    def _cast_shadow(self, exchange: Exchange, reply: bytes | None, encoding: str) -> None:
        if reply is not None and exchange.placement is not None and exchange.asked and exchange.asked.get("tools"):
            session, _, visit, _ = exchange.placement
            self._shadow.offer(Turn(session, visit, exchange.question.body, reply, encoding))

    async def _show_metrics(self, send: Send) -> None:
        self.metrics.breaker.set(_STATES[self._breaker.state])
        self.metrics.killed.set(self._state.killed)
        with suppress(sqlite3.Error):
            self.metrics.weight.set(self._state.current().weight)
        head = [(b"content-type", CONTENT_TYPE.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": self.metrics.text()})

    def _note(self, exchange: Exchange) -> None:
        """Counts the request and appends one line. A full disk must not keep answers from people: it is said once."""
        placement, answered = exchange.placement, exchange.answered
        if not exchange.is_message:
            self.metrics.relayed.inc()
            return
        pinned = placement.pinned if placement else "none"
        self.metrics.requests.labels(pinned, answered or "none", exchange.reason).inc()
        self.metrics.endings.labels(answered or "none", exchange.ending).inc()
        if exchange.first_byte is not None and answered:
            self.metrics.first_byte.labels(answered).observe(exchange.first_byte)
        usage = exchange.message["usage"] if exchange.message else {}
        for kind, count in usage.items():
            self.metrics.tokens.labels(kind).inc(count)
        if placement is None:
            return
        line = line_of(exchange, placement) | usage
        try:
            if answered:
                self._controller.observe(figures_of(exchange, placement, answered, line))
            self._log.append(orjson.dumps(line))
        except (sqlite3.Error, OSError, TrainerError) as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        """Says a failure of ours on standard error, each kind once; its text alone where it cannot hold content."""
        known, kind = isinstance(error, (sqlite3.Error, OSError, TrainerError)), type(error).__name__
        if kind not in self._complained:
            self._complained.add(kind)
            text = f"{self._state.folder}: {error}; requests go on, counts are incomplete" if known else kind
            print(f"gateway: {text}", file=sys.stderr)


def _local_head(streaming: bool) -> dict[str, Any]:
    kind = b"text/event-stream; charset=utf-8" if streaming else b"application/json"
    headers = [(b"content-type", kind), (b"cache-control", b"no-cache")]
    headers.append((b"request-id", f"req_local_{uuid.uuid4().hex[:20]}".encode()))
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or written; zeros where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
