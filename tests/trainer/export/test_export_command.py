"""`claude-trainer export`: adapter in, examined and registered model out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from trainer.config import ExportConfig
from trainer.errors import TrainerError
from trainer.export.command import export
from trainer.export.gguf_file import GgufFile
from trainer.export.llama_runtime import GgufModel, run_episode
from trainer.export.parity import export_parity
from trainer.export.registry import Registry
from trainer.export.release import ReleaseReport, release

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # inside peft


@pytest.fixture(scope="module")
def adapter(learned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random change of the base that has learned the conversation."""
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM.from_pretrained(learned), settings)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.002)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


def test_adapter_becomes_a_registered_model(adapter: Path, tmp_path: Path, database: Any) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[export]\ncontext_length = 1024\n")
    gate = tmp_path / "gate.json"
    gate.write_text(json.dumps({"passed": True, "verdict": "PASS", "reasons": [], "n": 60}))
    models = tmp_path / "models"
    arguments = ["--adapter", adapter, "--name", "llama-claude-ppo-v1", "--config", config, "--output", models]
    arguments += ["--gate", gate, "--licence", "apache-2.0", "--parent", "llama-claude-bc-v1", "--json"]
    result = CliRunner().invoke(export, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    report = ReleaseReport.model_validate_json(result.stdout)
    assert report.export.merged == 4
    entry = Registry(models).get("llama-claude-ppo-v1")
    assert entry.gate is not None
    assert entry.gate.passed
    assert entry.parent == "llama-claude-bc-v1"
    assert entry.doctor.healthy
    assert sorted(path.name for path in models.iterdir() if not path.name.startswith(".")) == [
        "llama-claude-ppo-v1-q4_k_m.gguf",
        "llama-claude-ppo-v1.gguf",
        "llama-claude-ppo-v1.md",
        "registry.json",
    ]
    parity = export_parity(report.export, ["<|begin_of_text|>Transformer 1 has 630 kVA, transformer 2"])
    assert parity.plain.argmax_agreement == 1.0
    assert parity.plain.max_logit_diff < 0.02
    with GgufModel(models / entry.quantized.path) as llama:
        episode = run_episode(llama, database(), max_turns=4, max_new_tokens=100)
    assert [len(turn.message.get("tool_calls", [])) for turn in episode.parsed] == [1, 0]


def test_provenance_is_read_from_the_dataset(learned: Path, tmp_path: Path) -> None:
    from trainer.config import DatasetConfig
    from trainer.export.export_records import Provenance
    from trainer.export.release import provenance_of
    from trainer.records import BCSample

    sample = {
        "trace_id": "t",
        "prompt": "p",
        "response": "r",
        "workflow_type": "database",
        "exploration_depth": "minimal",
        "messages": [],
        "weights": [],
        "split": "train",
        "family": "f",
        "teacher": {"model": "glm-4.7"},
        "basis": "licence: MIT",
    }
    dataset = tmp_path / "bc_dataset.jsonl"
    dataset.write_text(json.dumps(sample) + "\n")
    found = provenance_of(dataset, [BCSample.model_validate(sample)] * 2, DatasetConfig(), base_model="b")
    assert isinstance(found, Provenance)
    assert found.teachers == ["glm-4.7 (licence: MIT)"]
    assert len(found.dataset_hash) == 12


def test_usage_and_known_errors(tmp_path: Path) -> None:
    assert CliRunner().invoke(export, ["--name", "m"]).exit_code == 2
    result = CliRunner().invoke(export, ["--name", "m", "--base", str(tmp_path), "--output", str(tmp_path / "models")])
    assert isinstance(result.exception, TrainerError)
    assert "config.json: missing" in str(result.exception)
    (tmp_path / "adapter_config.json").write_text("{}")
    result = CliRunner().invoke(export, ["--name", "m", "--adapter", str(tmp_path)])
    assert "the adapter does not name its base; give --base" in str(result.exception)


def test_name_whose_files_are_those_of_another_model_is_refused_before_the_work(
    adapter: Path, learned: Path, tmp_path: Path
) -> None:
    """`m-q4_k_m.gguf` would be the plain file of the one and the quantised file of the other."""
    assert release(learned, None, tmp_path, "m", ExportConfig(context_length=512)).entry is not None
    assert release(learned, None, tmp_path, "n-lora", ExportConfig(context_length=512)).entry is not None
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with pytest.raises(TrainerError, match=r"m-q4_k_m\.gguf: this is a file of m; give 'm-q4_k_m' another name"):
        release(learned, None, tmp_path, "m-q4_k_m", ExportConfig(context_length=512))
    alone = ["--adapter", str(adapter), "--output", str(tmp_path), "--adapter-only", "--name"]
    for name, message in (("n", "n-lora.gguf: this is a file of n-lora"), ("../n", "'../n' is no model name")):
        assert message in str(CliRunner().invoke(export, [*alone, name]).exception)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_what_the_doctor_found_names_the_file_where_it_lies(make_base: Any, tmp_path: Path) -> None:
    """Heads that the weights do not have: llama.cpp cannot load the file, and says its path."""
    base = shutil.copytree(make_base(), tmp_path / "base")
    stated = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**stated, "num_attention_heads": 8, "num_key_value_heads": 8}))
    models = tmp_path / "models"
    report = release(base, None, models, "m", ExportConfig(context_length=512))
    assert report.entry is None
    assert f"{models / 'refused' / 'm-q4_k_m.gguf'}: llama.cpp cannot load it" in " ".join(report.doctor.failures())
    assert ".partial" not in report.model_dump_json()


def test_config_decides_context_and_quantisation(adapter: Path, learned: Path, tmp_path: Path) -> None:
    arguments = ["--adapter", adapter, "--base", learned, "--name", "m", "--output", tmp_path]
    config = tmp_path / "c.toml"
    config.write_text("[export]\ncontext_length = 512\nquantization = 'q8_0'\n")
    result = CliRunner().invoke(export, [*map(str, arguments), "--config", str(config)])
    assert result.exit_code == 0, result.output
    assert "fit for service" in result.stdout
    assert GgufFile(tmp_path / "m-q8_0.gguf").get("llama.context_length") == 512


def test_adapter_alone_becomes_a_small_file_of_its_own(adapter: Path, tmp_path: Path) -> None:
    arguments = ["--adapter", adapter, "--name", "m", "--output", tmp_path, "--licence", "mit", "--adapter-only"]
    result = CliRunner().invoke(export, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert made["path"] == str(tmp_path / "m-lora.gguf")
    assert GgufFile(tmp_path / "m-lora.gguf").get("general.license") == "mit"
    assert [path.name for path in tmp_path.iterdir()] == ["m-lora.gguf"]
    assert "m-lora.gguf  f32" in CliRunner().invoke(export, [*map(str, arguments)]).stdout
    assert CliRunner().invoke(export, ["--name", "m", "--base", "b", "--adapter-only"]).exit_code == 2
