"""The teacher of the closed loop: a Messages API on loopback that does what the demo's scripted teacher did.

It stands where the real API would. A prompt of the demo world is answered by its episode's plan, a step for each
request; the calls are executed by whoever asked. Everything else that Claude Code asks for gets one short sentence.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from trainer.demo.messages_api import Recorded, assistant_message, serve_messages
from trainer.demo.scripted_teacher import DemoEpisode
from trainer.demo.session_file import TEACHER
from trainer.rollout.student_view import project_root
from trainer.student.workspace_paths import to_absolute


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


def serve_teacher(teacher: Teacher) -> AbstractContextManager[str]:
    """Serves the teacher on loopback; gives the base URL."""

    def answer(request: Recorded) -> dict[str, Any]:
        asked = json.loads(request.body)
        if teacher.recording and asked.get("tools"):
            teacher.recorded.append(request)
        return assistant_message(teacher.blocks(asked), TEACHER)

    return serve_messages(answer)
