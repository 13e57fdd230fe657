"""A short session over HTTP that sends what Claude Code sends: for counting hundreds of them.

The first request is one that the real CLI has sent, with another session id, prompt and project folder in its place;
then calls are executed with the demo's tools and their results sent back, until there is an answer.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trainer.demo.messages_api import Recorded
from trainer.demo.scripted_teacher import DemoEpisode
from trainer.demo.tools import WorkspaceTools
from trainer.errors import TrainerError
from trainer.rollout.message_stream import message_of
from trainer.rollout.request_guard import SESSION_HEADER
from trainer.rollout.student_view import project_root

MAX_REQUESTS = 12
"""Most requests of a session."""
_TIMEOUT = 180.0
_OF_A_CONNECTION = ("host", "content-length", "connection", "accept-encoding", "transfer-encoding")


class LiveSession:
    """One session on its way.

    Args:
        pattern: the first request with tools of a real session about `asked_then`.
        asked_then: the prompt of that session.
        folder: the workspace of `episode`, materialised.

    Raises:
        TrainerError: the pattern does not say which session and project it belongs to.
    """

    def __init__(self, pattern: Recorded, asked_then: str, session: str, episode: DemoEpisode, folder: Path) -> None:
        was = next((value for name, value in pattern.headers.items() if name.lower() == SESSION_HEADER), "")
        root = project_root(json.loads(pattern.body))
        text = pattern.body.decode()
        if not was or not root or _quoted(asked_then) not in text:
            raise TrainerError("the request of Claude Code does not name its session, project and prompt")
        for before, after in ((was, session), (root, str(folder)), (asked_then, episode.prompt)):
            text = text.replace(_quoted(before), _quoted(after))
        kept = {name: value for name, value in pattern.headers.items() if name.lower() not in _OF_A_CONNECTION}
        self._headers = {name: session if value == was else value for name, value in kept.items()}
        self._target = pattern.target
        self._body: dict[str, Any] = json.loads(text)
        self._tools = WorkspaceTools(folder)
        self.id = session
        self.episode = episode
        self.models: list[str] = []
        """Who answered each request, as the client sees it."""
        self.answer: str | None = None
        """The final text; None while there is none."""

    def go_on(self, gateway: str, requests: int = MAX_REQUESTS) -> None:
        """Sends up to so many requests, one after the other, and executes the calls that come back.

        Args:
            gateway: base URL.

        Raises:
            TrainerError: a request was not answered.
        """
        for _ in range(requests):
            if self.answer is None and len(self.models) < MAX_REQUESTS:
                self._turn(gateway)

    def _turn(self, gateway: str) -> None:
        message = self._ask(gateway)
        self.models.append(str(message["model"]))
        results = [self._result(block) for block in message["content"] if block["type"] == "tool_use"]
        if not results:
            self.answer = "\n".join(block["text"] for block in message["content"] if block["type"] == "text")
            return
        turns = [{"role": "assistant", "content": message["content"]}, {"role": "user", "content": results}]
        self._body["messages"] += turns

    def _result(self, call: dict[str, Any]) -> dict[str, Any]:
        done = self._tools.run(call["name"], call["input"])
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": done.text}
        return result | ({"is_error": True} if done.is_error else {})

    def _ask(self, gateway: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection(urlsplit(gateway).netloc, timeout=_TIMEOUT)
        try:
            connection.request("POST", self._target, json.dumps(self._body).encode(), self._headers)
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise TrainerError(f"{gateway}: status {response.status} in session {self.id}: {body[:200]!r}")
            return message_of(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TrainerError(f"{gateway}: no answer in session {self.id} ({type(error).__name__}: {error})") from None
        finally:
            connection.close()


def _quoted(text: str) -> str:
    """The text as it stands inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
