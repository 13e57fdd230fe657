"""Sessions of a scripted Claude Code through the real gateway, while local server or teacher fail on purpose.

A session is a prompt and three turns: Read, Bash, an answer. Both upstreams play the same script. Each request meets
the fault that is tried with a given probability. A session fails when a turn does not arrive whole and executable.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
from loopback_servers import Running

from trainer.config import Config, RolloutConfig
from trainer.export.student_prompt import StudentPrompt
from trainer.loopback import bind
from trainer.rollout.controller import Controller, open_rollout
from trainer.rollout.gateway import DECISIONS, Gateway
from trainer.rollout.local_student import Student
from trainer.rollout.message_stream import events, message_of

FAULTS = (
    "refuse", "reset_before", "reset_midway", "stall", "slow_bytes", "429", "529", "500", "malformed_json",
    "malformed_sse", "wrong_tool", "wrong_arguments", "context_overflow", "empty_reply", "endless_reply",
)  # fmt: skip
TEACHER_FAULTS = ("refuse", "reset_before", "reset_midway", "stall", "429", "529", "500")
"""What the gateway can see of the teacher: the content of its replies is not the gateway's business."""
Side = Literal["local", "teacher"]
PATIENCE = 3.0
"""Seconds until the client gives up on a silent reply."""
TOOLS = [
    {
        "name": name,
        "description": f"{name}s.",
        "input_schema": {
            "type": "object",
            "properties": {key: {"type": "string"}},
            "required": [key],
            "additionalProperties": False,
        },
    }
    for name, key in (("Read", "file_path"), ("Bash", "command"))
]
_TURNS: list[list[dict[str, Any]]] = [
    [{"type": "text", "text": "I read."}, {"type": "tool_use", "name": "Read", "input": {"file_path": "/p/a.py"}}],
    [{"type": "tool_use", "name": "Bash", "input": {"command": "pytest -q"}}],
    [{"type": "text", "text": "Done: é 你好."}],
]


@dataclass
class Result:
    """What became of the sessions."""

    fault: str
    sessions: int
    injected: Counter[str] = field(default_factory=Counter)
    """Faults that were met, by upstream."""
    failed: set[str] = field(default_factory=set)
    """Sessions in which a turn did not arrive."""
    named: dict[str, str] = field(default_factory=dict)
    """Sessions of which the gateway says that it had no answer to give, and why."""
    rescued: Counter[str] = field(default_factory=Counter)
    """Requests that the teacher answered for the student, by reason."""
    pings: int = 0


class ScriptedApi:
    """A Messages API that plays the script, and fails as often as it is told to."""

    def __init__(self, name: Side, fault: str, share: float, seed: int) -> None:
        self.name = name
        self._fault = fault
        self._share = share
        self._draw = random.Random(f"{name}{seed}")
        self._listener = bind("127.0.0.1", 0)
        self.port = int(self._listener.getsockname()[1])
        self.injected = 0
        self._working: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ScriptedApi:
        self._server = await asyncio.start_server(self._connected, sock=self._listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)

    async def maybe_refuse(self) -> bool:
        """Stops listening, if the fault says so; to be undone by `listen`."""
        if self._fault != "refuse" or self._draw.random() >= self._share:
            return False
        self.injected += 1
        self._server.close()
        await self._server.wait_closed()
        return True

    async def listen(self) -> None:
        """Listens again, where it was before."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._working.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            asked = json.loads(await reader.readexactly(length))
            met = self._fault not in ("none", "refuse") and self._draw.random() < self._share
            self.injected += met
            await self._answer(asked, self._fault if met else "", writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._working.discard(task)
            writer.close()

    async def _answer(self, asked: dict[str, Any], fault: str, writer: asyncio.StreamWriter) -> None:
        streamed = bool(asked.get("stream"))
        place = sum(message["role"] == "assistant" for message in asked["messages"])
        content = [dict(block) for block in _TURNS[place]]
        for block in content:
            if block["type"] == "tool_use":
                block["id"] = f"toolu_{uuid.uuid4().hex[:12]}"
                if fault == "wrong_tool":
                    block["name"] = "ReadFile"
                elif fault == "wrong_arguments":
                    block["input"] = {"path": 3}
        if fault == "empty_reply" or (fault.startswith("wrong") and place == 2):
            content = []
        message = {
            "id": "m", "type": "message", "role": "assistant", "model": self.name, "content": content,
            "stop_reason": "tool_use" if place < 2 else "end_turn", "stop_sequence": None,
            "usage": {"input_tokens": 9, "output_tokens": 3},
        }  # fmt: skip
        body = b"".join(events(message)) if streamed else json.dumps(message).encode()
        kind = b"text/event-stream" if streamed else b"application/json"
        status = b"200 OK"
        if fault in ("429", "529", "500"):
            status, kind = fault.encode() + b" Error", b"application/json"
            body = b'{"type":"error","error":{"type":"overloaded_error","message":"as scripted"}}'
        elif fault == "context_overflow":
            status, body = b"400 Bad Request", b'{"error":{"code":400,"type":"exceed_context_size_error"}}'
        elif fault == "malformed_json":
            body = body[:-20]
        elif fault == "malformed_sse":
            kind, body = b"text/event-stream", b"event: message_start\ndata: {broken\n\n" * 3
        if fault == "reset_before":
            _reset(writer)
            return
        if fault == "stall":
            await asyncio.sleep(60)
        endless = fault in ("slow_bytes", "endless_reply")
        framing = b"transfer-encoding: chunked" if endless else b"content-length: %d" % len(body)
        writer.write(b"HTTP/1.1 %b\r\ncontent-type: %b\r\nconnection: close\r\n%b\r\n\r\n" % (status, kind, framing))
        if fault == "reset_midway":
            writer.write(body[: len(body) // 2])
            await writer.drain()
            await asyncio.sleep(0.01)
            _reset(writer)
            return
        while endless:
            writer.write(b"1\r\n \r\n" if fault == "slow_bytes" else b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.02 if fault == "slow_bytes" else 0)
        writer.write(body)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Cuts the connection without a goodbye."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Failed(Exception):
    """A turn did not arrive whole and executable."""


async def turn(client: aiohttp.ClientSession, url: str, session: str, messages: list[Any], result: Result) -> Any:
    """One request of the client's; raises Failed."""
    body = {"model": "claude-x", "max_tokens": 100, "stream": True, "tools": TOOLS, "messages": messages}
    body["system"] = "Primary working directory: /p"
    try:
        timeout = aiohttp.ClientTimeout(total=30, sock_read=PATIENCE)
        headers = {"x-claude-code-session-id": session}
        async with client.post(f"{url}/v1/messages", json=body, headers=headers, timeout=timeout) as response:
            data = await response.read()
            if response.status != 200:
                raise Failed(f"status {response.status}")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Failed(type(error).__name__) from None
    result.pings += data.count(b"event: ping")
    try:
        message = message_of(data)
    except ValueError as error:
        raise Failed(str(error)) from None
    shown = [{key: value for key, value in block.items() if key != "id"} for block in message["content"]]
    if shown != _TURNS[sum(one["role"] == "assistant" for one in messages)]:
        raise Failed("another turn than the script's")
    return message


