"""The gateway between real sockets: byte for byte to the teacher, nothing secret to the student, always an answer."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway_requests import CALL, CANARY, ROOT, TEACHER_SAYS, Build, House, ask, decisions, get, post, question, until
from loopback_servers import RESET, Asked, Upstream, http, reply
from stage_traffic import stage_at

from trainer.config import Config, RolloutConfig
from trainer.errors import TrainerError
from trainer.rollout import local_student, request_guard
from trainer.rollout.controller import Controller, open_rollout
from trainer.rollout.gateway import DECISIONS, Gateway
from trainer.rollout.rollout_state import KILL_SWITCH, RolloutState
from trainer.rollout.session_pinning import bucket, side_at
from trainer.rollout.upstreams import upstream


def as_another_process(house: House) -> RolloutState:
    """The rollout's state over a connection of its own, as `claude-trainer rollout` opens it beside the gateway."""
    return RolloutState(house.state.folder, "cc-claude-agent", 100)


def test_teacher_sessions_pass_byte_for_byte(build: Build) -> None:
    answer = http("200 OK", b"\x1f\x8b not really gzip \x00\xff", "content-encoding: gzip", "request-id: req_1")
    house = build(lambda _: [answer], lambda _: [], weight=0)
    body = b'{"model":"claude-x",  "unknown":[1,2],"messages":[]}\n'
    headers = [
        ("host", "127.0.0.1"),
        ("Authorization", f"Bearer {CANARY}"),
        ("anthropic-beta", "a-2025,b-2026"),
        ("x-claude-code-session-id", "s1"),
        ("X-Stainless-Lang", "js"),
    ]
    with socket.create_connection(("127.0.0.1", int(house.url.rsplit(":", 1)[1]))) as client:
        lines = [f"{name}: {value}" for name, value in headers] + [f"content-length: {len(body)}", "connection: close"]
        client.sendall(
            b"POST /v1/messages?beta=true&x=%2F HTTP/1.1\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        )
        received = b""
        while chunk := client.recv(65536):
            received += chunk
    asked = house.teacher.asked[0]
    assert (asked.method, asked.target, asked.body) == ("POST", "/v1/messages?beta=true&x=%2F", body)
    sent = {(name.lower(), value) for name, value in headers if name != "host"}
    got = {(name.lower(), value) for name, value in asked.headers}
    assert sent <= got
    assert {name for name, _ in got - sent} == {"host", "content-length"}
    head, _, content = received.partition(b"\r\n\r\n")
    assert content == answer.partition(b"\r\n\r\n")[2]
    assert b"content-encoding: gzip" in head
    assert b"request-id: req_1" in head
    assert b"server:" not in head
    assert house.local.asked == []


def test_every_byte_value_passes_in_both_directions_and_hop_by_hop_headers_do_not(build: Build) -> None:
    every = bytes(range(256)) * 300
    lines = ["HTTP/1.1 200 OK", "x-odd: caf\xe9", "set-cookie: a=1", "set-cookie: b=2", "connection: close, x-hop"]
    lines += ["x-hop: 1", "keep-alive: timeout=5", f"content-length: {len(every)}"]
    house = build(lambda _: ["\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + every], lambda _: [], weight=0)
    head = "POST /v1/files/a%20b?q=%C3%A9&q= HTTP/1.1\r\nhost: localhost\r\nconnection: close, X-Mine\r\nx-mine: 1\r\n"
    head += "te: trailers\r\nproxy-authorization: x\r\nx-name: café\r\ncookie: a=b\r\n"
    head += f"content-length: {len(every)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(house.url.rsplit(":", 1)[1]))) as client:
        client.sendall(head.encode() + every)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
    asked = house.teacher.asked[0]
    address = house.teacher.url.removeprefix("http://")
    wanted = f"POST /v1/files/a%20b?q=%C3%A9&q= HTTP/1.1\r\nhost: {address}\r\nx-name: café\r\ncookie: a=b\r\n"
    wanted += f"content-length: {len(every)}\r\n\r\n"
    got, _, body = asked.raw.partition(b"\r\n\r\n")
    assert sorted(got.lower().split(b"\r\n")) == sorted(wanted.encode().lower().rstrip().split(b"\r\n"))
    assert body == every
    shown, _, content = received.partition(b"\r\n\r\n")
    assert content == every
    fields = shown.split(b"\r\n")[1:]
    assert {b"x-odd: caf\xe9", b"set-cookie: a=1", b"set-cookie: b=2"} <= set(fields)
    assert not [field for field in fields if field.startswith((b"x-hop", b"keep-alive", b"server", b"date"))]


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "429 Too Many Requests", "529 Overloaded"])
def test_teacher_errors_come_back_unchanged(build: Build, status: str) -> None:
    error = b'{"type":"error","error":{"type":"x","message":"as it was"},"request_id":"r"}'
    house = build(lambda _: [http(status, error, "retry-after: 7")], lambda _: [], weight=0)
    response = ask(house)
    assert (response.status_code, response.content) == (int(status[:3]), error)
    assert response.headers["retry-after"] == "7"


def test_teacher_stream_is_not_buffered(build: Build) -> None:
    go_on = threading.Event()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    house = build(lambda _: [head, b"event: a\n\n", go_on, b"event: b\n\n"], lambda _: [], weight=0)
    with httpx2.stream(
        "POST", f"{house.url}/v1/messages", verify=False, json=question(), headers={"x-claude-code-session-id": "s"}
    ) as response:
        chunks = response.iter_raw()
        assert next(chunks) == b"event: a\n\n"
        assert not go_on.is_set()
        go_on.set()
        assert b"".join(chunks) == b"event: b\n\n"


def test_a_stream_that_the_teacher_cuts_is_not_passed_off_as_whole(build: Build) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    house = build(lambda _: [head, b"5\r\nhello\r\n", RESET], lambda _: [], weight=0)
    with pytest.raises(httpx2.TransportError):
        ask(house)


def test_the_teacher_is_let_go_when_the_client_leaves(build: Build) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

    def endless(_: Asked) -> Any:
        yield head
        for _number in range(1000):
            yield b"1000\r\n" + b"x" * 4096 + b"\r\n"
            time.sleep(0.02)

    house = build(endless, lambda _: [], weight=0)
    with httpx2.stream("POST", f"{house.url}/v1/messages", verify=False, json=question()) as response:
        next(response.iter_raw())
    assert house.teacher.closed_early.wait(60)


def test_other_paths_and_unknown_sessions_are_the_teachers(build: Build) -> None:
    head = TEACHER_SAYS[: TEACHER_SAYS.index(b"\r\n\r\n") + 4]
    house = build(lambda asked: [head if asked.method == "HEAD" else TEACHER_SAYS], lambda _: [reply([CALL])])
    headers = {"x-claude-code-session-id": "s1"}
    assert get(f"{house.url}/v1/models", headers=headers).json() == {"from": "teacher"}
    assert post(f"{house.url}/v1/messages/count_tokens", json={}, headers=headers).json() == {"from": "teacher"}
    assert post(f"{house.url}/v1/messages", json=question()).json() == {"from": "teacher"}
    assert httpx2.head(house.url, verify=False).status_code == 200
    assert house.local.asked == []
    assert not (house.folder / DECISIONS).exists()


def test_an_unreachable_teacher_is_an_error_in_anthropics_shape(build: Build) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        house = build(lambda _: [], lambda _: [], weight=0, teacher_url=f"http://127.0.0.1:{closed.getsockname()[1]}")
        response = ask(house)
    assert response.status_code == 502
    assert response.json()["error"]["type"] == "api_error"


def test_credentials_and_preamble_never_reach_the_local_side(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])])
    history = [
        *question()["messages"],
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "SECRET-THOUGHT", "signature": "sig"},
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": f"{ROOT}/a.py"}},
            ],
        },
        {"role": "system", "content": "x"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": f"in {ROOT}/a.py"}]},
    ]
    assert ask(house, question(messages=history), cookie=CANARY, **{"proxy-authorization": CANARY}).status_code == 200
    asked = house.local.asked[0]
    assert CANARY.encode() not in asked.raw
    for word in (b"billing", b"SECRET-THOUGHT", b"system-reminder", b"cache_control", ROOT.encode(), b"beta"):
        assert word not in asked.raw
    assert {name.lower() for name, _ in asked.headers} == {
        "host",
        "content-type",
        "anthropic-version",
        "content-length",
        "x-claude-trainer-strict",
    }
    sent = asked.json
    assert set(sent) == {"model", "system", "messages", "tools", "max_tokens", "temperature", "stream"}
    assert (sent["model"], sent["stream"], sent["system"]) == ("cc-claude-agent", False, Config().dataset.system_prompt)
    assert sent["messages"][0]["content"] == [{"type": "text", "text": "What is in data/grid.json?"}]
    assert sent["messages"][1]["content"][0]["input"] == {"file_path": "a.py"}
    assert sent["messages"][2]["content"][0]["content"] == "in a.py"
    assert sent["tools"][0]["description"] == "Reads a file."


