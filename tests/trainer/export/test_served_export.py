"""An exported model behind Ollama's API: the smoke test is answered by the model itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from trainer.config import DeployConfig
from trainer.deploy.admission import Candidate
from trainer.deploy.ollama_deployer import SmokeTest, deploy
from trainer.errors import TrainerError
from trainer.export.llama_runtime import GgufModel

sys.path.insert(0, str(Path(__file__).parents[2] / "contract"))

from ollama_server import OllamaServer


@pytest.fixture
def ollama(exported: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The contract server, with llama.cpp behind `generate` as in Ollama: special tokens are read and shown."""
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    with GgufModel(exported.quantized) as llama, OllamaServer(tmp_path) as server:

        def reply(request: dict[str, Any]) -> str:
            ids = llama.encode(request["prompt"], add_special_tokens=True)
            written = llama.generate(ids, max_new_tokens=request["options"]["num_predict"])
            return llama.decode(written[:-1] if llama.ends_generation(written[-1]) else written)

        server.state.reply = reply
        yield server


def test_model_answers_its_smoke_test_with_the_call_it_learned(ollama: Any, exported: Any, database: Any) -> None:
    smoke = SmokeTest(messages=database().reset(), tools=database.tools)
    report = deploy(Candidate(exported.quantized), DeployConfig(host=ollama.url), smoke=smoke)
    assert report.calls == ["Query"]
    assert report.num_ctx == 2048


def test_model_that_was_asked_for_tools_it_never_saw_is_kept_out(ollama: Any, exported: Any) -> None:
    with pytest.raises(TrainerError, match="failed the smoke test"):
        deploy(Candidate(exported.quantized), DeployConfig(host=ollama.url))
    assert "cc-claude-agent:latest" not in ollama.state.models
