"""The gateway: an Anthropic-Messages reverse proxy between Claude Code and teacher or student.

Point Claude Code's ANTHROPIC_BASE_URL at it. A session (header `x-claude-code-session-id`) is pinned at its first
request. To the teacher everything goes byte for byte, streamed as it comes, errors included; nothing is added. A
student's session: `POST /v1/messages` with tools goes to the local server, with credentials dropped and the short
prompt (student_view); the reply is held until it is complete, checked (reply_check), and only then released. Whatever
fails before that is answered by the teacher, with the client's own bytes.

Bodies and credentials are never logged. Each decision is one line without content in decisions.jsonl.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

import anyio
import httpx2
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from trainer.config import Config
from trainer.errors import TrainerError
from trainer.export.student_prompt import StudentPrompt
from trainer.rollout.message_stream import events
from trainer.rollout.reply_check import fault
from trainer.rollout.rollout_state import RolloutState, Visit
from trainer.rollout.session_pinning import Side
from trainer.rollout.student_view import STRICT_HEADER, client_reply, project_root, student_request

SESSION_HEADER = "x-claude-code-session-id"
AGENT_HEADER = "x-claude-code-agent-id"
DECISIONS = "decisions.jsonl"
MAX_BODY = 32 * 1024 * 1024
"""Largest request, in bytes; the teacher's API takes no more either."""
MAX_REPLY = 8 * 1024 * 1024
LOCAL_SECONDS = 120.0
"""Longest wait for a complete local reply."""
_MAX_SESSION = 200
_CONTEXT_FULL = (b"exceed_context_size_error", b"prompt is too long")  # llama-server, `claude-trainer serve`
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade host content-length expect".split()
)
_NOT_RELAYED_BACK = _HOP_BY_HOP - {b"content-length"}


class Fallback(Exception):
    """The student cannot answer this request; its text is the reason that is counted."""


class Decision(NamedTuple):
    """Where a request of a session belongs."""

    session: str
    pinned: Side
    visit: Visit
    moved: bool
    """True where the kill switch has just taken the session from the student."""


class Relayed(StreamingResponse):
    """An upstream's response passed on as it comes; the upstream is let go when the client goes."""

    def __init__(self, upstream: httpx2.Response) -> None:
        super().__init__(upstream.aiter_raw(), upstream.status_code)
        self.raw_headers = [(n.lower(), v) for n, v in upstream.headers.raw if n.lower() not in _NOT_RELAYED_BACK]
        self._upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._upstream.aclose()