def test_nothing_that_was_said_and_no_credential_is_written_down(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])], weight=50)
    for number in range(10):
        ask(house, session=f"s{number}")
    for path in house.folder.iterdir():
        content = path.read_bytes()
        assert CANARY.encode() not in content
        assert b"grid.json" not in content
    assert stat.S_IMODE((house.folder / DECISIONS).stat().st_mode) == 0o600


def test_a_sound_local_call_is_released_as_claude_code_can_run_it(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([{"type": "thinking", "thinking": "hm"}, CALL])])
    first, second = ask(house).json(), ask(house).json()
    assert [block["type"] for block in first["content"]] == ["tool_use"]
    assert first["content"][0]["input"] == {"file_path": f"{ROOT}/data/grid.json"}
    assert first["content"][0]["id"] != second["content"][0]["id"]
    assert (first["stop_reason"], first["model"]) == ("tool_use", "llama-claude-ppo-v1")
    assert house.teacher.asked == []
    assert [line["answered_by"] for line in decisions(house, 2)] == ["student", "student"]


@pytest.mark.parametrize("tokens", [-5, 2**63, 1e300, "7", None, True])
def test_tokens_that_are_no_count_are_not_counted(build: Build, tokens: Any) -> None:
    usage = {"input_tokens": tokens, "output_tokens": tokens}
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL], usage=usage)])
    assert set(ask(house).json()["usage"].values()) == {0}
    assert decisions(house)[0]["answered_by"] == "student"
    assert [answer.answered_by for answer in house.state.answers(1)] == ["student"]


