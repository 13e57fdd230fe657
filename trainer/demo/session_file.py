"""A session file in the format of Claude Code 2.1.330: the records that a teacher's session leaves behind.

One line per content block, `message.id`, `requestId` and `usage` shared by the blocks of a message, every record
chained to the one before by `parentUuid`, parallel results to their own call. Ids and times are drawn from the
session's seed. What the demo has no use for (skill listings, prompt snapshots, blobs of the exact request) is left out.
"""

from __future__ import annotations

import base64
import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from trainer.demo.scripted_teacher import Call
from trainer.demo.tools import TOOLS, ToolResult
from trainer.run_folder import content_hash

CLIENT_VERSION = "2.1.330"
TEACHER = "scripted-teacher-1"
SYSTEM_PROMPT = "You are a coding agent. Work in small steps, use the tools, then answer."
EMPTY_THINKING_SHARE = 0.3
"""Share of messages that hold a signed thinking block whose text was withheld, as `claude -p` records it."""


def uuid_from(rng: random.Random) -> str:
    """A version 4 UUID out of a seeded generator."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def api_tools() -> list[dict[str, Any]]:
    """The demo's tools as the Messages API spells them."""
    functions = [tool["function"] for tool in TOOLS]
    return [{"name": f["name"], "description": f["description"], "input_schema": f["parameters"]} for f in functions]


