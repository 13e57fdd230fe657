"""An export is whole or not there, says where it comes from, and refuses what it cannot do well."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from trainer.config import ExportConfig
from trainer.errors import TrainerError
from trainer.export.atomic_file import partial_file
from trainer.export.export_records import sha256_of
from trainer.export.gguf_exporter import export_model
from trainer.export.gguf_file import GgufFile
from trainer.export.gguf_writer import LlamaShape, permute, rope_factors
from trainer.export.llama_vocabulary import LLAMA3_SPLIT
from trainer.export.lora_merge import write_merged_checkpoint
from trainer.export.quantization import quantization_types
from trainer.student.chat_format import template_text
from trainer.student.tiny_llama import LLAMA3_SPLIT as STUDENT_SPLIT

CONFIG = ExportConfig(context_length=1024)


def changed_json(source: Path, target: Path, file: str, change: Any) -> Path:
    """A copy of a base folder with one JSON file changed."""
    shutil.copytree(source, target)
    value = json.loads((target / file).read_text())
    change(value)
    (target / file).write_text(json.dumps(value))
    return target


def test_files_have_the_names_of_the_house_and_say_where_they_come_from(exported: Any) -> None:
    assert exported.plain.name == "llama-claude-bc-v1.gguf"
    assert exported.quantized.name == "llama-claude-bc-v1-q4_k_m.gguf"
    for file in (exported.report.plain, exported.report.quantized):
        assert file.sha256 == sha256_of(Path(file.path))
        assert file.bytes == Path(file.path).stat().st_size
        header = GgufFile(Path(file.path))
        assert header.get("general.name") == "llama-claude-bc-v1"
        assert header.get("general.license") == "apache-2.0"
        assert header.get("general.base_model.0.name") == "tiny"
        assert header.get("claude_capture.teachers") == ["scripted-teacher-1"]
        assert header.get("claude_capture.dataset_hash") == "0123456789ab"
        assert header.get("tokenizer.chat_template") == template_text()
        assert header.get("llama.context_length") == 2048
    assert exported.report.quantized.bytes < exported.report.plain.bytes / 2.5
    assert not [path for path in exported.plain.parent.iterdir() if path.suffix != ".gguf"]


def test_header_has_what_llama_needs(exported: Any) -> None:
    file = GgufFile(exported.plain)
    expected = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.embedding_length": 256,
        "llama.feed_forward_length": 512,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 64,
        "llama.rope.freq_base": 500_000.0,
        "llama.vocab_size": 768,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {key: file.get(key) for key in expected} == expected
    assert file.get("llama.attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    tokens = file.get("tokenizer.ggml.tokens")
    named = {role: tokens[file.get(f"tokenizer.ggml.{role}_token_id")] for role in ("bos", "eos", "eot", "eom")}
    assert named == {"bos": "<|begin_of_text|>", "eos": "<|eot_id|>", "eot": "<|eot_id|>", "eom": "<|eom_id|>"}


def test_tied_embedding_is_written_once(make_base: Any, tmp_path: Path) -> None:
    report = export_model(make_base(tie_word_embeddings=True), None, tmp_path, "m", CONFIG)
    file = GgufFile(Path(report.plain.path))
    assert file.tensor("output.weight") is None
    assert file.tensor("token_embd.weight") is not None


def test_rope_factors_are_those_of_transformers() -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(hidden_size=4096, num_attention_heads=32, max_position_embeddings=131072, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 500_000.0 ** -(torch.arange(0, 128, 2).float() / 128)
    factors = rope_factors(LlamaShape.of(config.to_dict()))
    assert factors is not None
    torch.testing.assert_close(plain / factors, scaled, rtol=1e-5, atol=0)


def test_both_generations_of_config_are_read() -> None:
    old = {"rope_theta": 7.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    new = {"rope_parameters": {"rope_theta": 7.0, "rope_type": "linear", "factor": 2.0}}
    common = {
        "vocab_size": 8,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 64,
    }
    shapes = [LlamaShape.of({**common, **variant}) for variant in (old, new)]
    assert [(shape.rope["rope_type"], shape.rope["rope_theta"], shape.rope["factor"]) for shape in shapes] == [
        ("linear", 7.0, 2.0)
    ] * 2
    assert shapes[0].kv_heads == 4
    assert shapes[0].head_size == 16


def test_permutation_pairs_the_halves_of_every_head() -> None:
    rows = torch.arange(8).reshape(8, 1)
    assert permute(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_shards_give_the_same_file(make_base: Any, tmp_path: Path) -> None:
    whole = export_model(make_base(), None, tmp_path / "a", "m", CONFIG)
    base = make_base(max_shard_size="500KB")
    assert len(list(base.glob("*.safetensors"))) > 3
    told: list[tuple[str, int, int]] = []
    sharded = export_model(base, None, tmp_path / "b", "m", CONFIG, progress=lambda *step: told.append(step))
    assert list(dict.fromkeys(what for what, _, _ in told)) == ["writing", "quantising", "hashing"]
    for what in ("writing", "hashing"):
        done = [(part, whole) for kind, part, whole in told if kind == what]
        assert done == sorted(done)
        assert done[-1][0] == done[-1][1]
    first, second = GgufFile(Path(whole.plain.path)), GgufFile(Path(sharded.plain.path))
    for tensor in first.tensors:
        other = second.tensor(tensor.name)
        assert other is not None
        assert np.array_equal(tensor.data, other.data)


def test_every_quantisation_that_llama_knows_can_be_named(learned: Path, tmp_path: Path) -> None:
    assert {"q4_k_m", "q8_0", "q6_k", "iq4_xs", "bf16"} <= set(quantization_types())
    report = export_model(learned, None, tmp_path, "m", ExportConfig(context_length=512, quantization="IQ4_XS"))
    assert Path(report.quantized.path).name == "m-iq4_xs.gguf"
    with pytest.raises(TrainerError, match="unknown quantisation 'q4_k_mm'; did you mean 'q4_k_m'"):
        export_model(learned, None, tmp_path, "m", ExportConfig(context_length=512, quantization="q4_k_mm"))


def test_what_llama_refuses_to_quantise_is_told_in_its_words(learned: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"llama\.cpp cannot quantise it to iq1_s: .*imatrix"):
        export_model(learned, None, tmp_path, "m", ExportConfig(context_length=512, quantization="iq1_s"))
    assert list(tmp_path.iterdir()) == []


def test_quantised_base_is_refused(make_base: Any, tmp_path: Path) -> None:
    base = changed_json(
        make_base(), tmp_path / "b", "config.json", lambda c: c.update(quantization_config={"quant_method": "bnb"})
    )
    with pytest.raises(TrainerError, match="these are bnb weights; an adapter is merged into the 16-bit base only"):
        export_model(base, None, tmp_path / "m", "m", CONFIG)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", lambda c: c.update(model_type="qwen3"), "model_type is 'qwen3'"),
        ("config.json", lambda c: c["rope_parameters"].update(rope_type="yarn"), "rope type 'yarn' is not exported"),
        ("config.json", lambda c: c.update(max_position_embeddings=512), "was made for 512 positions; lower it"),
        ("config.json", lambda c: c.pop("num_attention_heads"), r"config\.json: num_attention_heads is None; download"),
        ("config.json", lambda c: c.update(hidden_size="big"), "hidden_size is 'big'; download"),
        ("config.json", lambda c: c.update(num_hidden_layers=0), "num_hidden_layers is 0; download"),
        ("config.json", lambda c: c.pop("rms_norm_eps"), "rms_norm_eps is None; download"),
        (
            "config.json",
            lambda c: c["rope_parameters"].update(rope_type="llama3"),
            "'llama3' has factor None; download",
        ),
        ("config.json", lambda c: c.update(vocab_size=700), "the tokenizer has id 767, the embedding only 700 rows"),
        (
            "tokenizer.json",
            lambda t: t.update(model=None),
            r"tokenizer\.json: not a tokenizer as Hugging Face saves it",
        ),
        ("tokenizer.json", lambda t: t["model"].pop("merges"), r"not a tokenizer .*\(KeyError: 'merges'\)"),
        ("tokenizer.json", lambda t: t["model"].update(ignore_merges=False), "ignore_merges=False"),
        ("tokenizer.json", lambda t: t.update(pre_tokenizer={"type": "ByteLevel"}), "not split as in Llama 3"),
        ("tokenizer.json", lambda t: t.update(normalizer={"type": "NFC"}), "not split as in Llama 3"),
        (
            "tokenizer.json",
            lambda t: t.update(added_tokens=[a for a in t["added_tokens"] if a["content"] != "<|eom_id|>"]),
            r"control token <\|eom_id\|> is missing",
        ),
    ],
)
def test_unfit_base_is_refused_and_earlier_files_stay(
    make_base: Any, tmp_path: Path, file: str, change: Any, message: str
) -> None:
    base = changed_json(make_base(), tmp_path / "base", file, change)
    models = tmp_path / "models"
    models.mkdir()
    (models / "m.gguf").write_text("earlier")
    with pytest.raises(TrainerError, match=message) as failure:
        export_model(base, None, models, "m", CONFIG)
    assert "\n" not in str(failure.value)
    assert {path.name: path.read_text() for path in models.iterdir()} == {"m.gguf": "earlier"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "holds NaN or infinite values: training diverged"),
        (1e6, 'holds values beyond the range of f16; set export.float_type = "bf16"'),
    ],
)
def test_broken_weights_are_refused(make_base: Any, tmp_path: Path, value: float, message: str) -> None:
    base = make_base()
    weights = load_file(base / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = value
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainerError, match=rf"model\.layers\.1\.mlp\.down_proj\.weight {message}"):
        export_model(base, None, tmp_path / "models", "m", CONFIG)
    assert list((tmp_path / "models").iterdir()) == []


def test_base_that_says_it_is_not_quantised_is_taken(make_base: Any, tmp_path: Path) -> None:
    base = changed_json(make_base(), tmp_path / "b", "config.json", lambda c: c.update(quantization_config=None))
    assert export_model(base, None, tmp_path / "m", "m", CONFIG).tensors > 10


def test_files_are_their_owners_alone(exported: Any, learned: Path, tmp_path: Path) -> None:
    merged = write_merged_checkpoint(learned, None, tmp_path / "merged")
    modes = [path.stat().st_mode & 0o777 for path in (exported.plain, exported.quantized, merged)]
    assert modes == [0o600, 0o600, 0o700]


def test_missing_files_are_named(make_base: Any, tmp_path: Path) -> None:
    base = make_base(max_shard_size="500KB")
    next(base.glob("model-00002-*.safetensors")).unlink()
    with pytest.raises(TrainerError, match=r"shard model-00002-of-.* is missing"):
        export_model(base, None, tmp_path, "m", CONFIG)
    (base / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    with pytest.raises(TrainerError, match=r"index\.json: it has no weight_map; download the base again"):
        export_model(base, None, tmp_path, "m", CONFIG)
    with pytest.raises(TrainerError, match=r"config\.json: missing"):
        export_model(tmp_path, None, tmp_path, "m", CONFIG)
    with pytest.raises(TrainerError, match="no such folder"):
        export_model("./nowhere", None, tmp_path, "m", CONFIG)


def test_cut_weights_are_named(make_base: Any, tmp_path: Path) -> None:
    base = make_base()
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(TrainerError, match=r"model\.safetensors: cannot be read as safetensors"):
        export_model(base, None, tmp_path, "m", CONFIG)


def test_split_is_the_students() -> None:
    assert LLAMA3_SPLIT == STUDENT_SPLIT


def test_full_disk_is_one_line_and_earlier_files_stay(learned: Path, tmp_path: Path) -> None:
    """The partial files are /dev/full: every write ends as on a disk without room."""
    models = tmp_path / "models"
    models.mkdir()
    (models / "m.gguf").write_text("earlier")
    plain = models / f".m.gguf.{os.getpid()}.partial"
    plain.symlink_to("/dev/full")
    with pytest.raises(TrainerError, match=r"no room on the disk .*free some space and run again") as failure:
        export_model(learned, None, models, "m", CONFIG)
    assert "\n" not in str(failure.value)
    assert {path.name: path.read_text() for path in models.iterdir()} == {"m.gguf": "earlier"}

    quantized = models / f".m-q4_k_m.gguf.{os.getpid()}.partial"
    quantized.symlink_to("/dev/full")
    with pytest.raises(TrainerError, match=r"no room on the disk \(llama\.cpp could not write") as failure:
        export_model(learned, None, models, "m", CONFIG)
    assert "\n" not in str(failure.value)
    assert {path.name: path.read_text() for path in models.iterdir()} == {"m.gguf": "earlier"}


LIMITED = """
import resource, sys
from pathlib import Path
from trainer.config import ExportConfig
from trainer.errors import TrainerError
from trainer.export.gguf_exporter import export_model
from trainer.export.lora_merge import write_merged_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
base, models = map(Path, sys.argv[1:])
for write in (
    lambda: export_model(base, None, models, "m", ExportConfig(context_length=512)),
    lambda: write_merged_checkpoint(base, None, models / "merged"),
):
    try:
        write()
    except TrainerError as error:
        print(error)