def test_a_streaming_client_reads_the_local_reply_as_events(build: Build) -> None:
    text = {"type": "text", "text": "Ich lese die Datei – sofort."}
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([text, CALL])])
    response = ask(house, question(stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    found = [
        (event.split("\n")[0].removeprefix("event: "), json.loads(event.split("\n")[1].removeprefix("data: ")))
        for event in response.text.strip().split("\n\n")
    ]
    assert [name for name, _ in found] == [
        "message_start",
        *["content_block_start", "content_block_delta", "content_block_stop"] * 2,
        "message_delta",
        "message_stop",
    ]
    assert all(name == data["type"] for name, data in found)
    assert found[2][1]["delta"]["text"] == text["text"]
    assert json.loads(found[5][1]["delta"]["partial_json"]) == {"file_path": f"{ROOT}/data/grid.json"}
    assert found[7][1]["delta"]["stop_reason"] == "tool_use"


def call(**changes: Any) -> bytes:
    return reply([CALL | changes])


FAULTS: dict[str, tuple[str, list[bytes]]] = {
    "500": ("http_500", [http("500 Internal Server Error", b"oops")]),
    "429": ("http_429", [http("429 Too Many Requests", b"{}")]),
    "529": ("http_529", [http("529 Overloaded", b"{}")]),
    "400": ("http_400", [http("400 Bad Request", b'{"error":{"message":"template"}}')]),
    "redirect": ("http_302", [http("302 Found", b"", "location: http://127.0.0.1:9/")]),
    "too long": ("context_overflow", [http("400 Bad Request", b'{"error":{"type":"exceed_context_size_error"}}')]),
    "reset": ("reset", [RESET]),
    "reset in the body": ("reset", [call()[:-20], RESET]),
    "not http": ("reset", [b"hello\r\n\r\n"]),
    "not json": ("malformed_reply", [http("200 OK", b"<html>")]),
    "deep json": ("malformed_reply", [http("200 OK", b"[" * 100_000)]),
    "nan": ("malformed_reply", [http("200 OK", b'{"role":"assistant","content":[{"a":NaN}]}')]),
    "a list": ("malformed_reply", [http("200 OK", b"[]")]),
    "content of a string": ("malformed_reply", [http("200 OK", b'{"role":"assistant","content":"hi"}')]),
    "gzip that nobody asked for": ("malformed_reply", [http("200 OK", b"no gzip", "content-encoding: gzip")]),
    "nothing said": ("empty_reply", [reply([{"type": "text", "text": " \n"}])]),
    "cut off": ("cut_off", [reply([{"type": "text", "text": "I wi"}], stop_reason="max_tokens")]),
    "unknown tool": ("unknown_tool", [call(name="ReadFile")]),
    "tool of a list": ("unknown_tool", [call(name=["Read"])]),
    "argument missing": ("invalid_arguments", [call(input={})]),
    "argument of a wrong type": ("invalid_arguments", [call(input={"file_path": 3})]),
    "argument nobody knows": ("invalid_arguments", [call(input={"file_path": "a", "path": "a"})]),
    "arguments of a string": ("invalid_arguments", [call(input='{"file_path": "a"}')]),
    "true for an integer": ("invalid_arguments", [call(input={"file_path": "a", "limit": True})]),
}


@pytest.mark.parametrize(("reason", "script"), FAULTS.values(), ids=FAULTS)
def test_the_teacher_answers_where_the_student_fails(build: Build, reason: str, script: list[bytes]) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: script)
    response = ask(house)
    assert (response.status_code, response.json()) == (200, {"from": "teacher"})
    asked = house.teacher.asked[0]
    assert asked.json == question()
    assert asked.header("x-api-key") == CANARY
    line = decisions(house)[0]
    assert (line["pinned"], line["answered_by"], line["reason"]) == ("student", "teacher", reason)
    assert [(answer.answered_by, answer.reason) for answer in house.state.answers(1)] == [("teacher", reason)]


def test_a_refused_connection_falls_back(build: Build) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        house = build(lambda _: [TEACHER_SAYS], lambda _: [], local_url=f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert ask(house).json() == {"from": "teacher"}
    assert decisions(house)[-1]["reason"] == "unreachable"


def test_a_local_server_that_trickles_forever_falls_back_in_time(build: Build) -> None:
    def endless(_: Asked) -> Any:
        yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        while True:
            yield b"1\r\n \r\n"
            time.sleep(0.05)

    house = build(lambda _: [TEACHER_SAYS], endless, local_seconds=0.7)
    assert ask(house).json() == {"from": "teacher"}
    assert decisions(house)[0]["reason"] == "timeout"
    assert house.local.closed_early.wait(60)


def test_a_reply_of_endless_size_falls_back(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_student, "MAX_REPLY", 10_000)
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([{"type": "text", "text": "a" * 20_000}])])
    assert ask(house).json() == {"from": "teacher"}
    assert decisions(house)[0]["reason"] == "endless_reply"


