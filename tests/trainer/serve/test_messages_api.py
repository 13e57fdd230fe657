"""The Messages API over real HTTP, answered by a real model."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import httpx2
import pytest

from trainer.rollout import patient_protocol
from trainer.serve import messages_server

ROOT = "/home/dev/project"
NOISE = "You are an interactive agent. " * 200
CLAUDE_CODES = [
    {"name": name, "description": NOISE, "input_schema": {"type": "object", "properties": {"x": {"type": "string"}}}}
    for name in ("Agent", "Bash", "Read", "Skill", "WebFetch")
]
WHAT = {"role": "user", "content": "What is x?"}
ANSWER = "It is 42: é, 你好 <|."


LETTERS = {
    "message_start": "M",
    "content_block_start": "(",
    "content_block_delta": ".",
    "content_block_stop": ")",
    "message_delta": "D",
    "message_stop": "S",
}


def asked(*messages: Any, **fields: Any) -> dict[str, Any]:
    """A request in Claude Code's manner."""
    system = [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330;"},
        {"type": "text", "text": NOISE, "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": f"# Environment\n - Primary working directory: {ROOT}\n - Platform: linux"},
    ]
    body = {"model": "claude-opus-5-5", "max_tokens": 64000, "system": system, "tools": CLAUDE_CODES}
    body |= {"thinking": {"type": "adaptive"}, "context_management": {}, "output_config": {"effort": "medium"}}
    return body | {"metadata": {"user_id": "{}"}, "messages": list(messages) or [WHAT]} | fields


def post(url: str, body: Any, path: str = "/v1/messages?beta=true", **headers: str) -> httpx2.Response:
    return httpx2.post(url + path, json=body, headers=headers, timeout=60)


def content(url: str, *messages: Any, **fields: Any) -> list[dict[str, Any]]:
    response = post(url, asked(*messages, **fields))
    assert response.status_code == 200, response.text
    blocks: list[dict[str, Any]] = response.json()["content"]
    return blocks