"""


def test_file_size_limit_is_told_like_a_full_disk(learned: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    done = subprocess.run([sys.executable, "-c", LIMITED, learned, models], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout
    assert all("no room on the disk (File too large)" in line for line in lines)
    assert list(models.iterdir()) == []


def test_export_that_cannot_fit_is_refused_before_it_starts(
    learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(TrainerError, match=r"GB are needed for both files, 0\.0 GB are free"):
        export_model(learned, None, tmp_path, "m", CONFIG)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_killed_exports_leave_whole_files_and_a_second_run_finishes() -> None:
    """A few kills of the benchmark that makes fifty."""
    command = Path(__file__).parents[3] / "benchmarks" / "export_kills.py"
    done = subprocess.run(
        [sys.executable, command, "--kills", "6", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["kills"], found["broken"], found["leftovers_after_a_rerun"]) == (6, [], [])
    assert found["rerun_finishes"]


def test_leftovers_of_dead_processes_are_cleared_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    dead = process.pid
    (tmp_path / f".other.gguf.{dead}.partial").write_text("x")
    (tmp_path / f".m.gguf.{os.getppid()}.partial").write_text("x")
    (tmp_path / f".folder.{dead}.partial").mkdir()
    (tmp_path / f".moved.{dead}.replaced").mkdir()
    (tmp_path / ".hidden").write_text("x")
    with partial_file(tmp_path / "m.gguf") as partial:
        partial.write_text("whole")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted([f".m.gguf.{os.getppid()}.partial", ".hidden", "m.gguf", "moved"])