def test_requests_without_tools_are_not_the_students(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])])
    assert ask(house, question(tools=[])).json() == {"from": "teacher"}
    assert decisions(house)[0]["reason"] == "no_tools"
    assert house.local.asked == []


@pytest.mark.parametrize("body", [[], "x", None, {"tools": "x"}, {"tools": [1], "messages": [1, {"role": "user"}]}])
def test_strange_bodies_still_get_an_answer(build: Build, body: Any) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])])
    content = b"{broken" if body is None else json.dumps(body).encode()
    response = post(f"{house.url}/v1/messages", content=content, headers={"x-claude-code-session-id": "s"})
    assert response.json() == {"from": "teacher"}
    assert house.teacher.asked[0].body == content


def test_an_oversized_body_is_refused(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_guard, "MAX_BODY", 1000)
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])])
    response = ask(house, {"x": "y" * 2000})
    assert (response.status_code, response.json()["error"]["type"]) == (413, "request_too_large")
    assert house.teacher.asked == []


@pytest.mark.parametrize("target", ["@evil.example/", "http://evil.example/v1/messages", "%2F@evil.example/"])
def test_a_target_that_is_no_path_goes_nowhere(build: Build, target: str) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [])
    with socket.create_connection(("127.0.0.1", int(house.url.rsplit(":", 1)[1]))) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 40")
    assert house.teacher.asked == []


