"""Stage 0: what would the student have done? Asked in the background, scored against the teacher, shown to nobody.

Each turn of the teacher's is one question: given the same conversation, what does the student do next? Both turns
become traces of one step, and the behavioural reward compares them. That happens in a process of its own with low
priority, one turn at a time, so that it costs nobody time; turns that come faster are dropped and counted. Content
goes to it through a pipe and stays in memory; only the score is written down. A process that dies again and again,
because the student's file is gone or memory is short, is started again after longer and longer pauses; status says why.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from claude_capture.prompts import command_line, kind_of_text
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.rollout.bounded_log import BoundedLog
from trainer.rollout.local_student import Fallback, LocalStudent, student_of
from trainer.rollout.message_stream import message_of
from trainer.rollout.metrics import Metrics
from trainer.rollout.rollout_state import SCORES, Visit
from trainer.rollout.student_view import SPOKEN
from trainer.rollout.upstreams import open_client, upstream

MAX_TURN = 4 * 1024 * 1024
"""Largest request, and largest reply, in bytes, that is taken into the shadow."""
LONGEST_PAUSE = 300.0
"""Seconds; after the first death it is one second, and twice as long after each further one in a row."""


class Turn(NamedTuple):
    """One turn of the teacher's."""

    session: str
    visit: Visit
    request: bytes
    reply: bytes
    encoding: str
    """Content encoding of the reply."""


class Shadow:
    """The queue of turns and the process that works on them; for one event loop.

    Args:
        folder: the rollout's; scores are appended to SCORES there.
    """

    def __init__(self, config: Config, folder: Path, metrics: Metrics) -> None:
        rollout = config.rollout
        self._config = config
        self._log = BoundedLog(folder / SCORES, rollout.log_bytes, rollout.log_files)
        self._metrics = metrics
        self._turns: asyncio.Queue[Turn] = asyncio.Queue(rollout.shadow_queue)
        self._dropped = 0
        self._deaths = 0
        """In a row."""
        self._outdated = False
        self._worker: asyncio.Task[None] | None = None

    def offer(self, turn: Turn) -> None:
        """Takes a turn, or drops it where enough wait already."""
        if self._worker is None or self._worker.done():
            self._worker = asyncio.ensure_future(self._work())
        try:
            self._turns.put_nowait(turn)
        except asyncio.QueueFull:
            self._dropped += 1
            self._metrics.shadowed.labels("dropped").inc()

    def renew(self) -> None:
        """The student is another one: what waits is given up, and a new process reads who it is."""
        self._outdated = True
        while not self._turns.empty():
            self._turns.get_nowait()

    async def close(self) -> None:
        """Ends the process; what waits is given up."""
        if self._worker is not None:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker

    async def _work(self) -> None:
        """Scores turn after turn. A process that dies costs the turn that it had."""
        process: asyncio.subprocess.Process | None = None
        try:
            while True:
                turn = await self._turns.get()
                if process is not None and self._outdated:
                    await _ended(process)
                    process = None
                try:
                    process = process or await self._started()
                    fault = await self._scored(turn, process)
                except OSError as error:
                    fault = f"it cannot be started ({error.strerror})"
                if fault is None:
                    self._deaths = 0
                    continue
                await _ended(process)
                process = None
                self._deaths += 1
                self._note(turn, {"reason": "shadow_failed", "deaths": self._deaths, "fault": fault})
                await asyncio.sleep(min(2.0 ** (self._deaths - 1), LONGEST_PAUSE))
        finally:
            await _ended(process)

    async def _started(self) -> asyncio.subprocess.Process:
        self._outdated = False
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "trainer.rollout.shadow",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(self._config.model_dump_json().encode() + b"\n")
        return process

    async def _scored(self, turn: Turn, process: asyncio.subprocess.Process) -> str | None:
        """Has one turn scored; why there is no score, where the process has died."""
        assert process.stdin is not None
        assert process.stdout is not None
        head = {"request": len(turn.request), "reply": len(turn.reply), "encoding": turn.encoding}
        line = b""
        with suppress(ConnectionError):
            process.stdin.write(orjson.dumps(head) + b"\n" + turn.request + turn.reply)
            await process.stdin.drain()
        with suppress(ConnectionError):
            line = await process.stdout.readline()
        if not line:
            code = await process.wait()
            return f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        score = orjson.loads(line)
        if "fault" in score:
            return str(score["fault"])
        self._note(turn, score)
        return None

    def _note(self, turn: Turn, score: dict[str, Any]) -> None:
        reason = score["reason"]
        self._metrics.shadowed.labels(reason or "scored").inc()
        if score.get("total") is not None:
            self._metrics.shadow_reward.observe(score["total"])
        line = {"t": round(time.time(), 3), "session": turn.session, "visit": turn.visit.id} | score
        line["dropped"], self._dropped = self._dropped, 0
        with suppress(OSError):
            self._log.append(orjson.dumps(line))


