"""The teacher of the closed loop: a Messages API on loopback that does what the demo's scripted teacher did.

It stands where the real API would. A prompt of the demo world is answered by its episode's plan, a step for each
request; the calls are executed by whoever asked. Everything else that Claude Code asks for gets one short sentence.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from trainer.demo.scripted_teacher import DemoEpisode
from trainer.demo.session_file import TEACHER
from trainer.rollout.message_stream import events
from trainer.rollout.student_view import project_root
from trainer.student.workspace_paths import to_absolute


class Recorded(NamedTuple):
    """A request as Claude Code sent it."""

    target: str
    headers: dict[str, str]
    body: bytes


class Teacher:
    """What the teacher knows, and what it was asked.

    Raises:
        ValueError: two episodes have the same prompt.
    """

    def __init__(self, episodes: Sequence[DemoEpisode]) -> None:
        self._known = {episode.prompt: episode for episode in episodes}
        if len(self._known) < len(episodes):
            raise ValueError("two episodes have the same prompt: the teacher cannot tell which is meant")
        self.recorded: list[Recorded] = []
        """Requests with tools, oldest first, while `recording`."""
        self.recording = False

    def blocks(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The content of the next message."""
        messages = asked.get("messages") or []
        for place in range(len(messages) - 1, -1, -1):
            prompt = next((text for text in _texts(messages[place]) if text in self._known), None)
            if messages[place].get("role") == "user" and prompt is not None:
                done = sum(message.get("role") == "assistant" for message in messages[place + 1 :])
                return _step(self._known[prompt], done, project_root(dict(asked)))
        return [{"type": "text", "text": "The scripted teacher has nothing to say to this."}]


def _texts(message: Mapping[str, Any]) -> list[str]:
    content = message.get("content")
    if isinstance(content, str):
        return [content.strip()]
    return [str(block.get("text") or "").strip() for block in content or [] if block.get("type") == "text"]


def _step(episode: DemoEpisode, number: int, root: str | None) -> list[dict[str, Any]]:
    if number >= len(episode.plan):
        return [{"type": "text", "text": episode.answer}]
    step = episode.plan[number]
    calls = [
        {
            "type": "tool_use",
            "id": f"toolu_{uuid.uuid4().hex[:24]}",
            "name": call.name,
            "input": to_absolute(call.arguments, root),
        }
        for call in step.calls
    ]
    return [{"type": "text", "text": step.text}, *calls]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    teacher: Teacher

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def handle(self) -> None:
        """Serves a connection; a client that is gone just drops it."""
        with suppress(ConnectionError):
            super().handle()

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _not_found(self) -> None:
        error = {"type": "error", "error": {"type": "not_found_error", "message": self.path}}
        self._answer(404, "application/json", json.dumps(error).encode())

    do_GET = do_HEAD = _not_found

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if "count_tokens" in self.path:
            return self._answer(200, "application/json", b'{"input_tokens":100}')
        if not self.path.startswith("/v1/messages"):
            return self._not_found()
        asked = json.loads(body)
        if self.teacher.recording and asked.get("tools"):
            self.teacher.recorded.append(Recorded(self.path, dict(self.headers.items()), body))
        content = self.teacher.blocks(asked)
        called = any(block["type"] == "tool_use" for block in content)
        message = {
            "id": f"msg_{uuid.uuid4().hex[:24]}",
            "type": "message",
            "role": "assistant",
            "model": TEACHER,
            "content": content,
            "stop_reason": "tool_use" if called else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 100, "output_tokens": 40},
        }
        if asked.get("stream") is True:
            return self._answer(200, "text/event-stream", b"".join(events(message)))
        return self._answer(200, "application/json", json.dumps(message).encode())


@contextmanager
def serve_teacher(teacher: Teacher) -> Iterator[str]:
    """Serves the teacher on loopback; gives the base URL."""
    handler = type("Handler", (_Handler,), {"teacher": teacher})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
