"""Stage 0: the student answers in the background, only its score is kept, and nobody waits for it."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from gateway_requests import CALL, CANARY, ROOT, Build, ask, decisions, metric, question, until
from loopback_servers import House, Upstream, http, reply

from trainer.config import Config
from trainer.export.student_prompt import StudentPrompt
from trainer.rollout.controller import Controller
from trainer.rollout.local_student import LocalStudent, Student
from trainer.rollout.message_stream import events
from trainer.rollout.rollout_state import SCORES
from trainer.rollout.shadow import score_turn
from trainer.rollout.status_table import notes
from trainer.rollout.upstreams import open_client, upstream

TAUGHT = {
    "id": "msg_t", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "tool_use",
    "content": [CALL | {"input": {"file_path": f"{ROOT}/data/grid.json"}}], "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 2},
}  # fmt: skip
STREAM = b"".join(events(TAUGHT))
SSE = http("200 OK", STREAM, "content-type: text/event-stream")


def scores(house: House, count: int = 1) -> list[dict[str, Any]]:
    path = house.folder / SCORES
    until(lambda: path.exists() and path.read_bytes().count(b"\n") >= count, 60)
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_teacher_answers_and_the_student_is_scored_against_it(build: Build) -> None:
    house = build(lambda _: [SSE], lambda _: [reply([CALL])], weight=0)
    assert ask(house, question(stream=True)).content == STREAM
    line = scores(house)[0]
    assert (line["session"], line["reason"], line["total"], line["same_tools"]) == ("s1", "", 1.0, True)
    assert metric(house, "claude_gateway_shadow_total", outcome="scored") == 1
    assert metric(house, "claude_gateway_shadow_reward_count") == 1
    asked = house.local.asked[0]
    assert CANARY.encode() not in asked.raw
    assert stat.S_IMODE((house.folder / SCORES).stat().st_mode) == 0o600
    for path in house.folder.iterdir():
        assert b"grid.json" not in path.read_bytes(), path
        assert CANARY.encode() not in path.read_bytes(), path


def test_nobody_waits_and_what_comes_too_fast_is_dropped_and_counted(build: Build) -> None:
    go_on = threading.Event()
    house = build(lambda _: [SSE], lambda _: [go_on, reply([CALL])], weight=0, shadow_queue=2)
    ask(house, question(stream=True))
    until(lambda: len(house.local.asked) == 1, 60)
    began = time.monotonic()
    for number in range(5):
        assert ask(house, question(stream=True), session=f"s{number}").content == STREAM
    assert time.monotonic() - began < 20
    until(lambda: metric(house, "claude_gateway_shadow_total", outcome="dropped") == 3)
    go_on.set()
    assert sum(line["dropped"] for line in scores(house, 3)) == 3


NO_SHADOW: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "beyond stage zero": ({"weight": 0.01}, {}),
    "no tools": ({"weight": 0}, {"tools": []}),
    "off": ({"weight": 0, "shadow": False}, {}),
}


@pytest.mark.parametrize(("keys", "changes"), NO_SHADOW.values(), ids=NO_SHADOW)
def test_no_shadow_beyond_stage_zero_without_tools_or_where_it_is_off(
    build: Build, keys: dict[str, Any], changes: dict[str, Any]
) -> None:
    house = build(lambda _: [SSE], lambda _: [reply([CALL])], **keys)
    assert ask(house, question(stream=True, **changes)).content == STREAM
    assert decisions(house)[0]["pinned"] == "teacher"
    time.sleep(0.2)  # what is cast starts its process right after the reply
    assert shadow_processes() == []
    assert house.local.asked == []


def shadow_processes() -> list[int]:
    """Children of this process that score turns."""
    parents = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    children = [child for parent in parents for child in parent.read_text().split()]
    return [int(c) for c in children if b"trainer.rollout.shadow" in Path(f"/proc/{c}/cmdline").read_bytes()]


def score(answer: Any, taught: bytes = STREAM, encoding: str = "", **changes: Any) -> dict[str, Any]:
    """The score of one turn, in this process."""

    async def ask_student(url: str) -> dict[str, Any]:
        async with open_client() as client:
            student = Student("m", "llama-claude-ppo-v1", StudentPrompt(Config().dataset))
            server = upstream(url, "rollout.local_url", encrypted=False)
            local = LocalStudent(student, server, client, seconds=20, repeats=3)
            return await score_turn(local, json.dumps(question(**changes)).encode(), taught, encoding)

    with Upstream(lambda _: [answer]) as local:
        return asyncio.run(ask_student(local.url))


def test_the_score_says_how_like_the_teachers_turn_it_is() -> None:
    assert score(reply([CALL]))["total"] == 1
    other = score(reply([CALL | {"input": {"file_path": "other.py"}}]))
    assert (other["total"] < 0, other["same_tools"]) == (True, True)
    spoken = score(reply([{"type": "text", "text": "It holds transformers."}]))
    assert (spoken["total"] < 0, spoken["same_tools"]) == (True, False)
    assert score(http("500 Error", b""))["reason"] == "http_500"
    assert score(http("500 Error", b""))["total"] == -1
    assert score(reply([CALL | {"name": "Nothing"}]))["reason"] == "unknown_tool"
    assert score(reply([CALL], model="llama-claude-ppo-v7"))["reason"] == "wrong_model"


def test_compressed_and_unreadable_replies() -> None:
    assert score(reply([CALL]), gzip.compress(STREAM), "gzip")["total"] == 1
    assert score(reply([CALL]), json.dumps(TAUGHT).encode())["total"] == 1
    cut = gzip.compress(STREAM)[:-9]
    for taught, encoding in ((STREAM, "br"), (STREAM[:200], ""), (b"x", "gzip"), (b"{}", ""), (cut, "gzip")):
        assert score(reply([CALL]), taught, encoding) == {"reason": "unreadable_teacher"}


def test_a_process_that_dies_is_replaced(build: Build) -> None:
    house = build(lambda _: [SSE], lambda _: [reply([CALL])], weight=0)
    ask(house, question(stream=True))
    assert scores(house)[0]["total"] == 1
    [shadow] = shadow_processes()
    os.kill(shadow, signal.SIGKILL)
    ask(house, question(stream=True))
    ask(house, question(stream=True))
    assert [line["reason"] for line in scores(house, 3)] == ["", "shadow_failed", ""]


def test_a_process_that_dies_at_each_start_is_left_alone_for_longer_and_longer(build: Build, tmp_path: Path) -> None:
    house = build(
        lambda _: [SSE], lambda _: [reply([CALL])], weight=0, shadow_queue=4, student=str(tmp_path / "gone.gguf")
    )
    for number in range(4):
        ask(house, question(stream=True), session=f"s{number}")
    lines = scores(house, 3)
    assert [line["deaths"] for line in lines[:3]] == [1, 2, 3]
    assert lines[2]["t"] - lines[1]["t"] >= 2, "the second pause is two seconds"
    assert "gone.gguf does not exist" in lines[0]["fault"]
    found = Controller(house.state, Config(models=str(tmp_path))).status().stages[0]
    assert found.figures.shadow is not None
    assert found.figures.shadow.deaths >= 3
    [told] = [line for line in notes(found) if "died" in line]
    assert "it is down: rollout.student:" in told