def test_sessions_are_split_by_their_bucket_and_never_change_sides(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])], weight=20)
    names = [f"session-{number}" for number in range(30)]
    expected = {name: side_at(20, bucket("cc-claude-agent", name)) for name in names}
    assert set(expected.values()) == {"student", "teacher"}
    for name in names:
        ask(house, session=name)
    with closing(as_another_process(house)) as state:
        stage_at(state, 100)
    for name in names:
        ask(house, session=name)
    assert {line["session"]: line["answered_by"] for line in decisions(house, 60)[:30]} == expected
    assert {line["session"]: line["answered_by"] for line in decisions(house, 60)[30:]} == expected
    ask(house, session="seen-first-in-the-wider-stage")
    assert decisions(house, 61)[-1]["answered_by"] == "student"


def test_an_abort_takes_effect_at_the_next_request_and_for_good(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])])
    assert ask(house).json()["model"] == "llama-claude-ppo-v1"
    with closing(as_another_process(house)) as state:
        controller = Controller(state, Config(rollout=RolloutConfig(weights=[100])))
        controller.abort(who="somebody")
        assert ask(house).json() == {"from": "teacher"}
        assert ask(house, session="new").json() == {"from": "teacher"}
        controller.advance(who="somebody", force="again")
    assert ask(house).json() == {"from": "teacher"}
    assert ask(house, session="newer").json()["model"] == "llama-claude-ppo-v1"


def test_an_abort_while_the_student_writes_counts_for_that_reply(build: Build) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(_: Asked) -> Any:
        asked.set()
        return [go_on, reply([CALL])]

    house = build(lambda _: [TEACHER_SAYS], slow)
    answers: list[httpx2.Response] = []
    client = threading.Thread(target=lambda: answers.append(ask(house)))
    client.start()
    assert asked.wait(60)
    with closing(as_another_process(house)) as state:
        Controller(state, Config(rollout=RolloutConfig(weights=[100]))).abort(who="somebody")
    go_on.set()
    client.join(60)
    assert answers[0].json() == {"from": "teacher"}
    assert decisions(house)[0]["reason"] == "withdrawn"


