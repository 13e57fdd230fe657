"""What is refused before anybody is asked: bodies without end, odd paths, two session ids, strangers, web pages.

A web page can reach a server on loopback in two ways: it says where it comes from (`origin`), or its own name points
at 127.0.0.1 by then (DNS rebinding), and `host` still tells that name. The token keeps both out, and so, without a
token, does the rule that nobody has an origin and everybody asks for a loopback address; on every path alike.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from urllib.parse import unquote_to_bytes

import orjson
from starlette.types import Receive

from trainer.rollout.upstreams import is_loopback

MAX_BODY = 32 * 1024 * 1024
"""Largest request, in bytes; the teacher's API takes no more either."""
BODY_SECONDS = 30.0
"""Longest time for a request's body to arrive."""
TOKEN_HEADER = b"x-claude-trainer-token"
"""Carries the gateway's own token, because `authorization` and `x-api-key` are the teacher's; it goes nowhere."""
SESSION_HEADER = "x-claude-code-session-id"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_SESSION = re.compile(rb"[\x21-\x7e]{1,200}")
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+))(?::\d*)?")
_ODD_SEGMENTS = frozenset((b".", b".."))


class Refused(Exception):
    """A request that is not answered; `status` and `kind` as in the Messages API."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class ClientLeft(Exception):
    """The client hung up before its request was complete."""


def error_body(kind: str, message: str) -> bytes:
    """An error as the Messages API writes it."""
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})


def admit(method: str, raw_path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], token: bytes) -> None:
    """Checks everything that is known before the body.

    Args:
        raw_path, query: the request target as it was written, at both sides of its first question mark.
        headers: names in small letters.
        token: what a client must send; empty asks for none, and then web pages and foreign names are refused.

    Raises:
        Refused: with the reason.
    """
    if token:
        given = next((value for name, value in headers if name == TOKEN_HEADER), b"")
        if not hmac.compare_digest(given, token):
            raise Refused(401, "authentication_error", f"the gateway wants its token in {TOKEN_HEADER.decode()}")
    elif any(name == b"origin" for name, _ in headers):
        raise Refused(403, "permission_error", "requests of web pages are refused; start the gateway with --token")
    elif not _asks_for_loopback(headers):
        message = "without --token the gateway answers under 127.0.0.1, localhost and [::1] alone"
        raise Refused(403, "permission_error", message)
    for name, value in headers:
        try:
            value.decode()
        except UnicodeDecodeError:
            raise Refused(400, "invalid_request_error", f"header {name.decode('ascii')} is not UTF-8") from None
    if method not in _METHODS:
        raise Refused(405, "invalid_request_error", f"method {method[:20]!r} is not allowed")
    path = unquote_to_bytes(raw_path)
    odd = b"\\" in path or b"//" in path or any(byte < 0x20 or byte == 0x7F for byte in path)
    odd = odd or b"#" in raw_path + query  # what follows it would not reach the teacher
    if not raw_path.startswith(b"/") or odd or not _ODD_SEGMENTS.isdisjoint(path.split(b"/")):
        raise Refused(400, "invalid_request_error", "the request target must be a plain path")
    if sum(name in (b"content-length", b"transfer-encoding") for name, _ in headers) > 1:
        raise Refused(400, "invalid_request_error", "the length of the body is given twice")
    length = next((value for name, value in headers if name == b"content-length"), b"0")
    if not length.isdigit() or int(length) > MAX_BODY:
        raise _too_large()


def _asks_for_loopback(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the one `host` names this machine's own address."""
    hosts = [value for name, value in headers if name == b"host"]
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    return match is not None and is_loopback((match[1] or match[2]).decode())


def session_of(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The client's session; None where it names none.

    Raises:
        Refused: there are two, or it is not one visible word of at most 200 characters.
    """
    named = {value for name, value in headers if name == SESSION_HEADER.encode()}
    if not named:
        return None
    first = named.pop()
    if named or not _SESSION.fullmatch(first):
        raise Refused(400, "invalid_request_error", f"{SESSION_HEADER} must be one word of at most 200 characters")
    return first.decode()


async def read_body(receive: Receive) -> bytes:
    """The whole body.

    Raises:
        Refused: it is too large or too slow.
        ClientLeft: the client hung up.
    """
    chunks: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                chunk = message.get("body", b"")
                more = message.get("more_body", False)
                size += len(chunk)
                if size > MAX_BODY:
                    raise _too_large()
                chunks.append(chunk)
    except TimeoutError:
        raise Refused(408, "timeout_error", f"the body did not arrive within {BODY_SECONDS:g} seconds") from None
    return b"".join(chunks)


def _too_large() -> Refused:
    return Refused(413, "request_too_large", f"the request is larger than {MAX_BODY:,} bytes")
