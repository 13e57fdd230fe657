"""A stage is judged on the model that it tries: what another one answers is not released, and not held against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from gateway_requests import CALL, TEACHER_SAYS, Build, ask, decisions, metric, until
from loopback_servers import Asked, House, Running, Upstream, http, reply
from stage_traffic import registry_with, stage_at

from trainer.config import Config, RolloutConfig
from trainer.rollout import served_model
from trainer.rollout.controller import open_rollout
from trainer.rollout.gateway import Gateway
from trainer.rollout.local_student import student_of
from trainer.rollout.served_model import is_another_tag, names_another

OURS, OTHER = "0" * 12, "b" * 12
"""The digest that `registry_with` writes, and one of another file."""


@pytest.mark.parametrize(
    ("said", "version", "another"),
    [
        ("llama-claude-ppo-v7", "llama-claude-ppo-v1", True),
        ("llama-claude-ppo-v10", "llama-claude-ppo-v1", True),
        ("llama-claude-bc-v1", "llama-claude-ppo-v1", True),
        ("llama-claude-ppo-v2-q8_0.gguf", "llama-claude-ppo-v1-q4_k_m", True),
        ("llama-claude-ppo-v1-q4_k_m.gguf", "llama-claude-ppo-v1", False),
        ("llama-claude-ppo-v1", "llama-claude-ppo-v1-q4_k_m", False),
        ("llama-claude-ppo-v7", "cc-claude-agent", False),
        ("cc-claude-agent", "llama-claude-ppo-v1", False),
        ("claude-opus-4", "llama-claude-ppo-v1", False),
        (None, "llama-claude-ppo-v1", False),
        (["llama-claude-ppo-v7"], "llama-claude-ppo-v1", False),
    ],
)
def test_only_the_name_of_another_version_is_one(said: Any, version: str, another: bool) -> None:
    assert names_another(said, version) is another


@pytest.mark.parametrize(
    ("tags", "model", "another"),
    [
        ({"m:latest": "d1", f"m:{OURS}": "d1", f"m:{OTHER}": "d2"}, "m", False),
        ({"m:latest": "d2", f"m:{OURS}": "d1", f"m:{OTHER}": "d2"}, "m", True),
        ({"m:latest": "d1", f"m:{OURS}": "d1", f"m:{OTHER}": "d1"}, "m:latest", False),
        ({f"m:{OTHER}": "d2"}, f"m:{OTHER}", True),
        ({"m:latest": "d3", f"m:{OTHER}": "d2"}, "m", False),
        ({"m:latest": "d2", f"n:{OTHER}": "d2"}, "m", False),
        ({}, "m", False),
    ],
)
def test_ollamas_tags_tell_which_file_it_is(tags: dict[str, str], model: str, another: bool) -> None:
    assert is_another_tag(tags, model, frozenset((OURS, "c" * 12))) is another


def test_a_reply_of_another_version_is_not_released_and_its_server_is_left_alone(build: Build) -> None:
    house = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL], model="llama-claude-ppo-v7")], breaker_failures=2)
    for _ in range(3):
        assert ask(house).json() == {"from": "teacher"}
    assert [line["reason"] for line in decisions(house, 3)] == ["wrong_model", "wrong_model", "circuit_open"]
    assert metric(house, "claude_gateway_breaker") == 2
    assert house.state.walk(1).failed == 1, "it says little of the model that is meant: an outage"


TAGS = {
    "models": [{"name": "cc-claude-agent:latest", "digest": "d2"}, {"name": f"cc-claude-agent:{OTHER}", "digest": "d2"}]
}
SERVERS: dict[str, tuple[dict[str, Any], bool]] = {
    "Ollama, another file": ({"/api/tags": TAGS}, True),
    "llama-server, another file": (
        {
            "/api/tags": {"models": [{"name": "cc-claude-agent", "digest": ""}]},
            "/props": {"model_path": "/models/llama-claude-ppo-v7-q4_k_m.gguf"},
        },
        True,
    ),
    "llama-server, ours": ({"/props": {"model_path": "/models/llama-claude-ppo-v1-q4_k_m.gguf"}}, False),
    "claude-trainer serve, another version": ({"/v1/models": {"data": [{"id": "llama-claude-ppo-v7"}]}}, True),
    "claude-trainer serve, ours": ({"/v1/models": {"data": [{"id": "llama-claude-ppo-v1"}]}}, False),
    "vLLM, another folder": ({"/v1/models": {"data": [{"id": "m", "root": "/models/llama-claude-ppo-v7-vllm"}]}}, True),
    "nothing that can be understood": ({"/api/tags": ["x"], "/props": "x", "/v1/models": {"data": [1]}}, False),
    "nothing at all": ({}, False),
}


@pytest.mark.parametrize(("told", "another"), SERVERS.values(), ids=SERVERS)
def test_a_server_that_is_known_to_serve_another_file_is_not_asked(
    tmp_path: Path, told: dict[str, Any], another: bool, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(served_model, "CHECK_SECONDS", 0.0)
    stated = dict(told)

    def local(asked: Asked) -> list[bytes]:
        if asked.method == "POST":
            return [reply([CALL], model="cc-claude-agent")]
        found = stated.get(asked.target)
        return [http("404 Not Found", b"{}") if found is None else http("200 OK", orjson.dumps(found))]

    registry_with(tmp_path, "PASS")
    with Upstream(lambda _: [TEACHER_SAYS]) as teacher, Upstream(local) as server:
        rollout = RolloutConfig(weights=[0, 100], shadow=False, teacher_url=teacher.url, local_url=server.url)
        config = Config(models=str(tmp_path), rollout=rollout)
        assert student_of(config).digests == {OURS}
        state = open_rollout(tmp_path / "state", rollout)
        gateway = Gateway(config, state)
        stage_at(state, 100)
        with Running(gateway) as running:
            until(lambda: len(server.asked) >= 1)
            house = House(running.url, teacher, server, state, state.folder)
            answers = [ask(house).json() for _ in range(2)]
            assert [answer == {"from": "teacher"} for answer in answers] == [another] * 2
            reasons = {line["reason"] for line in decisions(house, 2)}
            assert reasons == {"wrong_model" if another else ""}
            stated.clear()
            assert ask(house).json().get("model") == "llama-claude-ppo-v1", "it has been started with the right one"
        state.close()
    assert not [asked for asked in server.asked if asked.header("authorization") or asked.header("x-api-key")]
    assert capsys.readouterr().err.count("serves another model than llama-claude-ppo-v1") == another