async def _session(client: aiohttp.ClientSession, url: str, name: str, apis: list[ScriptedApi], result: Result) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is wrong in a.py?"}]
    for _ in _TURNS:
        refusing = [api for api in apis if await api.maybe_refuse()]
        try:
            message = await turn(client, url, name, messages, result)
        except Failed:
            result.failed.add(name)
            return
        finally:
            for api in refusing:
                await api.listen()
        messages.append({"role": "assistant", "content": message["content"]})
        calls = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": call, "content": f"result {call}"} for call in calls]
        messages.append({"role": "user", "content": results})


async def run_kit(
    folder: Path, fault: str, at: tuple[Side, ...], *, sessions: int = 200, share: float = 0.2, seed: int = 0
) -> Result:
    """All sessions are the student's; `at` says which upstreams fail."""
    result = Result(fault, sessions)
    local = ScriptedApi("local", fault if "local" in at else "none", share, seed)
    teacher = ScriptedApi("teacher", fault if "teacher" in at else "none", share, seed)
    async with local, teacher:
        rollout = RolloutConfig(
            weights=[100] if "local" in at else [0], shadow=False, breaker_seconds=0.05,
            teacher_url=f"http://127.0.0.1:{teacher.port}", local_url=f"http://127.0.0.1:{local.port}",
            local_seconds=1, ping_seconds=0.2, rollback=False,  # faults in a fifth of all replies would end it at once
        )  # fmt: skip
        config = Config(models=str(folder), rollout=rollout)
        state = open_rollout(folder / "state", rollout)
        Controller(state, config).admit(who="test", force="test")
        student = Student("cc-claude-agent", "llama-claude-ppo-v1", StudentPrompt(config.dataset))
        names = [f"s{number}" for number in range(sessions)]
        at_once = asyncio.Semaphore(1 if fault == "refuse" else 20)  # who stops listening refuses everybody

        async def one(name: str) -> None:
            async with at_once:
                await _session(client, running.url, name, [local, teacher], result)

        with Running(Gateway(config, state, student=student)) as running:
            async with aiohttp.ClientSession() as client:
                await asyncio.gather(*map(one, names))
            await asyncio.sleep(0.1)
        state.close()
    result.injected.update({"local": local.injected, "teacher": teacher.injected})
    for line in map(json.loads, (folder / "state" / DECISIONS).read_text("utf-8").splitlines()):
        if line["pinned"] == "student" and line["answered_by"] == "teacher":
            result.rescued[line["reason"]] += 1
        if line["ending"] != "complete" or line["status"] >= 400:
            why = f"teacher: {line['ending'] if line['ending'] != 'complete' else line['status']}"
            result.named[line["session"]] = why
    return result
