"""Merging an adapter gives the weights that peft computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from trainer.errors import TrainerError
from trainer.export.checkpoint import Checkpoint
from trainer.export.lora_merge import LoraAdapter

pytestmark = [  # what peft says about itself
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers. to:UserWarning"),
]
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_adapter(base: Path, folder: Path, **changes: Any) -> tuple[Path, Any]:
    """An adapter whose both factors are random, and the model that it sits on."""
    settings = {"r": 8, "lora_alpha": 16, "target_modules": ALL_LINEAR, "task_type": "CAUSAL_LM", **changes}
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), LoraConfig(**settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.normal_(0, 0.05)
    model.save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True},
        {"alpha_pattern": {"q_proj": 64, "layers.1.mlp.up_proj": 3}, "rank_pattern": {"v_proj": 2}},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["lm_head", "down_proj"]},
    ],
    ids=["all linear", "rank-stabilised", "patterns", "saved module", "output matrix"],
)
def test_merged_weights_are_those_of_peft(make_base: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    base = make_base(num_key_value_heads=2)
    folder, model = make_adapter(base, tmp_path / "adapter", **changes)
    expected = model.merge_and_unload().state_dict()
    checkpoint, adapter = Checkpoint(base), LoraAdapter(folder)
    adapter.check(checkpoint.shapes, tied=False)
    before = {name: tensor.clone() for name, tensor in checkpoint.tensors()}
    found = {name: adapter.merge(name, tensor) for name, tensor in checkpoint.tensors()}
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
    changed = [name for name in found if not torch.equal(found[name], before[name])]
    assert 0 < len(changed) <= adapter.merged_modules


def test_adapter_of_another_base_is_refused(make_base: Any, tmp_path: Path) -> None:
    folder, _ = make_adapter(make_base(), tmp_path / "adapter")
    for other in (make_base(num_key_value_heads=1), make_base(num_hidden_layers=1)):
        with pytest.raises(TrainerError, match=r"wrong base: the adapter changes model\.layers"):
            LoraAdapter(folder).check(Checkpoint(other).shapes, tied=False)


def test_adapter_on_a_tied_embedding_is_refused(make_base: Any, tmp_path: Path) -> None:
    folder, _ = make_adapter(make_base(), tmp_path / "adapter", modules_to_save=["lm_head"])
    base = make_base(tie_word_embeddings=True)
    shapes = {**Checkpoint(base).shapes, "lm_head.weight": (768, 256)}
    with pytest.raises(TrainerError, match="the base ties its embeddings"):
        LoraAdapter(folder).check(shapes, tied=True)


def test_what_cannot_be_merged_is_named(make_base: Any, tmp_path: Path) -> None:
    folder, _ = make_adapter(make_base(), tmp_path / "dora", use_dora=True)
    with pytest.raises(TrainerError, match="the adapter uses DoRA"):
        LoraAdapter(folder)
    folder, _ = make_adapter(make_base(), tmp_path / "embedding", target_modules=["embed_tokens"])
    with pytest.raises(TrainerError, match="of a kind this merge does not know"):
        LoraAdapter(folder)


def test_half_an_adapter_is_refused(make_base: Any, tmp_path: Path) -> None:
    base = make_base()
    folder, _ = make_adapter(base, tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    del weights["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"]
    save_file(weights, file)
    with pytest.raises(TrainerError, match="q_proj lacks one of lora_A and lora_B"):
        LoraAdapter(folder).check(Checkpoint(base).shapes, tied=False)


def test_folder_without_an_adapter_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"adapter_config\.json: missing"):
        LoraAdapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 1}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(TrainerError, match=r"adapter_model\.safetensors: cannot be read"):
        LoraAdapter(tmp_path)