def events_of(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for chunk in text.removesuffix("\n\n").split("\n\n"):
        name, data = chunk.split("\n", 1)
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        yield value["type"], value


def streamed(url: str, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    response = post(url, body | {"stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    return list(events_of(response.text))


def folded(events: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The message that a client puts together, as Anthropic's SDK does; checks the order of the events on the way."""
    kinds = [kind for kind, _ in events if kind != "ping"]
    shape = "".join(LETTERS[kind] for kind in kinds)
    assert re.fullmatch(r"M(\(\.+\))*DS", shape), shape
    message: dict[str, Any] = {}
    partial = ""
    for kind, value in events:
        if kind == "message_start":
            message = value["message"]
            assert message["content"] == []
            assert message["stop_reason"] is None
        elif kind == "content_block_start":
            assert value["index"] == len(message["content"])
            message["content"].append(dict(value["content_block"]))
            partial = ""
        elif kind == "content_block_delta":
            assert value["index"] == len(message["content"]) - 1
            if value["delta"]["type"] == "text_delta":
                message["content"][-1]["text"] += value["delta"]["text"]
            else:
                assert value["delta"]["type"] == "input_json_delta"
                partial += value["delta"]["partial_json"]
                message["content"][-1]["input"] = json.loads(partial)
        elif kind == "message_delta":
            message |= value["delta"]
            message["usage"] |= value["usage"]
    return message


def error_of(response: httpx2.Response) -> tuple[int, str, str]:
    """Status, type and message of an error in Anthropic's shape."""
    value = response.json()
    assert value.keys() == {"type", "error", "request_id"}
    assert value["type"] == "error"
    assert value["request_id"].startswith("req_")
    assert response.headers["request-id"] == value["request_id"]
    return response.status_code, value["error"]["type"], value["error"]["message"]


def test_turn_of_claude_code_becomes_the_students_and_back(served: Any) -> None:
    """Preamble, foreign tools and absolute paths go in; the call comes back as Claude Code wants it."""
    said, read = content(served.url)
    assert said == {"type": "text", "text": "I read <it>."}
    assert read["name"] == "Read"
    assert read["input"] == {"file_path": f"{ROOT}/src/a.py"}
    assert re.fullmatch(r"toolu_[0-9a-f]{24}", read["id"])
    result = {"type": "tool_result", "tool_use_id": read["id"], "content": [{"type": "text", "text": "x = 42"}]}
    turns = [WHAT, {"role": "assistant", "content": [said, read]}, {"role": "user", "content": [result]}]
    response = post(served.url, asked(*turns)).json()
    assert response["content"] == [{"type": "text", "text": ANSWER}]
    assert response["stop_reason"] == "end_turn"
    assert response["model"] == "llama-claude-bc-v1"
    assert response["usage"]["cache_read_input_tokens"] > 40


def test_what_claude_code_adds_to_a_conversation_is_not_seen(served: Any) -> None:
    said, read = content(served.url)
    reminder = {"type": "text", "text": "<system-reminder>\nToday is Monday.\n</system-reminder>"}
    environment = {"role": "system", "content": f"# Environment\n - Primary working directory: {ROOT}"}
    thinking = {"type": "thinking", "thinking": "hm", "signature": "x"}
    filled_in = {**read, "input": {"replace_all": False, **read["input"]}}
    result = {"type": "tool_result", "tool_use_id": read["id"], "content": "x = 42", "cache_control": {}}
    plain = [WHAT, {"role": "assistant", "content": [said, read]}, {"role": "user", "content": [result]}]
    noisy = [
        {"role": "user", "content": [reminder, {"type": "text", "text": "What is x?"}]},
        environment,
        {"role": "assistant", "content": [thinking, said, filled_in]},
        {"role": "user", "content": [result, reminder]},
    ]
    count = [post(served.url, asked(*talk), "/v1/messages/count_tokens").json() for talk in (plain, noisy)]
    assert count[0] == count[1]
    assert content(served.url, *noisy) == [{"type": "text", "text": ANSWER}]


def test_parallel_calls_and_results_in_another_order(served: Any) -> None:
    prompt = {"role": "user", "content": "Do both."}
    calls = content(served.url, prompt)
    assert [(c["name"], c["input"]) for c in calls] == [
        ("Bash", {"command": "ls"}),
        ("Read", {"file_path": f"{ROOT}/b.py"}),
    ]
    outputs = {"Bash": "b.py", "Read": "pass"}
    results = [{"type": "tool_result", "tool_use_id": c["id"], "content": outputs[c["name"]]} for c in calls]
    turns = [prompt, {"role": "assistant", "content": calls}, {"role": "user", "content": results[::-1]}]
    assert content(served.url, *turns) == [{"type": "text", "text": ANSWER}]
    one = content(served.url, prompt, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert [c["name"] for c in one] == ["Bash"]


@pytest.mark.parametrize("prompt", ["What is x?", "Do both.", "Break.", "Hello"])
def test_stream_tells_the_same_message(served: Any, prompt: str) -> None:
    body = asked({"role": "user", "content": prompt}, max_tokens=60)
    whole, events = post(served.url, body).json(), streamed(served.url, body)
    assert "ping" in [kind for kind, _ in events]
    told = folded(events)
    for message in (whole, told):
        assert message.pop("id").startswith("msg_")
        message["usage"].pop("cache_read_input_tokens")
        message["usage"].pop("input_tokens")
        for block in message["content"]:
            block.pop("id", None)
    assert told == whole


def test_words_are_sent_as_they_are_written(serve: Callable[..., Any], endless: Path) -> None:
    url = serve(endless).url
    began = time.monotonic()
    arrivals = []
    with httpx2.stream("POST", url + "/v1/messages", json=asked(max_tokens=400, stream=True), timeout=60) as response:
        for chunk in response.iter_bytes():
            arrivals += [time.monotonic() - began] * chunk.count(b"text_delta")
    assert len(arrivals) > 20
    assert arrivals[0] < arrivals[-1] / 2


def test_model_and_health(served: Any) -> None:
    listed = httpx2.get(served.url + "/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["llama-claude-bc-v1"]
    assert httpx2.get(served.url + "/v1/models/llama-claude-bc-v1").json() == listed["data"][0]
    assert error_of(httpx2.get(served.url + "/v1/models/gpt"))[:2] == (404, "not_found_error")
    assert httpx2.get(served.url + "/health").json() == {"status": "ok", "slots": 2, "free": 2, "waiting": 0}


def test_counting_agrees_with_usage(served: Any) -> None:
    counted = post(served.url, asked(), "/v1/messages/count_tokens").json()["input_tokens"]
    usage = post(served.url, asked()).json()["usage"]
    assert counted == usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert counted < 100, "the preamble is not the student's"


def test_limits_and_stop_sequences(served: Any) -> None:
    short = post(served.url, asked(max_tokens=2)).json()
    assert (short["stop_reason"], short["usage"]["output_tokens"]) == ("max_tokens", 2)
    in_call = post(served.url, asked(max_tokens=12)).json()
    assert in_call["stop_reason"] == "max_tokens"
    assert [block["type"] for block in in_call["content"]] == ["text"], "a call that was cut is no call"
    stopped = post(served.url, asked(stop_sequences=["zebra", " <it"])).json()
    assert stopped["content"] == [{"type": "text", "text": "I read"}]
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", " <it")


def test_operators_limit_is_kept(serve: Callable[..., Any], endless: Path) -> None:
    reply = post(serve(endless, max_output=7).url, asked()).json()
    assert (reply["stop_reason"], reply["usage"]["output_tokens"]) == ("max_tokens", 7)


def test_temperature_is_zero_unless_asked_for(serve: Callable[..., Any], endless: Path) -> None:
    url = serve(endless, slots=1).url
    greedy = {json.dumps(content(url, max_tokens=30)) for _ in range(3)}
    assert len(greedy) == 1
    sampled = {json.dumps(content(url, max_tokens=30, temperature=1)) for _ in range(3)}
    assert len(sampled) > 1


def test_tool_choice(served: Any) -> None:
    demanded = content(served.url, tool_choice={"type": "tool", "name": "Read"}, max_tokens=80)
    assert next(block["name"] for block in demanded if block["type"] == "tool_use") == "Read"
    assert content(served.url, tool_choice={"type": "any"}, max_tokens=80)[0]["type"] in ("tool_use", "text")
    bare = post(served.url, asked(tool_choice={"type": "none"}), "/v1/messages/count_tokens").json()
    assert bare == post(served.url, asked(tools=[]), "/v1/messages/count_tokens").json()
    unknown = post(served.url, asked(tool_choice={"type": "tool", "name": "Agent"}))
    assert error_of(unknown)[:2] == (400, "invalid_request_error")


def test_reply_that_the_client_has_begun_is_gone_on_with(served: Any) -> None:
    said, *_ = content(served.url, WHAT, {"role": "assistant", "content": "I read"})
    assert said["text"] == " <it>."


def test_request_that_a_gateway_has_translated_stays_as_it_is(served: Any) -> None:
    from trainer.config import DatasetConfig
    from trainer.export.student_prompt import StudentPrompt
    from trainer.rollout.student_view import student_request

    first = asked(WHAT)
    outgoing = student_request(first, StudentPrompt(DatasetConfig(system_prompt="You are a coding agent.")), "m")
    assert content(served.url)[1]["input"] == {"file_path": f"{ROOT}/src/a.py"}
    reply = post(served.url, outgoing).json()
    assert reply["content"][1]["input"] == {"file_path": "src/a.py"}, "the gateway knows where the project is"
    counts = [post(served.url, body, "/v1/messages/count_tokens").json() for body in (first, outgoing)]
    assert counts[0] == counts[1]
    digest = outgoing | {"system": outgoing["system"] + "\n\nEarlier in this session:\n- asked: x"}
    assert post(served.url, digest, "/v1/messages/count_tokens").json()["input_tokens"] > counts[0]["input_tokens"] + 5


def test_call_that_cannot_be_read_is_text_or_an_error(served: Any) -> None:
    broken = asked({"role": "user", "content": "Break."})
    reply = post(served.url, broken).json()
    assert reply["content"] == [{"type": "text", "text": 'Now.{"name": "Read", "para'}]
    assert reply["stop_reason"] == "end_turn"
    strict = {messages_server.STRICT_HEADER: "1"}
    refused = post(served.url, broken, **strict)
    assert error_of(refused) == (500, "api_error", "the model wrote a malformed tool call")
    told = list(events_of(post(served.url, broken | {"stream": True}, **strict).text))
    assert told[-1][0] == "error"
    assert told[-1][1]["error"]["type"] == "api_error"
    assert content(served.url)[1]["name"] == "Read", "the slot works on"


BAD = {
    "not JSON": b"{",
    "NaN": b'{"model": "m", "max_tokens": NaN, "messages": []}',
    "no object": b"[]",
    "deep": b"[" * 100_000,
    "half a surrogate": b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"\\ud83d"}]}',
    "no messages": asked(messages=[]),
    "no max_tokens": {"model": "m", "messages": [WHAT]},
    "max_tokens": asked(max_tokens=0),
    "max_tokens as text": asked(max_tokens="9"),
    "role": asked({"role": "tool", "content": "x"}),
    "content": asked({"role": "user", "content": 7}),
    "blocks": asked({"role": "user", "content": ["x"]}),
    "empty": asked({"role": "user", "content": [{"type": "image"}]}),
    "temperature": asked(temperature=3),
    "stops": asked(stop_sequences=[""]),
    "tools": asked(tools=["x"]),
    "schema": asked(tools=[{"name": "x", "input_schema": {"properties": {"a": 1}, "required": 5}}]),
    "call": asked(WHAT, {"role": "assistant", "content": [{"type": "tool_use", "id": [], "name": [], "input": 1}]}),
    "call without result": asked(
        WHAT, {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "Read"}]}
    ),
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_bad_request_is_named(served: Any, body: Any) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx2.post(served.url + "/v1/messages", content=data, timeout=30)
    status, kind, message = error_of(response)
    assert (status, kind) == (400, "invalid_request_error")
    assert message
    assert "\n" not in message


def test_prompt_beyond_the_context_is_told_as_anthropic_tells_it(served: Any) -> None:
    status, kind, message = error_of(post(served.url, asked({"role": "user", "content": "word " * 3000})))
    assert (status, kind) == (400, "invalid_request_error")
    assert re.fullmatch(r"prompt is too long: \d+ tokens > 1023 maximum", message)


def test_unknown_paths_and_methods(served: Any) -> None:
    assert error_of(httpx2.get(served.url + "/v1/nope"))[:2] == (404, "not_found_error")
    assert error_of(httpx2.get(served.url + "/v1/messages"))[:2] == (405, "invalid_request_error")


def test_web_pages_are_refused(served: Any) -> None:
    assert error_of(post(served.url, asked(), origin="http://evil.example"))[:2] == (403, "permission_error")


def test_token_is_wanted_where_one_is_set(serve: Callable[..., Any], student: Path) -> None:
    url = serve(student, token="secret-ü").url
    good = [{"x-api-key": "secret-ü"}, {"authorization": "Bearer secret-ü"}]
    bad = [{}, {"x-api-key": "secret"}, {"authorization": "Basic secret-ü"}, {"x-api-key": ""}]
    for headers in good:
        raw = [(key, value.encode()) for key, value in headers.items()]
        assert httpx2.post(url + "/v1/messages", json=asked(), headers=raw, timeout=60).status_code == 200
    for headers in bad:
        raw = [(key, value.encode()) for key, value in headers.items()]
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            response = httpx2.post(url + path, json=asked(), headers=raw, timeout=60)
            assert error_of(response)[:2] == (401, "authentication_error")
        assert error_of(httpx2.get(url + "/v1/models", headers=raw))[:2] == (401, "authentication_error")
    assert httpx2.get(url + "/health").status_code == 200


def test_body_that_is_too_large_or_too_slow(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages_server, "MAX_BODY", 5000)
    assert error_of(post(served.url, asked()))[:2] == (413, "request_too_large")
    monkeypatch.setattr(messages_server, "BODY_SECONDS", 0.3)
    with socket.create_connection(served.address, timeout=20) as client:
        client.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert client.recv(65536).startswith(b"HTTP/1.1 408 ")


def cut_off(client: socket.socket) -> bool:
    """Whether the server ends the connection before the socket's timeout."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nhost:"])
def test_headers_that_never_end(serve: Callable[..., Any], student: Path, sent: bytes, monkeypatch: Any) -> None:
    monkeypatch.setattr(patient_protocol, "HEADER_SECONDS", 0.3)
    address = serve(student).address
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(sent)
        assert cut_off(client)
    with socket.create_connection(address, timeout=20) as client:  # and on a connection that has been used
        client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"GET /health HTTP/1.1\r\n")
        assert cut_off(client)


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_hangs_up_frees_its_slot(serve: Callable[..., Any], endless: Path, stream: bool) -> None:
    running = serve(endless, slots=1)
    body = json.dumps(asked(max_tokens=4000, stream=stream)).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(running.address) as client:
        client.sendall(head + body)
        if stream:
            assert client.recv(10)
        until(lambda: httpx2.get(running.url + "/health").json()["free"] == 0)
    until(lambda: httpx2.get(running.url + "/health").json()["free"] == 1)
    assert content(running.url, max_tokens=3)


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_hangs_up_while_it_waits_leaves_its_place_to_others(
    serve: Callable[..., Any], endless: Path, stream: bool
) -> None:
    running = serve(endless, slots=1, waiting=1)
    body = json.dumps(asked(max_tokens=4000, stream=stream)).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    def waiting() -> int:
        return int(httpx2.get(running.url + "/health").json()["waiting"])

    with socket.create_connection(running.address) as first:
        first.sendall(head + body)
        until(lambda: httpx2.get(running.url + "/health").json()["free"] == 0)
        for _ in range(3):
            with socket.create_connection(running.address) as second:
                second.sendall(head + body)
                until(lambda: waiting() == 1)
            until(lambda: waiting() == 0)
        assert httpx2.get(running.url + "/health").json()["free"] == 0, "the first is still at work"
    assert content(running.url, max_tokens=3)


def until(condition: Callable[[], bool]) -> None:
    """Waits for what must come soon: 4,000 tokens of this model take many times as long."""
    deadline = time.monotonic() + 3
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_too_many_clients_are_told_to_come_back(serve: Callable[..., Any], endless: Path) -> None:
    running = serve(endless, slots=1, waiting=1, patience=0.2)
    begun = threading.Event()
    end = threading.Event()

    def occupy() -> None:
        with httpx2.stream("POST", running.url + "/v1/messages", json=asked(stream=True), timeout=60) as response:
            for _ in response.iter_bytes():
                begun.set()
                if end.is_set():
                    return

    thread = threading.Thread(target=occupy)
    thread.start()
    try:
        assert begun.wait(20)
        response = post(running.url, asked())
        assert error_of(response)[:2] == (529, "overloaded_error")
        assert response.headers["retry-after"] == "2"
    finally:
        end.set()
        thread.join()


def test_several_conversations_at_once_get_their_own_answers(serve: Callable[..., Any], student: Path) -> None:
    url = serve(student, slots=2).url
    prompts = ["What is x?", "Do both."] * 4
    found: list[tuple[str, Any]] = []

    def ask(prompt: str) -> None:
        found.append((prompt, [b["type"] for b in content(url, {"role": "user", "content": prompt})]))

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kinds = {"What is x?": ["text", "tool_use"], "Do both.": ["tool_use", "tool_use"]}
    assert sorted(found) == sorted((prompt, kinds[prompt]) for prompt in prompts)


def test_nothing_is_printed(served: Any, capfd: pytest.CaptureFixture[str]) -> None:
    canary = "CANARY-7281"
    bodies = [asked({"role": "user", "content": canary}, max_tokens=5), {"messages": canary}, asked(max_tokens=canary)]
    for body, path in chain.from_iterable(((b, "/v1/messages"), (b, "/v1/messages/count_tokens")) for b in bodies):
        assert canary not in post(served.url, body, path, **{"x-api-key": canary}).text
    assert capfd.readouterr() == ("", "")