def test_touching_the_kill_switch_while_the_student_writes_is_enough(build: Build) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(_: Asked) -> Any:
        asked.set()
        return [go_on, reply([CALL])]

    house = build(lambda _: [TEACHER_SAYS], slow)
    answers: list[httpx2.Response] = []
    client = threading.Thread(target=lambda: answers.append(ask(house)))
    client.start()
    assert asked.wait(60)
    (house.folder / KILL_SWITCH).touch()
    go_on.set()
    client.join(60)
    assert answers[0].json() == {"from": "teacher"}
    assert decisions(house)[0]["reason"] == "kill_switch"
    (house.folder / KILL_SWITCH).unlink()
    assert ask(house).json() == {"from": "teacher"}, "a session that was touched meanwhile stays the teacher's"
    assert ask(house, session="new").json()["model"] == "llama-claude-ppo-v1"


def test_a_broken_state_does_not_keep_people_from_their_teacher(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])])
    house.state.close()
    assert ask(house).json() == {"from": "teacher"}
    assert ask(house).json() == {"from": "teacher"}
    assert capsys.readouterr().err.count("requests go on") == 1


@pytest.mark.parametrize("url", ["ftp://x", "api.anthropic.com", "http://api.anthropic.com", "http://10.0.0.1:80"])
def test_a_teacher_that_would_get_credentials_in_the_open_is_refused(tmp_path: Path, url: str) -> None:
    config = Config(rollout=RolloutConfig(teacher_url=url))
    state = open_rollout(tmp_path, config.rollout)
    with pytest.raises(TrainerError, match=r"rollout\.teacher_url"):
        Gateway(config, state)
    state.close()


@pytest.mark.parametrize(
    "url", [f"https://user:{CANARY}@teacher.example", f"user:{CANARY}@teacher.example", f"https://x/?key={CANARY}"]
)
def test_an_address_with_a_credential_is_refused_and_not_repeated(url: str) -> None:
    for key, encrypted in (("rollout.teacher_url", True), ("rollout.local_url", False)):
        with pytest.raises(TrainerError, match="without credentials") as refused:
            upstream(url, key, encrypted=encrypted)
        assert CANARY not in str(refused.value)


CLI = [sys.executable, "-c", "from trainer.cli import main; main()", "rollout", "serve", "--port", "0"]


def test_the_command_serves_on_loopback_alone_and_survives_kill_minus_nine(tmp_path: Path) -> None:
    refused = subprocess.run([*CLI, "--host", "0.0.0.0", "--state", str(tmp_path)], capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "can be reached by others" in refused.stderr
    with Upstream(lambda _: [TEACHER_SAYS]) as teacher, Upstream(lambda _: [reply([CALL])]) as local:
        config = tmp_path / "config.toml"
        config.write_text(
            f'[rollout]\nweights = [50]\nteacher_url = "{teacher.url}"\nlocal_url = "{local.url}"\n', "utf-8"
        )
        sides = []
        for life in range(1, 3):
            process = subprocess.Popen(
                [*CLI, "--force", "test", "--config", str(config), "--state", str(tmp_path / "state")],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"},
            )
            assert process.stdout is not None
            url = process.stdout.readline().strip().removeprefix("ANTHROPIC_BASE_URL=")
            seen = {}
            for number in range(20):
                headers = {"x-claude-code-session-id": f"s{number}"}
                answer = post(f"{url}/v1/messages", json=question(), headers=headers).json()
                seen[number] = answer.get("model", "teacher")
            sides.append(seen)
            log = tmp_path / "state" / DECISIONS  # a request is counted after its reply
            until(lambda: log.read_bytes().count(b"\n") == 20 * life)  # noqa: B023
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
    assert sides[0] == sides[1]
    assert set(sides[0].values()) == {"teacher", "cc-claude-agent"}
    shown = subprocess.run(
        [*CLI[:-3], "status", "--config", str(config), "--state", str(tmp_path / "state"), "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    stage = json.loads(shown.stdout)["stages"][0]
    assert sum(stage["figures"][side]["sessions"] for side in ("student", "teacher")) == 20
    assert sum(stage["figures"][side]["requests"] for side in ("student", "teacher")) == 40
