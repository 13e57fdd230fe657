"""A Messages API on loopback that answers from a script, so that the real Claude Code can run without a model.

A prompt names its script as `[[script:NAME]]`; the number of assistant messages since then says which turn comes next,
and the last turn repeats. Everything else that Claude Code asks for is answered with a plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from trainer.demo.messages_api import Recorded, assistant_message, serve_messages

MARKER = re.compile(r"\[\[script:(\w+)\]\]")


@dataclass(frozen=True)
class Call:
    """A tool call of the script; its id is known beforehand."""

    id: str
    tool: str
    input: Mapping[str, Any]


@dataclass(frozen=True)
class Turn:
    """One assistant message."""

    thinking: str = ""
    text: str = ""
    calls: tuple[Call, ...] = ()

    def blocks(self) -> list[dict[str, Any]]:
        """The content blocks of the message."""
        blocks: list[dict[str, Any]] = []
        if self.thinking:
            blocks.append({"type": "thinking", "thinking": self.thinking, "signature": "c2NyaXB0ZWQ="})
        if self.text:
            blocks.append({"type": "text", "text": self.text})
        blocks += [
            {"type": "tool_use", "id": call.id, "name": call.tool, "input": dict(call.input)} for call in self.calls
        ]
        return blocks


Script = Mapping[str, Sequence[Turn]]


def _texts(message: Mapping[str, Any]) -> list[str]:
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    return [block["text"] for block in content or [] if block.get("type") == "text"]


def next_turn(script: Script, messages: Sequence[Mapping[str, Any]]) -> Turn:
    """The turn that follows these messages."""
    for place in range(len(messages) - 1, -1, -1):
        names = [name for text in _texts(messages[place]) for name in MARKER.findall(text)]
        if messages[place]["role"] == "user" and names:
            turns = script[names[-1]]
            done = sum(message["role"] == "assistant" for message in messages[place + 1 :])
            return turns[min(done, len(turns) - 1)]
    return Turn(text="(not in the script)")


def scripted_api(script: Script, handed_out: list[str] | None = None) -> AbstractContextManager[str]:
    """Serves the script; gives the base URL. The ids of the calls it asks for are appended to `handed_out`."""

    def answer(request: Recorded) -> dict[str, Any]:
        asked = json.loads(request.body)
        turn = next_turn(script, asked["messages"])
        if handed_out is not None:
            handed_out.extend(call.id for call in turn.calls)
        return assistant_message(turn.blocks(), asked["model"])

    return serve_messages(answer)
