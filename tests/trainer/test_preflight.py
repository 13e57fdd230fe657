"""The preflight's arithmetic is that of the real model, and it names what is missing."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model

from tests.trainer.sft.small_sft import samples, settings, train
from tests.trainer.student.tiny_bases import tiny_base
from trainer.config import Config, StudentConfig, load_config, parse_config
from trainer.ppo.value_head import CHUNK_LOGITS
from trainer.preflight import peak_tflops, sft_steps
from trainer.preflight import preflight as look
from trainer.preflight_command import preflight
from trainer.preflight_hub import base_access
from trainer.preflight_memory import LLAMA_8B, PPO_LOGITS, Shape, peak, ppo_memory, sft_memory, weight_bytes
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
    assert parts["learning: hidden states"] == 32 * 4096 * 4096 * 4
    assert PPO_LOGITS == CHUNK_LOGITS
    learning = sum(size for name, size in parts.items() if name.startswith("learning"))
    always = sum(size for name, size in parts.items() if not name.startswith(("learning", "writing")))
    assert peak(parts) == always + learning > always + parts["writing: keys and values"]
    assert peak(parts) * 1.1 < 23e9
    kept = config.model_copy(update={"ppo": config.ppo.model_copy(update={"gradient_checkpointing": False})})
    assert ppo_memory(LLAMA_8B, kept)["learning: activations"] > 10 * parts["learning: activations"]
    assert peak(ppo_memory(LLAMA_8B, kept)) > 24e9


def test_every_value_of_the_8b_config_has_its_reason() -> None:
    lines = [line for line in CONFIG_8B.read_text("utf-8").splitlines() if re.match(r"\w", line)]
    assert len(lines) > 60
    assert [line for line in lines if not re.search(r" # .{8,}", line)] == []
    config = load_config(CONFIG_8B)
    assert (config.student.base_model, config.student.load_in_4bit) == ("unsloth/Meta-Llama-3.1-8B-Instruct", True)
    sft = config.sft
    assert (sft.lora_r, sft.lora_alpha, sft.epochs, sft.optimizer) == (16, 32, 3.0, "paged_adamw_8bit")
    assert all([sft.bf16, sft.gradient_checkpointing, sft.packing, sft.liger_kernels])
    assert (config.dataset.max_tokens, config.student.attention) == (4096, "auto")


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


def test_a_base_in_the_hubs_cache_is_ready_without_asking_the_hub(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    snapshot = tmp_path / "models--acme--cached" / "snapshots" / ("0" * 40)
    shutil.copytree(base, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    found = base_access("acme/cached")
    assert (found.state, found.fetch, found.found) == ("ready", False, f"in the hub's cache, {snapshot}")
    assert found.shape == json.loads((base / "config.json").read_text())
    (snapshot / "model.safetensors").unlink()
    assert base_access("acme/cached").state == "missing"


def test_a_local_folder_is_looked_through(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert base_access(str(base)).state == "ready"
    monkeypatch.setenv("HOME", str(base.parent))
    assert base_access(StudentConfig(base_model=f"~/{base.name}").base_model).found == "local folder"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "one.safetensors"}}')
    assert base_access(str(tmp_path)).found == f"{tmp_path} lacks tokenizer.json, one.safetensors"
    assert "no folder" in base_access("./not-there").found
    assert "no folder models/llama/base" in base_access("models/llama/base").found
    for name in ("tokenizer.json", "one.safetensors"):
        (tmp_path / name).write_text("")
    assert base_access(str(tmp_path)).shape == {}
    (tmp_path / "config.json").write_text("{")
    assert "config.json is not JSON" in base_access(str(tmp_path)).found


def test_a_base_that_is_no_llama_is_said_and_not_counted(tmp_path: Path) -> None:
    for name, text in (("config.json", '{"d_model": 8}'), ("tokenizer.json", ""), ("model.safetensors", "")):
        (tmp_path / name).write_text(text)
    config = parse_config({"student": {"base_model": str(tmp_path)}, "runs": str(tmp_path), "models": str(tmp_path)})
    found = {check.name: check for check in look(config, tmp_path).checks}
    assert found["size"].state == "unknown"
    assert "figures are those of Llama 3.1 8B" in found["size"].found


def test_speed_is_that_of_the_gpu_whose_name_it_is() -> None:
    names = {
        "NVIDIA H100 80GB HBM3": 989,
        "NVIDIA A100-SXM4-80GB": 312,
        "NVIDIA A10": 125,
        "NVIDIA A10G": 70,
        "NVIDIA L40S": 362,
        "NVIDIA L4": 121,
        "NVIDIA GH200 480GB": 989,
        "NVIDIA GeForce RTX 4090": 165,
        "NVIDIA RTX A4000": None,
        "Tesla T4": None,
    }
    assert {name: peak_tflops(name) for name in names} == names


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with one GPU, as torch and nvidia-smi describe it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (12 * 10**9, 80 * 10**9))
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 700.00\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


@pytest.mark.usefixtures("h100")
def test_hours_energy_memory_and_disk_of_a_gpu(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(CONFIG_8B)
    student = config.student.model_copy(update={"base_model": str(base)})
    paths = {"student": student, "runs": str(tmp_path / "runs"), "models": str(tmp_path / "models")}
    config = config.model_copy(update=paths)
    (tmp_path / "datasets").mkdir()
    lines = "".join(f"{sample.model_dump_json()}\n" for sample in samples(count=40, repeats=14))
    (tmp_path / "datasets" / "bc_dataset.jsonl").write_text(lines)
    found = look(config, tmp_path)
    shape = Shape.read(json.loads((base / "config.json").read_text()))
    flops = 3 * found.figures["tokens"] * shape.flops_per_token(found.figures["tokens"] / 40 / 3 / 2)
    assert found.figures["sft_hours"] == pytest.approx(flops / (989e12 * 0.35) / 3600, rel=1e-3)
    assert found.figures["sft_kwh"] == pytest.approx(0.7 * found.figures["sft_hours"])
    by_name = {check.name: check for check in found.checks}
    assert by_name["GPU"].found == "NVIDIA H100 80GB HBM3"
    assert "kWh at 700 W; assumes 35% of the device's peak" in by_name["SFT time"].found
    assert "12.0 of 80.0 GB free" in by_name["SFT memory"].found

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10**8, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    by_name = {check.name: check for check in look(config, tmp_path).checks}
    states = {name: by_name[name].state for name in ("GPU", "SFT memory", "PPO memory", "disk")}
    assert states == {"GPU": "warning", "SFT memory": "missing", "PPO memory": "warning", "disk": "missing"}
    assert "CUDA_VISIBLE_DEVICES=0" in by_name["GPU"].next
    assert by_name["disk"].next.startswith("make room on the disk of")


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
    assert by_name["GPU"]["state"] == "warning"
    assert re.match(r"none: SFT, PPO and held-out tests would run on \d+ CPU cores", by_name["GPU"]["found"])
    assert "configs/tiny.toml" in by_name["GPU"]["next"]

    config.write_text(f'[dataset]\nmax_tokens = 4000000\n[student]\nbase_model = "{base}"\n')
    result = CliRunner().invoke(preflight, ["--config", str(config), "--data", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "✗  SFT memory" in result.stdout
    assert "lower dataset.max_tokens" in " ".join(result.stdout.split())
