"""While a reply is held the client is kept alive, and until it is released anything may still happen."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import httpx2
import pytest
from gateway_requests import CALL, READ, ROOT, Build, ask, decisions, metric, question, until
from loopback_servers import RESET, Asked, House, http, reply

from trainer.export.student_prompt import StudentPrompt
from trainer.rollout.message_stream import PING, event, events, message_of
from trainer.rollout.rollout_state import KILL_SWITCH

MESSAGE = {
    "id": "msg_t", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "From the teacher."}], "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 2},
}  # fmt: skip
STREAM = b"".join(events(MESSAGE))
SSE = http("200 OK", STREAM, "content-type: text/event-stream; charset=utf-8")
OVERLOADED = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'


def ask_until_pinged(
    build: Build, student: bytes, teacher: bytes = SSE, pings: int = 2, accept: str = "identity"
) -> tuple[House, httpx2.Response, bytes]:
    """The reply to a streaming client, where the local server answers once the client has got so many pings."""
    go_on = threading.Event()
    house = build(lambda _: [teacher], lambda _: [go_on, student], ping_seconds=0.1)
    names = {"x-claude-code-session-id": "s1", "accept-encoding": accept}
    content = b""
    with httpx2.stream(
        "POST", f"{house.url}/v1/messages", verify=False, timeout=60, json=question(stream=True), headers=names
    ) as response:
        for chunk in response.iter_raw():
            content += chunk
            if content.count(PING) >= pings:
                go_on.set()
    return house, response, content


def test_a_streaming_client_gets_pings_and_then_the_students_message(build: Build) -> None:
    house, response, content = ask_until_pinged(build, reply([CALL]))
    pings = content.count(PING)
    assert pings >= 2
    assert content.startswith(PING * pings + b"event: message_start\n")
    assert message_of(content)["content"][0]["input"] == {"file_path": f"{ROOT}/data/grid.json"}
    assert response.headers["request-id"].startswith("req_local_")
    line = decisions(house)[0]
    assert (line["answered_by"], line["version"], line["ending"]) == ("student", "llama-claude-ppo-v1", "complete")
    assert 50 < line["first_byte_ms"] < line["total_ms"]


def test_a_client_that_does_not_stream_gets_no_pings(build: Build) -> None:
    def slow(_: Asked) -> Any:
        time.sleep(0.4)
        return [reply([CALL])]

    house = build(lambda _: [SSE], slow, ping_seconds=0.1)
    assert ask(house).json()["model"] == "llama-claude-ppo-v1"


def test_after_pings_the_teacher_still_answers_uncompressed_and_whole(build: Build) -> None:
    refused = http("500 Error", b"")
    house, _, content = ask_until_pinged(build, refused, pings=1, accept="gzip, br")
    assert content == PING * content.count(PING) + STREAM
    assert house.teacher.asked[0].header("accept-encoding") == "identity"
    line = decisions(house)[0]
    assert (line["answered_by"], line["reason"], line["status"]) == ("teacher", "http_500", 200)


LATE = {
    "error": (http("529 Overloaded", OVERLOADED), "late_error", {"type": "overloaded_error", "message": "Overloaded"}),
    "error page": (http("502 Bad Gateway", b"<html>"), "late_error", {"type": "api_error"}),
    "no stream": (http("200 OK", b"{}", "content-type: application/json"), "late_error", {"type": "api_error"}),
    "nobody": (RESET, "unreachable", {"type": "api_error"}),
}


@pytest.mark.parametrize(("answer", "ending", "error"), LATE.values(), ids=LATE)
def test_a_teacher_that_fails_after_pings_is_an_error_event(
    build: Build, answer: bytes, ending: str, error: dict[str, str]
) -> None:
    house, response, content = ask_until_pinged(build, http("500 Error", b""), answer, pings=1)
    assert response.status_code == 200
    told = json.loads(content.split(b"event: error\ndata: ")[1])
    assert told["type"] == "error"
    assert told["error"].items() >= error.items()
    assert decisions(house)[0]["ending"] == ending


def test_the_kill_switch_ends_a_held_turn_at_once(build: Build) -> None:
    asked, never = threading.Event(), threading.Event()

    def endless(_: Asked) -> Any:
        asked.set()
        return [never]

    house = build(lambda _: [SSE], endless)
    answers: list[httpx2.Response] = []
    client = threading.Thread(target=lambda: answers.append(ask(house, question(stream=True))))
    client.start()
    assert asked.wait(30)
    (house.folder / KILL_SWITCH).touch()
    began = time.monotonic()
    client.join(30)
    assert time.monotonic() - began < 10
    assert answers[0].content == STREAM
    assert decisions(house)[0]["reason"] == "kill_switch"
    never.set()


def test_a_client_that_leaves_frees_the_local_server(build: Build) -> None:
    asked = threading.Event()

    def endless(_: Asked) -> Any:
        asked.set()
        yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        while True:
            yield b"1\r\n \r\n"
            time.sleep(0.02)

    house = build(lambda _: [SSE], endless)
    body = json.dumps(question()).encode()
    head = "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nx-claude-code-session-id: s\r\n"
    head += f"content-length: {len(body)}"
    with socket.create_connection(("127.0.0.1", int(house.url.rsplit(":", 1)[1]))) as client:
        client.sendall(head.encode() + b"\r\n\r\n" + body)
        assert asked.wait(60)
    assert house.local.closed_early.wait(30)
    assert house.teacher.asked == []
    assert (decisions(house)[0]["ending"], decisions(house)[0]["answered_by"]) == ("client_left", None)


def test_a_server_that_is_down_is_not_asked_for_a_while(build: Build) -> None:
    script: list[bytes] = [http("500 Error", b"")]
    house = build(lambda _: [SSE], lambda _: script, breaker_failures=2, breaker_seconds=4)
    for number in range(4):
        assert ask(house, session=f"s{number}").content == STREAM
    assert [line["reason"] for line in decisions(house, 4)] == ["http_500", "http_500", "circuit_open", "circuit_open"]
    assert len(house.local.asked) == 2
    assert metric(house, "claude_gateway_breaker") == 2
    until(lambda: metric(house, "claude_gateway_breaker") == 1)
    script[0] = reply([CALL])
    assert ask(house).json()["model"] == "llama-claude-ppo-v1"
    assert metric(house, "claude_gateway_breaker") == 0


def test_what_the_student_says_does_not_open_the_breaker(build: Build) -> None:
    house = build(lambda _: [SSE], lambda _: [reply([CALL | {"name": "Nothing"}])], breaker_failures=1)
    for _ in range(3):
        ask(house)
    assert {line["reason"] for line in decisions(house, 3)} == {"unknown_tool"}


def test_a_request_that_is_not_put_to_the_server_does_not_speak_for_it(build: Build) -> None:
    from trainer.config import DatasetConfig

    function = {"name": "Read", "description": "", "parameters": {"type": "object", "properties": {}}}
    prompt = StudentPrompt(DatasetConfig(), {"Read": {"type": "function", "function": function}})
    refused = http("500 Error", b"")
    house = build(lambda _: [SSE], lambda _: [refused], prompt=prompt, breaker_failures=2, breaker_seconds=600)
    for tools in ([READ], [{"name": "WebFetch", "input_schema": {"type": "object"}}], [READ]):
        assert ask(house, question(tools=tools)).content == STREAM
    assert [line["reason"] for line in decisions(house, 3)] == ["http_500", "no_tools", "http_500"]
    assert metric(house, "claude_gateway_breaker") == 2


def test_metrics_count_requests_endings_and_tokens(build: Build) -> None:
    house = build(lambda _: [SSE], lambda _: [reply([CALL])])
    ask(house)
    ask(house, question(tools=[]))
    httpx2.get(f"{house.url}/v1/models", headers={"x-api-key": "k"}, verify=False)
    until(lambda: metric(house, "claude_gateway_relayed_total") == 1)
    requests = "claude_gateway_requests_total"
    assert metric(house, requests, pinned="student", answered_by="student", reason="") == 1
    assert metric(house, requests, pinned="student", answered_by="teacher", reason="no_tools") == 1
    assert metric(house, "claude_gateway_endings_total", answered_by="student", ending="complete") == 1
    assert metric(house, "claude_gateway_student_tokens_total", kind="output_tokens") == 3
    assert metric(house, "claude_gateway_stage_percent") == 100
    assert metric(house, "claude_gateway_in_flight") == 0
    (house.folder / KILL_SWITCH).touch()
    assert metric(house, "claude_gateway_kill_switch") == 1


def test_every_local_server_gets_the_prompt_and_tools_of_the_training(build: Build) -> None:
    trained: dict[str, Any] = {
        "type": "function",
        "function": {
            "name": "Read",
            "description": "Reads.",
            "parameters": {
                "type": "object",
                "properties": {"file_path": {"type": "string"}},
                "required": ["file_path"],
            },
        },
    }
    from trainer.config import DatasetConfig

    prompt = StudentPrompt(DatasetConfig(system_prompt="You are small."), {"Read": trained, "Edit": trained})
    house = build(lambda _: [SSE], lambda _: [reply([CALL])], prompt=prompt)
    body = question(tools=[READ, {"name": "WebFetch", "input_schema": {"type": "object"}}])
    earlier = {"file_path": f"{ROOT}/a.py", "limit": 5}
    body["messages"] += [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "toolu_local_1", "name": "Read", "input": earlier}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_local_1", "content": "x = 1"}]},
    ]
    ask(house, body)
    sent = house.local.asked[0].json
    assert sent["system"] == "You are small."
    shown = {"name": "Read", "description": "Reads.", "input_schema": trained["function"]["parameters"]}
    assert sent["tools"] == [shown], "of the trained tools those that are offered"
    assert sent["messages"][1]["content"][0]["input"] == {"file_path": "a.py"}, "arguments that training never had"
    line = decisions(house)[0]
    assert (line["after"], line["results"], line["failed"]) == ("student", 1, 0)


def test_a_rescued_session_is_told_to_the_teacher_as_its_api_wants_it(build: Build) -> None:
    house = build(lambda _: [SSE], lambda _: [http("500 Error", b"")])
    use = {"type": "tool_use", "id": "toolu_local_1", "name": "Read", "input": {"file_path": f"{ROOT}/a.py"}}
    body = question(thinking={"type": "enabled", "budget_tokens": 9})
    body["messages"] += [
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "unsigned"}, use]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_local_1", "content": "x"}]},
    ]
    assert ask(house, body).content == STREAM
    sent = house.teacher.asked[0].json
    assert sent["messages"][1]["content"] == [use]
    assert sent["thinking"] == {"type": "disabled"}
    assert {key: sent[key] for key in ("tools", "system", "metadata")} == {
        key: body[key] for key in ("tools", "system", "metadata")
    }
    (house.folder / KILL_SWITCH).touch()  # the session is the teacher's from now on, its history is not
    ask(house, body)
    assert house.teacher.asked[1].json == sent
    httpx2.post(f"{house.url}/v1/messages", json=body, verify=False)
    assert house.teacher.asked[2].json == sent, "also where the client names no session any more"


def test_an_error_event_of_the_students_server_never_reaches_the_client(build: Build) -> None:
    broken = event("error", {"error": {"type": "api_error", "message": "x"}})
    house = build(lambda _: [SSE], lambda _: [http("200 OK", broken, "content-type: text/event-stream")])
    assert ask(house, question(stream=True)).content == STREAM
    assert decisions(house)[0]["reason"] == "malformed_reply"
