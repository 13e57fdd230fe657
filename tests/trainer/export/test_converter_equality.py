"""Our GGUF beside that of llama.cpp's own converter: tensor by tensor and key by key.

The checkpoint has Llama 3's vocabulary layout (128,256 tokens), made on the spot. The converters are the ones of the
llama-cpp-python sdist, run in a process of their own; see benchmarks/llama_converter.py for the two answers that they
are given. Every difference that is meant is listed here, and nothing else may differ.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.config import ExportConfig
from trainer.export.adapter_gguf import export_adapter
from trainer.export.export_records import Provenance
from trainer.export.gguf_exporter import write_plain
from trainer.export.gguf_file import GgufFile
from trainer.student.chat_format import template_text

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from llama_converter import command
from random_llama import BYTE_LEVEL_TOKENS, write_llama

pytestmark = pytest.mark.slow

SMALL = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
EOT, EOM = BYTE_LEVEL_TOKENS + 9, BYTE_LEVEL_TOKENS + 8
OURS_DIFFER = {
    "general.name",  # the model's name; the converter takes the folder's
    "tokenizer.chat_template",  # the trainer's
    "tokenizer.ggml.add_bos_token",  # the template writes the BOS
}
OURS_ALONE = {
    "tokenizer.ggml.eot_token_id",  # said, where the converter leaves llama.cpp to find them by their text
    "tokenizer.ggml.eom_token_id",
    "general.license",
    "general.base_model.count",
    "general.base_model.0.name",
    "claude_capture.teachers",
    "claude_capture.dataset_hash",
    "claude_capture.parent",
    "claude_capture.student_prompt",
    "claude_capture.rope_type",
}
THEIRS_ALONE = {
    "general.size_label",  # guessed from the number of parameters
    "tokenizer.ggml.add_eos_token",  # both false, which is what llama.cpp takes where they are not said
    "tokenizer.ggml.add_sep_token",
}


def run(arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def values(file: GgufFile) -> dict[str, Any]:
    return {key: file.get(key) for key in file.header_keys()}


def assert_same_tensors(ours: GgufFile, theirs: GgufFile) -> None:
    assert [tensor.name for tensor in ours.tensors] == [tensor.name for tensor in theirs.tensors]
    for mine, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (mine.tensor_type, mine.shape.tolist()) == (other.tensor_type, other.shape.tolist()), mine.name
        assert np.array_equal(mine.data.view(np.uint8), other.data.view(np.uint8)), mine.name


@pytest.mark.parametrize(("float_type", "tied"), [("f16", False), ("bf16", True)])
def test_file_is_the_converters_but_for_what_is_meant(float_type: Any, tied: bool, tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base", "{{ messages }}", **SMALL, tie_word_embeddings=tied)
    config = ExportConfig(float_type=float_type, context_length=131_072)
    origin = Provenance(base_model="b", teachers=["t"], dataset_hash="d", parent="p", licence="mit", student_prompt="s")
    write_plain(base, None, tmp_path / "ours.gguf", "ours", config, provenance=origin)
    run(command("hf", base, tmp_path / "theirs.gguf", float_type))
    ours, theirs = GgufFile(tmp_path / "ours.gguf"), GgufFile(tmp_path / "theirs.gguf")

    assert ours.tensors[0].name == "rope_freqs.weight"
    assert_same_tensors(ours, theirs)
    mine, other = values(ours), values(theirs)
    assert len(mine["tokenizer.ggml.tokens"]) == 128_256
    assert mine.keys() - other.keys() == OURS_ALONE
    assert other.keys() - mine.keys() == THEIRS_ALONE
    assert {key for key in mine.keys() & other.keys() if mine[key] != other[key]} == OURS_DIFFER
    assert (mine["tokenizer.ggml.eot_token_id"], mine["tokenizer.ggml.eom_token_id"]) == (EOT, EOM)
    assert mine["tokenizer.ggml.eos_token_id"] == EOT
    assert (other["tokenizer.ggml.add_eos_token"], other["tokenizer.ggml.add_sep_token"]) == (False, False)
    assert (mine["tokenizer.ggml.add_bos_token"], other["tokenizer.ggml.add_bos_token"]) == (False, True)
    assert mine["tokenizer.chat_template"] == template_text()


def test_adapter_file_is_the_converters_but_for_the_metadata(make_adapter: Any, tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base", "{{ messages }}", **SMALL, tie_word_embeddings=False)
    folder, _ = make_adapter(base, tmp_path / "adapter", rank_pattern={"v_proj": 2})
    made = export_adapter(base, folder, tmp_path, "ours")
    run(command("lora", folder, base, tmp_path / "theirs.gguf"))
    ours, theirs = GgufFile(Path(made.path)), GgufFile(tmp_path / "theirs.gguf")

    assert {tensor.name for tensor in ours.tensors} == {tensor.name for tensor in theirs.tensors}
    for mine in ours.tensors:
        other = theirs.tensor(mine.name)
        assert other is not None
        assert mine.tensor_type == other.tensor_type
        assert np.array_equal(mine.data, other.data), mine.name
    mine, other = values(ours), values(theirs)
    needed = {key for key in other if not key.startswith("general.") or key in ("general.type", "general.architecture")}
    assert {key: mine.get(key) for key in needed} == {key: other[key] for key in needed}
    assert {"adapter.type", "adapter.lora.alpha"} <= needed
