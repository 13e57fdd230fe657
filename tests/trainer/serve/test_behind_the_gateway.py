"""Claude Code → gateway → `claude-trainer serve`: the student's turns reach the client, its faults do not."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))

from loopback_servers import Running, Upstream, reply

from trainer.config import Config, DatasetConfig, RolloutConfig
from trainer.rollout.controller import Controller, open_rollout
from trainer.rollout.gateway import DECISIONS, Gateway
from trainer.rollout.request_guard import SESSION_HEADER

TOOLS = [
    {"name": name, "input_schema": {"type": "object", "properties": {key: {"type": "string"}}, "required": [key]}}
    for name, key in (("Bash", "command"), ("Read", "file_path"))
]


@pytest.fixture
def house(served: Any, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The gateway's address, all sessions the student's, and its folder."""
    with ExitStack() as stack:
        teacher = stack.enter_context(Upstream(lambda _: [reply([{"type": "text", "text": "teacher"}])]))
        rollout = RolloutConfig(weights=[100], teacher_url=teacher.url, local_url=served.url)
        config = Config(
            models=str(tmp_path), rollout=rollout, dataset=DatasetConfig(system_prompt="You are a coding agent.")
        )
        state = open_rollout(tmp_path / "rollout", rollout)
        stack.callback(state.close)
        Controller(state, config).admit(who="test", force="test")
        running = stack.enter_context(Running(Gateway(config, state)))
        yield running.url, tmp_path / "rollout"


def ask(url: str, prompt: str) -> dict[str, Any]:
    system = [{"type": "text", "text": "Primary working directory: /home/dev/project"}]
    body = {"model": "claude-x", "max_tokens": 500, "system": system, "tools": TOOLS}
    body["messages"] = [{"role": "user", "content": prompt}]
    response = httpx2.post(url + "/v1/messages", json=body, headers={SESSION_HEADER: "s-1"}, timeout=60)
    assert response.status_code == 200
    message: dict[str, Any] = response.json()
    return message


def decision(folder: Path) -> dict[str, Any]:
    path = folder / DECISIONS
    deadline = time.monotonic() + 20
    while not path.exists():  # the line follows the reply
        assert time.monotonic() < deadline
        time.sleep(0.01)
    last: dict[str, Any] = json.loads(path.read_text().splitlines()[-1])
    return last


def test_students_turn_reaches_the_client_with_absolute_paths(house: tuple[str, Path]) -> None:
    url, folder = house
    said, read = ask(url, "What is x?")["content"]
    assert said["text"] == "I read <it>."
    assert read["input"] == {"file_path": "/home/dev/project/src/a.py"}
    assert decision(folder)["answered_by"] == "student"


@pytest.mark.parametrize(("prompt", "reason"), [("Break.", "malformed_call"), ("word " * 3000, "context_overflow")])
def test_teacher_answers_where_the_student_cannot(house: tuple[str, Path], prompt: str, reason: str) -> None:
    url, folder = house
    assert ask(url, prompt)["content"] == [{"type": "text", "text": "teacher"}]
    assert (decision(folder)["answered_by"], decision(folder)["reason"]) == ("teacher", reason)