@dataclass
class SessionFile:
    """Collects records and appends them to the file on `flush`, as Claude Code's own writer lags behind the work."""

    path: Path
    """Given: the project's folder of sessions; from then on the file."""
    cwd: str
    rng: random.Random
    """Source of all ids and times; the session's id is drawn first."""
    clock: datetime
    session_id: str = field(init=False)
    prompt_id: str = field(init=False)
    _lines: list[str] = field(default_factory=list)
    _parent: str | None = None
    _usage: dict[str, Any] = field(default_factory=dict)
    _input_tokens: int = 700
    _output_tokens: int = 0

    def __post_init__(self) -> None:
        self.session_id = uuid_from(self.rng)
        self.prompt_id = uuid_from(self.rng)
        self.path = self.path / f"{self.session_id}.jsonl"
        self._started = self.clock

    def draw_id(self, prefix: str) -> str:
        """An id like `toolu_01…`, 24 hex digits behind the prefix."""
        return f"{prefix}01{self.rng.getrandbits(96):024x}"

    def advance(self, low: int, high: int) -> int:
        """Lets between `low` and `high` ms pass and returns how many."""
        passed = self.rng.randint(low, high)
        self.clock += timedelta(milliseconds=passed)
        return passed

    @property
    def now(self) -> str:
        """The session's time in ISO 8601 with milliseconds."""
        return self.clock.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def flush(self) -> None:
        """Appends what was collected since the last flush."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write("".join(self._lines))
        self._lines.clear()

    def _note(self, **record: Any) -> None:
        """A record outside the chain."""
        self._lines.append(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")

    def _chain(self, record: dict[str, Any], parent: str | None = None) -> str:
        """A record in the chain; returns its uuid."""
        identity = uuid_from(self.rng)
        place = {"userType": "external", "entrypoint": "sdk-cli", "cwd": self.cwd, "sessionId": self.session_id}
        linked = {"parentUuid": parent or self._parent, "isSidechain": False, **record}
        self._note(**linked, uuid=identity, timestamp=self.now, **place, version=CLIENT_VERSION, gitBranch="main")
        self._parent = identity
        return identity

    def user_prompt(self, prompt: str) -> None:
        """The person's prompt, and the shape of the request that it leads to."""
        session = {"sessionId": self.session_id}
        self._note(type="queue-operation", operation="enqueue", timestamp=self.now, **session, content=prompt)
        self._note(type="queue-operation", operation="dequeue", timestamp=self.now, **session)
        self._chain(
            {
                "promptId": self.prompt_id,
                "type": "user",
                "message": {"role": "user", "content": prompt},
                "permissionMode": "bypassPermissions",
                "promptSource": "sdk",
                "turnOrigin": "sdk",
                "turnPosition": {"promptIndex": 0, "turnIndex": 1},
            }
        )
        shape = {"system": [{"type": "text", "text": SYSTEM_PROMPT}], "tools": api_tools()}
        named = {"shapeHash": content_hash(shape), "timestamp": self.now, "version": CLIENT_VERSION}
        self._note(type="api-request-shape", **session, **named, shape=shape)
        self._input_tokens += len(prompt) // 4

    def assistant(self, text: str, calls: Sequence[tuple[str, Call]] = ()) -> list[str]:
        """One message: sometimes withheld thinking, the text, the calls with their ids. Returns the calls' uuids."""
        blocks: list[dict[str, Any]] = []
        if self.rng.random() < EMPTY_THINKING_SHARE:
            signature = base64.b64encode(self.rng.randbytes(48)).decode()
            blocks.append({"type": "thinking", "thinking": "", "signature": signature})
        blocks.append({"type": "text", "text": text})
        blocks += [
            {"type": "tool_use", "id": identity, "name": call.name, "input": call.arguments} for identity, call in calls
        ]
        written = sum(len(json.dumps(block)) for block in blocks) // 4
        usage = {
            "input_tokens": self._input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": written,
            "service_tier": "standard",
        }
        self._input_tokens += written
        self._output_tokens += written
        message = {
            "id": self.draw_id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": TEACHER,
            "stop_reason": "tool_use" if calls else "end_turn",
            "stop_sequence": None,
            "usage": usage,
        }
        request = self.draw_id("req_")
        lines: list[str] = []
        for index, block in enumerate(blocks):
            self.advance(20, 200)
            outer = {"apiBlockIndex": index, "requestId": request, "requestedModel": TEACHER}
            outer |= {"effort": "medium", "perTurnEffort": "medium", "madeBy": "model"}
            if block["type"] == "thinking":
                outer |= {"thinkingDisplay": "omitted"}
            lines.append(self._chain({"message": {**message, "content": [block]}, "type": "assistant", **outer}))
        return lines[len(lines) - len(calls) :] if calls else []

    def tool_result(self, identity: str, parent: str, tool: str, result: ToolResult) -> None:
        """What a call gave back, chained to the record of the call."""
        content: dict[str, Any] = {"tool_use_id": identity, "type": "tool_result", "content": result.text}
        if result.is_error or tool == "Bash":
            content["is_error"] = result.is_error
        bare = result.text.removeprefix("<tool_use_error>").removesuffix("</tool_use_error>")
        record: dict[str, Any] = {
            "promptId": self.prompt_id,
            "type": "user",
            "message": {"role": "user", "content": [content]},
            "toolUseResult": result.structured if result.structured is not None else f"Error: {bare}",
            "sourceToolAssistantUUID": parent,
        }
        if tool == "Bash":
            record["sandboxed"] = False
        if not result.validation:
            record["permissionDecision"] = {"decision": "accept", "source": "config", "reasonType": "mode"}
        self._chain(record, parent)
        self._input_tokens += len(result.text) // 4

    def end(self, prompt: str) -> None:
        """The records that Claude Code writes when the turn is over."""
        self._chain(
            {
                "type": "system",
                "subtype": "stop_hook_summary",
                "hookCount": 1,
                "hookErrors": [],
                "preventedContinuation": False,
                "stopReason": "",
                "hasOutput": False,
                "level": "suggestion",
            }
        )
        session = {"sessionId": self.session_id}
        self._note(type="last-prompt", lastPrompt=prompt, leafUuid=self._parent, **session)
        used = {"inputTokens": self._input_tokens, "outputTokens": self._output_tokens}
        duration = int((self.clock - self._started).total_seconds() * 1000)
        self._note(type="cost-state", **session, totalCostUSD=0, totalDuration=duration, modelUsage={TEACHER: used})