async def _ended(process: asyncio.subprocess.Process | None) -> None:
    """Ends a process, where there is one."""
    if process is not None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def score_turn(student: LocalStudent, request: bytes, reply: bytes, encoding: str) -> dict[str, Any]:
    """Asks the student what the teacher was asked, and compares.

    Returns:
        `reason` (empty, or why there is no score), `total`, `components`, `same_tools`, `seconds`.
    """
    from trainer.reward.behavioral_reward_model import BehavioralRewardModel
    from trainer.student.episode_trace import trace_of

    try:
        taught = _message(_plain(reply, encoding))
        asked = orjson.loads(request)
        prompt = _prompt(asked)
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error):
        return {"reason": "unreadable_teacher"}
    began = time.monotonic()
    try:
        answer = await student.turn(asked)
    except Fallback as fallback:
        return {"reason": str(fallback), "total": -1.0, "seconds": round(time.monotonic() - began, 3)}
    seconds = round(time.monotonic() - began, 3)
    teachers = trace_of([prompt, _spoken(taught)], reference=None, student="teacher")
    students = trace_of([prompt, _spoken(answer)], reference=teachers, student="student")
    found = BehavioralRewardModel().score(students, [teachers])
    components = {name: value for name, value in found.components.model_dump().items() if value is not None}
    tools = [[call.tool for call in trace.tool_calls] for trace in (teachers, students)]
    return {
        "reason": "",
        "total": found.total,
        "components": components,
        "same_tools": tools[0] == tools[1],
        "seconds": seconds,
    }


def _plain(reply: bytes, encoding: str) -> bytes:
    """The reply as text; clients that ask for brotli or zstd cannot be listened to."""
    if encoding in ("", "identity"):
        return reply
    if encoding in ("gzip", "deflate"):
        decoder = zlib.decompressobj(wbits=47)
        text = decoder.decompress(reply, 8 * MAX_TURN)
        if decoder.eof:
            return text
    raise ValueError(encoding)


def _message(reply: bytes) -> dict[str, Any]:
    message: dict[str, Any] = orjson.loads(reply) if reply.lstrip().startswith(b"{") else message_of(reply)
    if message.get("role") != "assistant":
        raise ValueError("no message")
    return message


def _prompt(asked: dict[str, Any]) -> dict[str, Any]:
    """The last thing that a person said."""
    for message in reversed(asked["messages"]):
        content = message["content"] if message["role"] == "user" else []
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        said = [block["text"] for block in blocks if block["type"] == "text" and kind_of_text(block["text"]) in SPOKEN]
        if said:
            return {"role": "user", "content": "\n\n".join(map(command_line, said))}
    return {"role": "user", "content": ""}


def _spoken(message: dict[str, Any]) -> dict[str, Any]:
    """A message of the Messages API as a chat message."""
    blocks = message["content"]
    calls = [
        {"id": str(number), "type": "function", "function": {"name": block["name"], "arguments": block["input"]}}
        for number, block in enumerate(blocks)
        if block["type"] == "tool_use"
    ]
    text = "\n\n".join(block["text"] for block in blocks if block["type"] == "text")
    return {"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {})


async def _main() -> None:
    """Reads the config and then turns from standard input, writes a score for each; ends with its input."""
    with suppress(OSError):
        os.nice(10)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    config = Config.model_validate_json(source.readline())
    rollout = config.rollout
    server = upstream(rollout.local_url, "rollout.local_url", encrypted=False)
    try:
        student = student_of(config)
    except TrainerError as error:
        sink.write(orjson.dumps({"fault": str(error)}) + b"\n")
        return
    async with open_client() as client:
        local = LocalStudent(student, server, client, seconds=rollout.local_seconds, repeats=rollout.loop_calls)
        while line := source.readline():
            head = orjson.loads(line)
            request, reply = source.read(head["request"]), source.read(head["reply"])
            score = await score_turn(local, request, reply, head["encoding"])
            sink.write(orjson.dumps(score) + b"\n")
            sink.flush()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(_main())
