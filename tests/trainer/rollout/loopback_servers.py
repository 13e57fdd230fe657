"""Real servers on loopback: an upstream that answers by script, byte by byte, and the gateway in a thread."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import uvicorn
from starlette.types import ASGIApp

from trainer.loopback import bind
from trainer.rollout.patient_protocol import PatientProtocol
from trainer.rollout.rollout_state import RolloutState

SERVE = [
    sys.executable,
    "-c",
    "from trainer.cli import main; main()",
    "rollout",
    "serve",
    "--port",
    "0",
    "--force",
    "test",
]
"""The gateway as a process of its own; add `--config` and `--state`."""
RESET = b"<reset>"
"""In a script: cut the connection here, without a goodbye."""


class Asked:
    """One request as it came over the wire."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.raw = head + b"\r\n\r\n" + body
        line, *fields = head.split(b"\r\n")
        self.method, self.target, _ = line.decode().split(" ")
        self.headers = [tuple(field.decode().split(": ", 1)) for field in fields]
        self.body = body

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Script = Callable[[Asked], Sequence[bytes | threading.Event]]


class Upstream:
    """Answers each request with the parts of a script: bytes are sent, an event is waited for, RESET cuts."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self._listener = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.closed_early = threading.Event()

    def __enter__(self) -> Upstream:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`, which `close` does not
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                data = b""
                while b"\r\n\r\n" not in data:
                    if not (chunk := connection.recv(65536)):
                        return
                    data += chunk
                head, body = data.split(b"\r\n\r\n", 1)
                asked = Asked(head, b"")
                while len(body) < int(asked.header("content-length") or 0):
                    body += connection.recv(65536)
                asked = Asked(head, body)
                self.asked.append(asked)
                for part in self.script(asked):
                    if isinstance(part, threading.Event):
                        part.wait(60)
                    elif part is RESET:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    else:
                        connection.sendall(part)
            except OSError:
                self.closed_early.set()


def http(status: str, body: bytes, *headers: str) -> bytes:
    """A whole response with a length."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def reply(content: list[dict[str, Any]], **fields: Any) -> bytes:
    """A local server's message."""
    message = {"id": "m", "type": "message", "role": "assistant", "content": content, "model": "x"}
    message |= {"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 3}}
    return http("200 OK", json.dumps(message | fields).encode(), "content-type: application/json")


class Running:
    """An ASGI application under uvicorn in a thread."""

    def __init__(self, app: ASGIApp) -> None:
        self._listener = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        settings = uvicorn.Config(
            app, http=PatientProtocol, ws="none", log_level="critical", server_header=False, date_header=False
        )
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.should_exit = True
        self._thread.join(60)
        self._listener.close()


class House(NamedTuple):
    """Everything between client and models."""

    url: str
    teacher: Upstream
    local: Upstream
    state: RolloutState
    folder: Path
