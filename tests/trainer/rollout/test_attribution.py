"""Who answered ends in the session file, in the trace, and keeps the turn out of every dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gateway_requests import CALL, ROOT, Build, ask, question
from loopback_servers import House, http, reply

from claude_capture.claude_trace_schema import Trace
from claude_capture.ingest import import_sessions
from claude_capture.trace_storage import TraceStore
from trainer.config import Config, TeacherRights
from trainer.dataset.behavioral_cloning_builder import build_dataset
from trainer.errors import TrainerError

ANSWER = {"type": "text", "text": "It holds two transformers."}
EVERYBODY = Config(teachers=[TeacherRights(match="*", basis="a rule that is too wide")])


def session_of(house: House, path: Path) -> None:
    """One prompt through the gateway, a call, an answer, written down as Claude Code does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parent = None

    def record(number: int, kind: str, message: dict[str, Any], **fields: Any) -> None:
        nonlocal parent
        line = {
            "parentUuid": parent, "isSidechain": False, "type": kind, "uuid": f"{path.stem}-{number}",
            "timestamp": f"2026-11-22T10:00:{number:02}.000Z", "cwd": ROOT, "sessionId": path.stem,
            "version": "2.1.330", "message": message,
        }  # fmt: skip
        parent = line["uuid"]
        with path.open("a") as stream:
            stream.write(json.dumps(line | fields) + "\n")

    body = question()
    record(1, "user", {"role": "user", "content": "What is in data/grid.json?"})
    for number in (2, 4):
        response = ask(house, body, session=path.stem)
        message = response.json()
        record(number, "assistant", message, requestId=response.headers.get("request-id"))
        body["messages"].append({"role": "assistant", "content": message["content"]})
        calls = [block for block in message["content"] if block["type"] == "tool_use"]
        if calls:
            result = {"type": "tool_result", "tool_use_id": calls[0]["id"], "content": "two transformers"}
            record(number + 1, "user", {"role": "user", "content": [result]})
            body["messages"].append({"role": "user", "content": [result]})


def teachers(asked: Any, model: str) -> Any:
    """A teacher that calls first and then answers."""
    done = any(message["role"] == "assistant" for message in asked.json["messages"])
    return [reply([ANSWER if done else CALL | {"id": "toolu_01"}], model=model, id=f"msg_01{done}")]


def trace_after(house: House, tmp_path: Path, name: str) -> Trace:
    session_of(house, tmp_path / "projects" / "grid" / f"{name}.jsonl")
    import_sessions([tmp_path / "projects"], tmp_path / "data")
    [trace] = TraceStore.of(tmp_path / "data").load()
    return trace


def left_out(trace: Trace, tmp_path: Path) -> str:
    with pytest.raises(TrainerError) as nothing:
        build_dataset([trace], EVERYBODY, tmp_path / "bc.jsonl")
    return str(nothing.value)


def test_a_session_of_the_students_is_its_own_and_nobody_learns_from_it(build: Build, tmp_path: Path) -> None:
    turns = iter([reply([CALL]), reply([ANSWER])])
    house = build(lambda _: [http("500 Error", b"")], lambda _: [next(turns)])
    trace = trace_after(house, tmp_path, "s-student")
    assert (trace.teacher.model, trace.teacher.student) == ("llama-claude-ppo-v1", "llama-claude-ppo-v1")
    assert [call.tool for call in trace.tool_calls] == ["Read"]
    assert "1 answered_by_student" in left_out(trace, tmp_path)


def test_a_rescued_session_is_left_out_though_the_teacher_had_the_last_word(build: Build, tmp_path: Path) -> None:
    turns = iter([reply([CALL]), http("500 Error", b"")])
    house = build(lambda asked: teachers(asked, "glm-5"), lambda _: [next(turns)])
    trace = trace_after(house, tmp_path, "s-rescued")
    assert (trace.teacher.model, trace.teacher.student) == ("glm-5", None)
    assert [step.model for step in trace.steps] == ["llama-claude-ppo-v1", "glm-5"]
    assert "1 answered_by_student" in left_out(trace, tmp_path)


def test_a_session_of_the_teachers_is_learned_from(build: Build, tmp_path: Path) -> None:
    house = build(lambda asked: teachers(asked, "glm-5"), lambda _: [], weight=0, shadow=False)
    trace = trace_after(house, tmp_path, "s-teacher")
    assert (trace.teacher.model, trace.teacher.student) == ("glm-5", None)
    assert build_dataset([trace], EVERYBODY, tmp_path / "bc.jsonl").used == 1


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("llama-claude-ppo-v1-q4_k_m.gguf", "llama-claude-ppo-v1-q4_k_m.gguf"),
        ("cc-claude-agent", "llama-claude-ppo-v1"),
        ("claude-opus-4", "llama-claude-ppo-v1"),
        (None, "llama-claude-ppo-v1"),
    ],
)
def test_no_local_server_can_give_itself_the_teachers_name(build: Build, said: str | None, named: str) -> None:
    house = build(lambda _: [], lambda _: [reply([CALL], model=said)])
    assert ask(house).json()["model"] == named
