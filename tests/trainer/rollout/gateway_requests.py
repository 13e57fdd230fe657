"""What the tests of the gateway ask and look at."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx2
from loopback_servers import House, http

from trainer.rollout.gateway import DECISIONS

get = partial(httpx2.get, verify=False, trust_env=False, timeout=120)
post = partial(httpx2.post, verify=False, trust_env=False, timeout=120)  # loading certificates takes longer than a test
CANARY = "sk-ant-canary-7f3a"
ROOT = "/home/someone/grid"
READ = {
    "name": "Read",
    "description": "Reads a file. With much more to say about it.",
    "input_schema": {
        "type": "object",
        "properties": {"file_path": {"type": "string"}, "limit": {"type": "integer"}},
        "required": ["file_path"],
        "additionalProperties": False,
    },
}
CALL = {"type": "tool_use", "id": "call_0", "name": "Read", "input": {"file_path": "data/grid.json"}}
TEACHER_SAYS = http("200 OK", b'{"from": "teacher"}', "content-type: application/json")


Build = Callable[..., House]


def question(**changes: Any) -> dict[str, Any]:
    """A request as Claude Code sends it, in small."""
    body: dict[str, Any] = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 32000,
        "stream": False,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330; cch=abc;"},
            {"type": "text", "text": f"You are …\n - Primary working directory: {ROOT}\n", "cache_control": {}},
        ],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "<system-reminder>Be brief.</system-reminder>"},
                    {
                        "type": "text",
                        "text": f"What is in {ROOT}/data/grid.json?",
                        "cache_control": {"type": "ephemeral"},
                    },
                ],
            }
        ],
        "tools": [READ],
        "metadata": {"user_id": CANARY},
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": []},
        "output_config": {"effort": "high"},
    }
    return body | changes


def ask(house: House, body: Any = None, session: str = "s1", **headers: str) -> httpx2.Response:
    secret = {"x-api-key": CANARY, "authorization": f"Bearer {CANARY}", "anthropic-beta": "context-management-2025"}
    names = {"x-claude-code-session-id": session, "content-type": "application/json"}
    return post(
        f"{house.url}/v1/messages?beta=true",
        content=json.dumps(question() if body is None else body),
        headers=secret | names | headers,
    )


def decisions(house: House, count: int = 1) -> list[dict[str, Any]]:
    """What was written down, once it is at least `count` lines: a line follows the end of its reply."""
    path = house.folder / DECISIONS
    until(lambda: path.exists() and path.read_bytes().count(b"\n") >= count)
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Waits for something that happens soon."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def metric(house: House, name: str, **labels: str) -> float:
    """A value of the metrics page; 0 where it is not there."""
    shown = "".join(f'{key}="{value}",' for key, value in sorted(labels.items())).rstrip(",")
    wanted = f"{name}{{{shown}}} " if labels else f"{name} "
    text = httpx2.get(f"{house.url}/metrics", verify=False, trust_env=False).text
    return next((float(line.removeprefix(wanted)) for line in text.splitlines() if line.startswith(wanted)), 0.0)
