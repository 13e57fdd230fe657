"""The exported file computes what the trained model computes, and reads text as the trainer reads it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from trainer.config import ExportConfig
from trainer.errors import TrainerError
from trainer.export.doctor_corpus import PIECES, strings
from trainer.export.gguf_exporter import export_model
from trainer.export.llama_runtime import GgufModel
from trainer.export.parity import compare, compute_in_float32, export_parity, gguf_parity, parity, tokenizer_parity
from trainer.student.tiny_llama import train_tokenizer


@pytest.fixture(scope="session")
def texts(tokenizer: Any) -> list[str]:
    """Random tokens: harder on a model than prose, since no prediction is easy."""
    generator = torch.Generator().manual_seed(0)
    return [tokenizer.decode(torch.randint(0, 700, (250,), generator=generator)) for _ in range(4)]


def test_base_of_16_bit_stays_16_bit_in_memory_and_is_multiplied_in_32(
    make_base: Any, make_adapter: Any, texts: list[str], tmp_path: Path
) -> None:
    wide = LlamaForCausalLM.from_pretrained(make_base(), dtype=torch.bfloat16)
    base = tmp_path / "base"
    shutil.copytree(make_base(), base)
    wide.save_pretrained(base)
    adapter, _ = make_adapter(base, tmp_path / "adapter")
    made = export_model(base, adapter, tmp_path, "m", ExportConfig(context_length=1024))
    found = export_parity(made, texts[:2]).plain
    assert found.max_logit_diff < 0.01
    ids = torch.arange(3, 200).unsqueeze(0)
    with torch.inference_mode():
        exact = LlamaForCausalLM.from_pretrained(base, dtype="float32")(ids).logits
        rounded = wide(ids).logits
        compute_in_float32(wide)
        computed = wide(ids).logits
    assert {weight.dtype for weight in wide.parameters()} == {torch.bfloat16}
    assert (computed - exact).abs().max() < 1e-5 < (rounded - exact).abs().max()


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped queries and llama3 rope": {"num_key_value_heads": 2, "rope_parameters": LLAMA3},
    "tied embeddings": {"tie_word_embeddings": True},
    "head size of its own": {"head_dim": 32},
    "linear rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "large norm epsilon": {"rms_norm_eps": 0.1},
}


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_f16_file_agrees_with_transformers(
    changes: dict[str, Any], make_base: Any, tokenizer: Any, texts: list[str], tmp_path: Path
) -> None:
    base = make_base(**changes)
    report = export_model(base, None, tmp_path, "m", ExportConfig(context_length=1024, quantization="q8_0"))
    model = LlamaForCausalLM.from_pretrained(base).eval()
    found = parity(Path(report.plain.path), model, tokenizer, texts)
    assert found.argmax_agreement >= 0.995
    assert found.max_logit_diff < 0.02
    assert found.kl < 1e-4
    assert found.tokens > 900


def test_trained_model_keeps_its_predictions_through_both_steps(
    exported: Any, texts: list[str], learned_text: str
) -> None:
    found = export_parity(exported.report, texts)
    assert found.plain.argmax_agreement >= 0.999
    assert 0 < found.quantized.kl < 0.05
    # On text that it never learned the model wavers between tokens; what it learned must survive 4 bits.
    known = export_parity(exported.report, [learned_text])
    assert known.quantized.argmax_agreement >= 0.95


def test_bf16_file_agrees_with_transformers(
    learned: Path, tokenizer: Any, texts: list[str], learned_text: str, tmp_path: Path
) -> None:
    config = ExportConfig(context_length=1024, float_type="bf16", quantization="q6_k")
    report = export_model(learned, None, tmp_path, "m", config)
    model = LlamaForCausalLM.from_pretrained(learned).eval()
    assert parity(Path(report.plain.path), model, tokenizer, texts).argmax_agreement >= 0.98
    known = gguf_parity(Path(report.plain.path), Path(report.quantized.path), [learned_text])
    assert known.argmax_agreement >= 0.97


def test_wrong_model_is_told_apart(exported: Any, make_base: Any, tokenizer: Any, texts: list[str]) -> None:
    other = LlamaForCausalLM.from_pretrained(make_base(num_key_value_heads=1)).eval()
    assert parity(exported.plain, other, tokenizer, texts).argmax_agreement < 0.2


def test_measures_follow_their_definitions() -> None:
    reference = np.array([[0.0, 1.0], [3.0, 0.0]], dtype=np.float32)
    candidate = np.array([[0.5, 0.0], [3.0, 0.0]], dtype=np.float32)
    found = compare(lambda _: reference, lambda _: candidate, [[1, 2], []])
    p = np.exp(reference) / np.exp(reference).sum(-1, keepdims=True)
    q = np.exp(candidate) / np.exp(candidate).sum(-1, keepdims=True)
    assert (found.argmax_agreement, found.max_logit_diff, found.tokens) == (0.5, 1.0, 2)
    assert found.kl == pytest.approx((p * np.log(p / q)).sum() / 2)


def test_nothing_to_compare_is_an_error(exported: Any) -> None:
    with pytest.raises(TrainerError, match="no text to compare on"):
        gguf_parity(exported.plain, exported.quantized, [""])


def test_ten_thousand_strings_are_read_alike(make_base: Any, tmp_path: Path) -> None:
    """A tokenizer with many merges over every script, so that every rule of the split has something to join."""
    rich = train_tokenizer(PIECES * 8, 1024)
    base = make_base(vocab_size=1024, num_hidden_layers=1)
    rich.save_pretrained(base)
    report = export_model(base, None, tmp_path, "m", ExportConfig(context_length=512))
    with GgufModel(Path(report.quantized.path), vocab_only=True) as llama:
        found = tokenizer_parity(llama, rich, strings(10_000))
        merged = [llama.encode(text) for text in PIECES]
    assert found.first_difference is None
    assert (found.equal, found.strings) == (10_000, 10_000)
    assert sum(map(len, merged)) < sum(len(text.encode()) for text in PIECES) / 2


def test_different_reading_is_reported_with_the_string(exported: Any) -> None:
    class Letters:
        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            return [ord(letter) for letter in text]

    with GgufModel(exported.plain, vocab_only=True) as llama:
        found = tokenizer_parity(llama, Letters(), ["abc"])
    assert found.equal == 0
    assert (found.first_difference or "").startswith("'abc': llama.cpp [")
