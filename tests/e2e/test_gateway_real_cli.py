"""The real Claude Code behind the gateway: it waits through pings, runs the student's calls, and names who answered."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from claude_code_cli import ClaudeCode

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer" / "rollout"))

from loopback_servers import Asked, Running, Upstream, http, reply

from claude_capture.ingest import import_sessions
from claude_capture.trace_storage import TraceStore
from trainer.config import Config, RolloutConfig
from trainer.export.student_prompt import StudentPrompt
from trainer.rollout.controller import Controller, open_rollout
from trainer.rollout.gateway import DECISIONS, Gateway
from trainer.rollout.local_student import Student
from trainer.rollout.message_stream import events

pytestmark = [pytest.mark.claude, pytest.mark.timeout(300)]


def _student(asked: Asked) -> list[bytes]:
    """Reads a.py, then says what it saw; each turn takes longer than the gateway is silent."""
    time.sleep(1)
    results = [
        block for message in asked.json["messages"] for block in message["content"] if block["type"] == "tool_result"
    ]
    if results:
        return [reply([{"type": "text", "text": f"It says: {results[-1]['content']}"}])]
    read = {"type": "tool_use", "id": "call_0", "name": "Read", "input": {"file_path": "a.py"}}
    return [reply([{"type": "text", "text": "I read it."}, read])]


def _teacher(asked: Asked) -> list[bytes]:
    """Rescues with one sentence."""
    message: dict[str, Any] = {
        "id": "msg_t", "type": "message", "role": "assistant", "model": "glm-5", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "The teacher says hello."}], "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }  # fmt: skip
    if asked.method != "POST":
        return [http("404 Not Found", b"{}")]
    return [http("200 OK", b"".join(events(message)), "content-type: text/event-stream")]


@pytest.mark.parametrize("fails", [False, True], ids=["student", "rescued"])
def test_claude_code_behind_the_gateway(claude_binary: Path, tmp_path: Path, fails: bool) -> None:
    def local(asked: Asked) -> list[bytes]:
        told = _student(asked)
        seen = any(block["type"] == "tool_result" for m in asked.json["messages"] for block in m["content"])
        return [http("500 Error", b"")] if fails and seen else told

    with ExitStack() as stack:
        teacher, server = stack.enter_context(Upstream(_teacher)), stack.enter_context(Upstream(local))
        rollout = RolloutConfig(weights=[100], teacher_url=teacher.url, local_url=server.url, ping_seconds=0.2)
        config = Config(models=str(tmp_path), rollout=rollout)
        state = open_rollout(tmp_path / "rollout", rollout)
        stack.callback(state.close)
        Controller(state, config).admit(who="test", force="test")
        student = Student("cc-claude-agent", "llama-claude-ppo-v1", StudentPrompt(config.dataset))
        running = stack.enter_context(Running(Gateway(config, state, student=student)))
        claude = ClaudeCode(claude_binary, tmp_path / "claude", running.url)
        (claude.project / "a.py").write_text("x = 42")
        done = claude.prompt("What is in a.py?", "--output-format", "json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)["result"]
    assert answer == ("The teacher says hello." if fails else "It says: 1\tx = 42")
    lines = [json.loads(line) for line in (tmp_path / "rollout" / DECISIONS).read_text().splitlines()]
    turns = [line for line in lines if line["reason"] != "no_tools"]
    assert [line["answered_by"] for line in turns] == ["student", "teacher" if fails else "student"]
    assert len({line["session"] for line in lines}) == 1
    import_sessions([claude.config / "projects"], tmp_path / "data")
    [trace] = TraceStore.of(tmp_path / "data").load()
    assert [step.model for step in trace.steps] == ["llama-claude-ppo-v1", "glm-5" if fails else "llama-claude-ppo-v1"]
    assert trace.teacher.student == (None if fails else "llama-claude-ppo-v1")
    assert [call.tool for call in trace.tool_calls] == ["Read"]
