"""An exported model behind Ollama's API: the smoke test is answered by the model itself."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from trainer.config import DeployConfig
from trainer.deploy.admission import Candidate
from trainer.deploy.ollama_deployer import SmokeTest, deploy
from trainer.deploy.other_servers import for_llama_server, for_vllm
from trainer.errors import TrainerError
from trainer.export.export_records import DoctorReport, Provenance
from trainer.export.llama_runtime import GgufModel
from trainer.export.llama_server import free_port, running
from trainer.export.registry import Registry
from trainer.student.chat_format import template_text

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


def test_vllm_gets_weights_and_template_that_transformers_reads(learned: Path, exported: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaForCausalLM

    path = tmp_path / "m.gguf"
    path.write_bytes(exported.quantized.read_bytes())
    file = exported.report.quantized.model_copy(update={"path": str(path)})
    report = exported.report.model_copy(update={"name": "m", "plain": file, "quantized": file})
    entry = Registry(tmp_path).register(report, DoctorReport(path="m", healthy=True, checks=[]), Provenance())
    files = for_vllm(Candidate(path, entry), DeployConfig(num_ctx=999))
    assert files.command[1:3] == ["serve", str(tmp_path / "m-vllm")]
    assert files.command[files.command.index("--max-model-len") + 1] == "999"
    assert Path(files.template).read_text() == template_text()
    assert AutoTokenizer.from_pretrained(files.model).chat_template == template_text()
    merged, base = (LlamaForCausalLM.from_pretrained(folder).state_dict() for folder in (files.model, learned))
    assert merged.keys() == base.keys()
    assert all(bool((merged[name].float() - base[name].float()).abs().max() < 1e-2) for name in base)


if shutil.which("llama-server"):  # where it is built or installed, it is asked; docs/deploy.md says whether it was

    def test_llama_server_answers_with_the_call_it_learned(exported: Any, database: Any, tmp_path: Path) -> None:
        path = tmp_path / "m.gguf"
        path.write_bytes(exported.quantized.read_bytes())
        config = DeployConfig(port=free_port(), slots=1)
        files = for_llama_server(Candidate(path), config)
        system, user = database().reset()
        schemas = [tool["function"] for tool in database.tools]
        tools = [{"name": f["name"], "description": f["description"], "input_schema": f["parameters"]} for f in schemas]
        request = {"model": config.model, "max_tokens": 100, "system": system["content"], "messages": [user]}
        with running(files.command, files.url) as client:
            answer = client.post("/v1/messages", json={**request, "tools": tools}).json()
        assert [block["type"] for block in answer["content"]] == ["text", "tool_use"], answer
        assert answer["content"][1]["name"] == "Query"
        assert answer["stop_reason"] == "tool_use"


def test_model_that_was_asked_for_tools_it_never_saw_is_kept_out(ollama: Any, exported: Any) -> None:
    with pytest.raises(TrainerError, match="failed the smoke test"):
        deploy(Candidate(exported.quantized), DeployConfig(host=ollama.url))
    assert "cc-claude-agent:latest" not in ollama.state.models
