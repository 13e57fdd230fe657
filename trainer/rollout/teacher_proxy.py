"""Requests that go to the teacher and its answers, byte for byte, as they come.

Hop-by-hop headers (RFC 9110, section 7.6.1) end at each side of a proxy; `host` and `content-length` are written anew
for the connection that they belong to. Everything else passes, errors included, and nothing is added.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

import aiohttp
import orjson
from multidict import CIMultiDict
from starlette.types import Send

from trainer.rollout.message_stream import event
from trainer.rollout.request_guard import TOKEN_HEADER, error_body
from trainer.rollout.upstreams import Upstream

SEND_SECONDS = 60.0
"""Longest time for a client to take a piece of a reply; whoever reads more slowly is let go."""
MAX_ERROR = 256 * 1024
"""Largest error body, in bytes, that is told inside a stream."""

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
_NOT_SENT = _HOP_BY_HOP | {b"host", b"content-length", b"expect", TOKEN_HEADER}


class TeacherUnreachable(Exception):
    """No answer came from the teacher's server; the text names the kind of failure."""


class BrokenOff(Exception):
    """A reply ended in its middle; the client's connection has to be cut, so that it does not take it for whole."""


class Question(NamedTuple):
    """A client's request, as the teacher is to get it."""

    method: str
    target: str
    """Path and query as they were written."""
    headers: Headers
    """Names in small letters."""
    body: bytes


class Tee:
    """A copy of a reply while it passes, up to a size.

    Args:
        limit: bytes; of a longer reply nothing is kept.
    """

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._parts: list[bytes] = []

    def add(self, chunk: bytes) -> None:
        """Keeps the next piece."""
        self._room -= len(chunk)
        if self._room >= 0:
            self._parts.append(chunk)
        else:
            self._parts.clear()

    def whole(self) -> bytes | None:
        """The reply; None where it was too long."""
        return b"".join(self._parts) if self._room >= 0 else None


class TeacherProxy:
    """The way to the teacher."""

    def __init__(self, teacher: Upstream, client: aiohttp.ClientSession) -> None:
        self._teacher = teacher
        self._client = client

    async def ask(self, question: Question, *, plain: bool = False) -> aiohttp.ClientResponse:
        """Sends a request; the reply's body is still to be read, and the reply to be closed.

        Args:
            plain: ask for an uncompressed body, where it is to follow events that have been sent already.

        Raises:
            TeacherUnreachable: nobody answered.
        """
        ended = _NOT_SENT | _named_by_connection(question.headers) | ({b"accept-encoding"} if plain else set())
        headers = CIMultiDict((name.decode(), value.decode()) for name, value in question.headers if name not in ended)
        if plain:
            headers["accept-encoding"] = "identity"
        try:
            return await self._client.request(
                question.method,
                self._teacher.at(question.target),
                headers=headers,
                data=question.body or None,
                allow_redirects=False,
                proxy=self._teacher.proxy,
            )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise TeacherUnreachable(type(error).__name__) from None


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """The fields that a `Connection` header declares to be of this hop only."""
    return {name.strip().lower() for field, value in headers if field == b"connection" for name in value.split(b",")}


async def pass_on(reply: aiohttp.ClientResponse, send: Send, tee: Tee | None = None) -> None:
    """Relays a reply, each piece when it comes.

    Raises:
        BrokenOff: the teacher or the client did not go on in the middle.
    """
    raw = [(name.lower(), value) for name, value in reply.raw_headers]
    ended = _HOP_BY_HOP | _named_by_connection(raw)
    kept = [(name, value) for name, value in raw if name not in ended]
    await send({"type": "http.response.start", "status": reply.status, "headers": kept})
    await _pieces(reply, send, tee)
    await send({"type": "http.response.body", "body": b""})


async def pass_on_late(reply: aiohttp.ClientResponse, send: Send) -> bool:
    """Relays a reply into a stream of events that has begun; an error becomes the stream's `error` event.

    Returns:
        Whether the teacher answered; False for an error.

    Raises:
        BrokenOff: as `pass_on`.
    """
    streamed = reply.status == 200 and reply.content_type == "text/event-stream"
    if streamed and reply.headers.get("content-encoding", "identity") == "identity":
        await _pieces(reply, send, None)
        await send({"type": "http.response.body", "body": b""})
        return True
    try:
        told = orjson.loads(await reply.content.read(MAX_ERROR))["error"]
        error = {"type": str(told["type"]), "message": str(told["message"])}
    except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError):
        error = {"type": "api_error", "message": f"gateway: the teacher's server answered with status {reply.status}"}
    await send({"type": "http.response.body", "body": event("error", {"error": error})})
    return False


async def send_error(send: Send, status: int, kind: str, message: str, *, headers: Headers | None = None) -> None:
    """An error in the shape of the Messages API."""
    body = error_body(kind, message)
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def _pieces(reply: aiohttp.ClientResponse, send: Send, tee: Tee | None) -> None:
    try:
        async for chunk in reply.content.iter_any():
            if tee is not None:
                tee.add(chunk)
            async with asyncio.timeout(SEND_SECONDS):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise BrokenOff(type(error).__name__) from None