class Gateway:
    """One gateway over one rollout state."""

    def __init__(self, config: Config, state: RolloutState, *, local_seconds: float = LOCAL_SECONDS) -> None:
        """
        Raises:
            TrainerError: an upstream is not an http(s) address, or credentials would leave this machine unencrypted.
        """
        self._config = config
        self._state = state
        self._local_seconds = local_seconds
        self._teacher_url = _upstream(config.rollout.teacher_url, "rollout.teacher_url", encrypted=True)
        self._local_url = _upstream(config.rollout.local_url, "rollout.local_url", encrypted=False)
        self._log = Path(state.folder) / DECISIONS
        self._complained = False
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
        # through a proxy of the environment only where the upstream is elsewhere; no read timeout of ours toward
        # the teacher: how long to wait is the client's decision
        self._teacher = httpx2.AsyncClient(
            timeout=httpx2.Timeout(None, connect=10),
            limits=limits,
            trust_env=not _is_loopback(urlsplit(self._teacher_url).hostname),
        )
        self._local = httpx2.AsyncClient(
            timeout=httpx2.Timeout(local_seconds, connect=3), limits=limits, trust_env=False
        )

    def app(self) -> Starlette:
        """The ASGI application."""

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            await self._teacher.aclose()
            await self._local.aclose()

        return Starlette(routes=[Route("/{path:path}", self._handle, methods=_METHODS)], lifespan=lifespan)

    async def _handle(self, request: Request) -> Response:
        began = time.monotonic()
        if not request.scope["raw_path"].startswith(b"/"):
            return _error(400, "invalid_request_error", "the request target must be a path")
        try:
            body = await _read(request)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return _error(413, "request_too_large", f"the request is larger than {MAX_BODY:,} bytes")
        decision = self._decide(request) if _is_message(request) else None
        if decision is None:
            return await self._from_teacher(request, body)
        reason = "kill_switch" if decision.moved else ""
        response: Response | None = None
        if decision.pinned == "student":
            try:
                response = await self._from_student(body)
            except Fallback as fallback:
                reason = str(fallback)
            if self._state.killed:  # an abort in the meantime counts for this reply too
                response, reason = None, "kill_switch"
        answered: Side = "teacher" if response is None else "student"
        if response is None:
            response = await self._from_teacher(request, body)
        self._note(request, decision, answered, reason, response.status_code, time.monotonic() - began)
        return response

    def _decide(self, request: Request) -> Decision | None:
        """Where the request belongs; None without a session that could be pinned, or while the state is broken."""
        session = request.headers.get(SESSION_HEADER, "")
        if not 0 < len(session) <= _MAX_SESSION:
            return None
        try:
            visit = self._state.current()
            killed = self._state.killed
            side = self._state.pins.pin(session, 0 if killed else visit.weight, visit.id).side
            moved = killed and side == "student"
            if moved:
                self._state.pins.give_to_teacher(session)
        except sqlite3.Error as error:
            self._complain(error)
            return None
        return Decision(session, "teacher" if moved else side, visit, moved)

    async def _from_teacher(self, request: Request, body: bytes) -> Response:
        target = request.scope["raw_path"] + (b"?" + query if (query := request.scope["query_string"]) else b"")
        prefix = urlsplit(self._teacher_url).path.encode()
        outgoing = httpx2.Request(
            request.method,
            self._teacher_url,
            headers=[(name, value) for name, value in request.headers.raw if name not in _HOP_BY_HOP],
            content=body,
            extensions={"target": prefix + target},
        )
        try:
            return Relayed(await self._teacher.send(outgoing, stream=True, follow_redirects=False))
        except httpx2.TransportError as error:
            return _error(502, "api_error", f"gateway: the teacher's server cannot be reached ({type(error).__name__})")

    async def _from_student(self, body: bytes) -> Response:
        """The student's checked reply. Raises Fallback for every reason not to release one."""
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            raise Fallback("unreadable_request") from None
        if not isinstance(asked, dict) or not isinstance(asked.get("tools"), list) or not asked["tools"]:
            raise Fallback("no_tools")  # titles and summaries: the student has only learned to work with tools
        model = self._config.deploy.model
        try:
            outgoing = student_request(asked, StudentPrompt(self._config.dataset), model)
        except (TypeError, AttributeError, KeyError):
            raise Fallback("unreadable_request") from None
        reply = await self._ask_local(outgoing)
        if reason := fault(reply, asked["tools"]):
            raise Fallback(reason)
        message = client_reply(reply, project_root(asked), model)
        if asked.get("stream"):
            return Response(b"".join(events(message)), media_type="text/event-stream")
        return Response(json.dumps(message), media_type="application/json")

    async def _ask_local(self, outgoing: dict[str, Any]) -> Any:
        """The parsed reply of the local server; no header of the client's is sent."""
        request = httpx2.Request(
            "POST",
            self._local_url + "/v1/messages",
            headers={"content-type": "application/json", "anthropic-version": "2023-06-01", STRICT_HEADER: "1"},
            content=json.dumps(outgoing).encode(),
        )
        data = b""
        try:
            async with asyncio.timeout(self._local_seconds):
                response = await self._local.send(request, stream=True, follow_redirects=False)
                try:
                    async for chunk in response.aiter_bytes():
                        data += chunk
                        if len(data) > MAX_REPLY:
                            raise Fallback("malformed_reply")
                finally:
                    await response.aclose()
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise Fallback("unreachable" if isinstance(error, httpx2.ConnectTimeout) else "timeout") from None
        except httpx2.ConnectError:
            raise Fallback("unreachable") from None
        except (httpx2.TransportError, httpx2.DecodingError):
            raise Fallback("reset") from None
        if response.status_code != 200:
            full = response.status_code == 400 and any(text in data for text in _CONTEXT_FULL)
            raise Fallback("context_overflow" if full else f"http_{response.status_code}")
        try:
            return json.loads(data, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise Fallback("malformed_reply") from None

    def _note(
        self, request: Request, decision: Decision, answered: Side, reason: str, status: int, seconds: float
    ) -> None:
        """Counts the request and appends one line. A full disk must not keep answers from people: it is said once."""
        line = {
            "t": round(time.time(), 3),
            "session": decision.session,
            "subagent": AGENT_HEADER in request.headers,
            "weight": decision.visit.weight,
            "pinned": decision.pinned,
            "answered_by": answered,
            "reason": reason,
            "status": status,
            "first_byte_ms": round(seconds * 1000, 1),
        }
        try:
            self._state.count(decision.visit.id, decision.session, decision.pinned, answered, reason)
            handle = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(handle, json.dumps(line).encode() + b"\n")
            finally:
                os.close(handle)
        except (sqlite3.Error, OSError) as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            print(f"gateway: {self._state.folder}: {error}; requests go on, counts are incomplete", file=sys.stderr)


def _is_message(request: Request) -> bool:
    return request.method == "POST" and request.url.path == "/v1/messages"


async def _read(request: Request) -> bytes | None:
    """The body; None where it is larger than MAX_BODY."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _error(status: int, kind: str, message: str) -> Response:
    """An error in the shape of the Messages API."""
    return JSONResponse({"type": "error", "error": {"type": kind, "message": message}}, status)


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _upstream(url: str, key: str, *, encrypted: bool) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TrainerError(f"{key}: {url!r} is not an http(s) address")
    if encrypted and parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise TrainerError(f"{key}: {url!r} would send credentials unencrypted; use https")
    return url.rstrip("/")


def check_loopback(address: str) -> None:
    """Raises TrainerError for an address that others could reach: the gateway asks nobody for a password."""
    if not _is_loopback(address):
        raise TrainerError(
            f"the gateway listens on loopback only, not on {address}; put a tunnel before it if you must"
        )
