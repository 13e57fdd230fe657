"""A Messages API on loopback whose answers a function gives, so that the real Claude Code can run without a model."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from trainer.rollout.message_stream import events


class Recorded(NamedTuple):
    """A request as Claude Code sent it."""

    target: str
    headers: dict[str, str]
    body: bytes


def assistant_message(content: Sequence[dict[str, Any]], model: str) -> dict[str, Any]:
    """A whole message of content blocks."""
    called = any(block["type"] == "tool_use" for block in content)
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": list(content),
        "stop_reason": "tool_use" if called else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 100,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 42,
        },
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer: Callable[[Recorded], dict[str, Any]]

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def handle(self) -> None:
        """Serves a connection; a client that is gone just drops it."""
        with suppress(ConnectionError):
            super().handle()

    def _reply(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _not_found(self) -> None:
        error = {"type": "error", "error": {"type": "not_found_error", "message": self.path}}
        self._reply(404, "application/json", json.dumps(error).encode())

    do_GET = do_HEAD = _not_found

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if "count_tokens" in self.path:
            return self._reply(200, "application/json", b'{"input_tokens":100}')
        if not self.path.startswith("/v1/messages"):
            return self._not_found()
        message = type(self).answer(Recorded(self.path, dict(self.headers.items()), body))
        if json.loads(body).get("stream") is True:
            return self._reply(200, "text/event-stream", b"".join(events(message)))
        return self._reply(200, "application/json", json.dumps(message).encode())


@contextmanager
def serve_messages(answer: Callable[[Recorded], dict[str, Any]]) -> Iterator[str]:
    """Serves on loopback; gives the base URL.

    Args:
        answer: the message that follows a request to /v1/messages; called from several threads.
    """
    handler = type("Handler", (_Handler,), {"answer": staticmethod(answer)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
