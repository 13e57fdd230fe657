"""The preflight's arithmetic is that of the real model, and it names what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model

from tests.trainer.sft.small_sft import samples, settings, train
from tests.trainer.student.tiny_bases import tiny_base
from trainer.config import Config, StudentConfig, load_config
from trainer.preflight import sft_steps
from trainer.preflight_command import preflight
from trainer.preflight_hub import base_access
from trainer.preflight_memory import LLAMA_8B, Shape, peak, ppo_memory, sft_memory, weight_bytes
from trainer.student.base_model import load_model

CONFIG_8B = Path("configs/llama-3.1-8b.toml")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_base(tmp_path_factory.mktemp("bases")))


def test_weights_and_adapter_are_counted_as_they_are(base: Path) -> None:
    shape = Shape.read(json.loads((base / "config.json").read_text()))
    model = load_model(str(base), StudentConfig())
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert weight_bytes(shape, Config()) == sum(parameter.nbytes for parameter in model.parameters())
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert shape.adapter_parameters(8) == trained


def test_four_bit_weights_are_counted_as_they_are(base: Path) -> None:
    shape = Shape.read(json.loads((base / "config.json").read_text()))
    student = StudentConfig(load_in_4bit=True, dtype="bfloat16")
    model = load_model(str(base), student)
    held = sum(parameter.nbytes for parameter in model.parameters())
    for module in model.modules():
        if state := getattr(getattr(module, "weight", None), "quant_state", None):
            held += state.absmax.nbytes + state.state2.absmax.nbytes
    assert weight_bytes(shape, Config(student=student)) == pytest.approx(held, rel=0.01)


def test_the_8b_config_fits_a_24_gb_card_in_sft_by_this_arithmetic() -> None:
    config = load_config(CONFIG_8B)
    assert LLAMA_8B.parameters == 8_030_261_248
    parts = sft_memory(LLAMA_8B, config)
    assert 5.6e9 < parts["weights"] < 5.8e9
    assert peak(parts) * 1.1 < 23e9


def test_the_8b_config_fits_a_24_gb_card_in_ppo_by_this_arithmetic() -> None:
    config = load_config(CONFIG_8B)
    parts = ppo_memory(LLAMA_8B, config)
    assert parts["writing: keys and values"] == 16 * 4096 * 2 * 32 * 1024 * 2
    assert peak(parts) * 1.1 < 23e9
    kept = config.model_copy(update={"ppo": config.ppo.model_copy(update={"gradient_checkpointing": False})})
    assert ppo_memory(LLAMA_8B, kept)["learning: activations"] > 10 * parts["learning: activations"]
    assert peak(ppo_memory(LLAMA_8B, kept)) > 24e9


@pytest.mark.parametrize("values", [{"batch_size": 5, "gradient_accumulation": 2}, {"packing": True, "batch_size": 1}])
def test_steps_are_those_that_are_taken(base: Path, tmp_path: Path, values: dict[str, int]) -> None:
    from trainer.sft.batches import pack
    from trainer.sft.sft_trainer import encode_samples
    from trainer.student.base_model import load_tokenizer

    changed: dict[str, Any] = {"max_steps": -1, "epochs": 1.5, "max_tokens": 200} | values
    result = train(tmp_path, "run", str(base), **changed)
    lengths = [row["length"] for row in encode_samples(samples(), load_tokenizer(str(base)), 200)]
    rows = len(pack(lengths, 200)) if "packing" in values else 12
    assert sft_steps(rows, settings(**changed)) == result.steps


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a look at a model asks for: one is open, one gated, the rest unknown."""

    def do_GET(self) -> None:
        status, headers, body = 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if "/acme/gated" in self.path:
            status, headers = 403, {"X-Error-Code": "GatedRepo"}
        elif "/acme/open" in self.path:
            status, headers, body = 200, {"ETag": '"1"', "X-Repo-Commit": "0" * 40}, b'{"hidden_size": 8}'
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield address
    server.shutdown()
    server.server_close()


def test_the_hub_says_whether_a_base_can_be_had(hub: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = base_access("acme/open")
    assert (found.state, found.shape, found.fetch) == ("ready", {"hidden_size": 8}, True)
    gated = base_access("acme/gated")
    assert gated.state == "missing"
    assert f"accept it at {hub}/acme/gated" in gated.next
    assert "knows no such model" in base_access("acme/none").found
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    lost = base_access("acme/open-2")
    assert "cannot be reached" in lost.found
    assert "config.json, tokenizer.json, tokenizer_config.json and model*.safetensors" in lost.next
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in base_access("acme/open-2").found


def test_a_local_folder_is_looked_through(base: Path, tmp_path: Path) -> None:
    assert base_access(str(base)).state == "ready"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "one.safetensors"}}')
    assert base_access(str(tmp_path)).found == f"{tmp_path} lacks tokenizer.json, one.safetensors"
    assert "no folder" in base_access("./not-there").found


def test_the_command_says_what_is_missing(base: Path, tmp_path: Path) -> None:
    data = tmp_path / "data" / "datasets"
    data.mkdir(parents=True)
    (data / "bc_dataset.jsonl").write_text("".join(f"{sample.model_dump_json()}\n" for sample in samples()))
    config = tmp_path / "config.toml"
    config.write_text(f'[student]\nbase_model = "{base}"\n[sft]\nmax_steps = 5\nbatch_size = 2\n')
    result = CliRunner().invoke(preflight, ["--config", str(config), "--data", str(tmp_path / "data"), "--json"])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ready"], found["steps"], found["samples"]) == (0, True, 5, 12)
    by_name = {check["name"]: check for check in found["checks"]}
    assert {"base", "GPU", "SFT memory", "PPO memory", "disk", "data", "SFT time"} <= by_name.keys()

    config.write_text(f'[dataset]\nmax_tokens = 4000000\n[student]\nbase_model = "{base}"\n')
    result = CliRunner().invoke(preflight, ["--config", str(config), "--data", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "✗  SFT memory" in result.stdout
    assert "lower dataset.max_tokens" in " ".join(result.stdout.split())
