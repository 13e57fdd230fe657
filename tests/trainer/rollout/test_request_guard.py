"""What is refused before anybody is asked, over real sockets, in the shape of the Messages API."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from gateway_requests import TEACHER_SAYS, Build, ask, question
from hypothesis import example, given
from hypothesis import strategies as st
from loopback_servers import House

from trainer.rollout import patient_protocol, request_guard
from trainer.rollout.request_guard import TOKEN_HEADER, Refused, admit
from trainer.rollout.upstreams import Upstream


def talk(house: House, data: bytes, *more: bytes) -> tuple[int, dict[str, Any]]:
    """Status and error of what is sent byte by byte as given."""
    received = b""
    with socket.create_connection(("127.0.0.1", int(house.url.rsplit(":", 1)[1])), timeout=20) as client:
        for part in (data, *more):
            client.sendall(part)
        try:
            while chunk := client.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    return (int(head.split(b" ")[1]) if head else 0), json.loads(body)["error"] if body else {}


def request(target: str = "/v1/messages", *headers: str, body: bytes = b"{}", method: str = "POST") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "host: localhost", "connection: close", *headers]
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "dots": (request("/v1/../admin"), 400, "invalid_request_error"),
    "encoded dots": (request("/v1/%2e%2E/admin"), 400, "invalid_request_error"),
    "backslash": (request("/v1/..%5cadmin"), 400, "invalid_request_error"),
    "two slashes": (request("//evil.example/v1"), 400, "invalid_request_error"),
    "line break": (request("/v1/a%0d%0ax:%20y"), 400, "invalid_request_error"),
    "fragment": (request("/v1/messages#x"), 400, "invalid_request_error"),
    "fragment of a query": (request("/v1/messages?beta=true#x"), 400, "invalid_request_error"),
    "nul": (request("/v1/%00"), 400, "invalid_request_error"),
    "other host": (request("http://evil.example/v1/messages"), 400, "invalid_request_error"),
    "user of a host": (request("%2F@evil.example/"), 400, "invalid_request_error"),
    "method": (request("/v1/messages", method="TRACE"), 405, "invalid_request_error"),
    "web page": (request("/v1/messages", "origin: https://evil.example"), 403, "permission_error"),
    "two sessions": (
        request("/v1/messages", "x-claude-code-session-id: a", "x-claude-code-session-id: b"),
        400,
        "invalid_request_error",
    ),
    "long session": (request("/v1/messages", "x-claude-code-session-id: " + "a" * 201), 400, "invalid_request_error"),
    "session with a tab": (request("/v1/messages", "x-claude-code-session-id: a\tb"), 400, "invalid_request_error"),
    "line break in a header": (request("/v1/messages", "x: a\rb"), 400, "invalid_request_error"),
    "header of no text": (b"GET / HTTP/1.1\r\nhost: localhost\r\nx: caf\xe9\r\n\r\n", 400, "invalid_request_error"),
    "two lengths": (request("/v1/messages", "content-length: 7"), 400, "invalid_request_error"),
    "length and chunks": (request("/v1/messages", "transfer-encoding: chunked"), 400, "invalid_request_error"),
    "no http": (b"hello\r\n\r\n", 400, "invalid_request_error"),
    "declared too large": (
        b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 99999999\r\n\r\n",
        413,
        "request_too_large",
    ),
    "endless headers": (b"GET / HTTP/1.1\r\nx: " + b"a" * 100_000, 400, "invalid_request_error"),
}


@pytest.mark.parametrize("target", ["/v1/messages", "/v1/models", "/metrics", "/status"])
def test_a_foreign_name_that_points_here_is_refused_on_every_path(build: Build, target: str) -> None:
    """DNS rebinding: a page's own name leads to 127.0.0.1, so that its requests have no foreign origin."""
    house = build(lambda _: [TEACHER_SAYS], lambda _: [], weight=0, shadow=False)
    for host in ("evil.example:8094", "127.0.0.1.evil.example", "evil.example@127.0.0.1", "[::1].evil", ""):
        status, error = talk(house, f"GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        assert (status, error["type"]) == (403, "permission_error"), host
    assert house.teacher.asked == []


@pytest.mark.parametrize(("data", "status", "kind"), REFUSED.values(), ids=REFUSED)
def test_bad_requests_are_refused_and_nobody_is_asked(build: Build, data: bytes, status: int, kind: str) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [])
    found, error = talk(house, data)
    assert (found, error["type"]) == (status, kind)
    assert house.teacher.asked == house.local.asked == []


def test_a_body_in_chunks_has_the_same_limit(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_guard, "MAX_BODY", 1000)
    house = build(lambda _: [TEACHER_SAYS], lambda _: [])
    head = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    assert talk(house, head, b"400\r\n" + b"x" * 1024 + b"\r\n")[0] == 413
    assert house.teacher.asked == []


def test_slow_bodies_and_slow_headers_are_not_waited_for(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_guard, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(patient_protocol, "HEADER_SECONDS", 0.3)
    house = build(lambda _: [TEACHER_SAYS], lambda _: [])
    head = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 100\r\n\r\n"
    status, error = talk(house, head + b"{")
    assert (status, error["type"]) == (408, "timeout_error")
    status, error = talk(house, b"POST /v1/messages HTTP/1.1\r\nhos")
    assert (status, error["type"]) == (408, "timeout_error")
    assert talk(house, b"") == (0, {}), "who asks for nothing gets no answer, and is let go"
    assert house.teacher.asked == []


def test_with_a_token_only_who_has_it_is_served_and_it_goes_no_further(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [], token="open-sesame", weight=0)
    name = TOKEN_HEADER.decode()
    assert ask(house).status_code == 401
    assert ask(house, **{name: "open"}).json()["error"]["type"] == "authentication_error"
    assert talk(house, request("/metrics", method="GET"))[0] == 401
    assert house.teacher.asked == []
    assert ask(house, question(), **{name: "open-sesame", "origin": "https://editor.example"}).status_code == 200
    assert house.teacher.asked[0].header(name) is None
    assert b"open-sesame" not in house.teacher.asked[0].raw


@given(st.lists(st.integers(0x21, 0x7E), max_size=60).map(lambda rest: b"/" + bytes(rest)))  # what the parser lets in
@example(b"/..")
@example(b"/%2e%2e/x")
@example(b"@evil.example")
@example(b"/\\evil")
@example(b"/v1#/../x")
def test_an_admitted_target_reaches_the_teachers_host_as_it_was_written(target: bytes) -> None:
    path, _, query = target.partition(b"?")
    try:
        admit("GET", path, query, [(b"host", b"localhost")], b"")
    except Refused:
        return
    url = Upstream("https://teacher.example/prefix", None).at(target.decode())
    assert (url.host, url.scheme) == ("teacher.example", "https")
    assert url.raw_path_qs.removesuffix("?") == f"/prefix{target.decode().removesuffix('?')}"
    assert ".." not in url.path.split("/")
