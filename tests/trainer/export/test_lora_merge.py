"""Merging an adapter gives the weights that peft computes, whatever the size of the blocks, or says why it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GenerationConfig, LlamaForCausalLM

from trainer.errors import TrainerError
from trainer.export import checkpoint as checkpoint_module
from trainer.export.checkpoint import Checkpoint, row_blocks
from trainer.export.lora_adapter import LoraAdapter, MergedWeights
from trainer.export.lora_merge import write_merged_checkpoint
from trainer.student.chat_format import template_text

pytestmark = [  # what peft says about itself
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers. to:UserWarning"),
]


@pytest.fixture(params=[8 << 20, 3_000], ids=["whole tensors", "blocks"])
def block_elements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(checkpoint_module, "BLOCK_ELEMENTS", request.param)
    return int(request.param)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True},
        {"alpha_pattern": {"q_proj": 64, "layers.1.mlp.up_proj": 3}, "rank_pattern": {"v_proj": 2}},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
        {"target_modules": ["lm_head", "down_proj"]},
        {"use_dora": True},
        {"use_dora": True, "use_rslora": True},
    ],
    ids=[
        "all linear",
        "rank-stabilised",
        "patterns",
        "saved modules",
        "output matrix",
        "DoRA",
        "DoRA, rank-stabilised",
    ],
)
def test_merged_weights_are_those_of_peft(
    make_base: Any, make_adapter: Any, tmp_path: Path, changes: dict[str, Any], block_elements: int
) -> None:
    base = make_base(num_key_value_heads=2)
    folder, model = make_adapter(base, tmp_path / "adapter", **changes)
    expected = model.merge_and_unload().state_dict()
    weights = MergedWeights(Checkpoint(base), LoraAdapter(folder))
    before = load_file(base / "model.safetensors")
    blocks = {name: list(weights.blocks(name)) for name in weights.shapes}
    assert max(block.numel() for parts in blocks.values() for block in parts) <= block_elements
    found = {name: torch.cat(parts) for name, parts in blocks.items()}
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=2e-6)
    changed = [name for name in found if not torch.equal(found[name], before[name])]
    assert len(changed) == LoraAdapter(folder).merged_modules


def test_blocks_cover_every_row_once_and_part_no_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "BLOCK_ELEMENTS", 100)
    for shape, unit in (((7,), 1), ((64, 10), 1), ((64, 10), 16), ((33, 3), 8), ((5, 200), 1)):
        spans = list(row_blocks(shape, unit))
        assert [row for first, last in spans for row in range(first, last)] == list(range(shape[0]))
        assert all((last - first) % unit == 0 for first, last in spans[:-1])


def test_merged_folder_is_the_model_that_peft_merges(
    make_base: Any, make_adapter: Any, tmp_path: Path, block_elements: int
) -> None:
    base = make_base(num_key_value_heads=2, max_shard_size="500KB")
    folder, model = make_adapter(base, tmp_path / "adapter")
    told: list[tuple[str, int, int]] = []
    target = write_merged_checkpoint(
        base, folder, tmp_path / "merged", shard_bytes=600_000, progress=lambda *step: told.append(step)
    )
    assert len(list(target.glob("model-*.safetensors"))) > 3
    merged = LlamaForCausalLM.from_pretrained(target).eval()
    assert told[-1][1] == told[-1][2] == sum(weight.nbytes for weight in merged.parameters())
    expected = model.merge_and_unload().eval()
    ids = torch.arange(3, 200).unsqueeze(0)
    with torch.inference_mode():
        torch.testing.assert_close(merged(ids).logits, expected(ids).logits, rtol=1e-4, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert tokenizer.chat_template == template_text()
    ends = GenerationConfig.from_pretrained(target).eos_token_id
    assert tokenizer.convert_ids_to_tokens(ends) == ["<|eot_id|>", "<|eom_id|>"]


def test_merged_folder_keeps_the_16_bit_type_and_replaces_an_earlier_one(
    make_base: Any, make_adapter: Any, tmp_path: Path
) -> None:
    base = make_base()
    LlamaForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    folder, _ = make_adapter(base, tmp_path / "adapter")
    target = tmp_path / "merged"
    target.mkdir()
    (target / "earlier.txt").write_text("x")
    write_merged_checkpoint(base, folder, target)
    assert not (target / "earlier.txt").exists()
    stored = Checkpoint(target).stored
    assert {stored[name].type for name in stored.shapes} == {"BF16"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(TrainerError, match="this is the base or the adapter itself"):
        write_merged_checkpoint(base, folder, base)


def test_failed_merge_leaves_the_earlier_folder(make_base: Any, make_adapter: Any, tmp_path: Path) -> None:
    base = make_base()
    folder, _ = make_adapter(base, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    weights["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"][0, 0] = float("nan")
    save_file(weights, folder / "adapter_model.safetensors")
    target = tmp_path / "merged"
    target.mkdir()
    (target / "earlier.txt").write_text("x")
    with pytest.raises(TrainerError, match=r"q_proj\.weight holds NaN or infinite values"):
        write_merged_checkpoint(base, folder, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "merged"]
    assert [path.name for path in target.iterdir()] == ["earlier.txt"]


def test_adapter_of_another_base_is_refused(make_base: Any, make_adapter: Any, tmp_path: Path) -> None:
    folder, _ = make_adapter(make_base(), tmp_path / "adapter")
    for other in (make_base(num_key_value_heads=1), make_base(num_hidden_layers=1)):
        with pytest.raises(TrainerError, match=r"wrong base: the adapter changes model\.layers"):
            LoraAdapter(folder).check(Checkpoint(other))


def test_base_of_the_same_shape_but_other_weights_is_refused(make_base: Any, make_adapter: Any, tmp_path: Path) -> None:
    base, other = make_base(), tmp_path / "other"
    folder, _ = make_adapter(base, tmp_path / "adapter")
    shutil.copytree(base, other)
    weights = load_file(other / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] += 1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainerError, match=f"wrong base: the adapter was trained on '{base}', which is not {other}"):
        LoraAdapter(folder).check(Checkpoint(other))
    shutil.copytree(base, tmp_path / "moved")
    LoraAdapter(folder).check(Checkpoint(tmp_path / "moved"))


@pytest.mark.parametrize(
    ("trained_on", "given", "fits"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct", True),
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B", False),
        ("meta-llama/Llama-3.1-8B-Instruct", None, True),  # a folder: nothing to compare names with
        ("/moved/away/base", "meta-llama/Llama-3.1-8B", True),
    ],
)
def test_hub_ids_are_compared(
    make_base: Any, make_adapter: Any, tmp_path: Path, trained_on: str, given: str | None, fits: bool
) -> None:
    base = make_base()
    folder, _ = make_adapter(base, tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": trained_on}))
    if fits:
        LoraAdapter(folder).check(Checkpoint(base), given)
    else:
        with pytest.raises(TrainerError, match=f"wrong base: the adapter was trained on '{trained_on}'"):
            LoraAdapter(folder).check(Checkpoint(base), given)


def test_adapter_on_a_tied_embedding_is_refused(make_base: Any, make_adapter: Any, tmp_path: Path) -> None:
    folder, _ = make_adapter(make_base(), tmp_path / "adapter", modules_to_save=["lm_head"])
    with pytest.raises(TrainerError, match="the base ties its embeddings"):
        LoraAdapter(folder).check(Checkpoint(make_base(tie_word_embeddings=True)))


def test_what_cannot_be_merged_is_named(make_base: Any, make_adapter: Any, tmp_path: Path) -> None:
    base = make_base()
    folder, _ = make_adapter(base, tmp_path / "embedding", target_modules=["embed_tokens"])
    with pytest.raises(TrainerError, match="of a kind this merge does not know"):
        LoraAdapter(folder)
    folder, _ = make_adapter(base, tmp_path / "dual", target_modules=["q_proj"], layer_replication=[[0, 2], [0, 2]])
    with pytest.raises(TrainerError, match="the adapter uses layer_replication"):
        LoraAdapter(folder)
    folder, _ = make_adapter(base, tmp_path / "pissa", target_modules=["q_proj"], init_lora_weights="pissa")
    with pytest.raises(TrainerError, match="init_lora_weights='pissa', which changes the base itself"):
        LoraAdapter(folder)


def test_half_an_adapter_is_refused(make_base: Any, make_adapter: Any, tmp_path: Path) -> None:
    base = make_base()
    folder, _ = make_adapter(base, tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    del weights["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"]
    save_file(weights, file)
    with pytest.raises(TrainerError, match="q_proj lacks one of lora_A and lora_B"):
        LoraAdapter(folder).check(Checkpoint(base))


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_base_below_16_bit_is_refused_even_if_its_config_is_silent(make_base: Any, tmp_path: Path, kind: Any) -> None:
    base = tmp_path / "base"
    shutil.copytree(make_base(), base)
    weights = load_file(base / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(512, 256).to(kind)
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainerError, match=r"weights \(model\.layers\.0\.mlp\.up_proj.*the 16-bit base only"):
        Checkpoint(base)


@pytest.mark.parametrize(
    ("config", "readme", "licence"),
    [
        ({}, "---\nlanguage: en\nlicense: llama3.1\n---\n# Model", "llama3.1"),
        ({}, "---\nlicense: other\nlicense_name: my-licence\n---\n", "my-licence"),
        ({"license": "apache-2.0"}, "---\nlicense: mit\n---\n", "apache-2.0"),
        ({}, "# Model\nlicense: mit\n", ""),
        ({}, None, ""),
    ],
)
def test_licence_is_what_the_base_states(
    make_base: Any, tmp_path: Path, config: dict[str, str], readme: str | None, licence: str
) -> None:
    base = tmp_path / "base"
    shutil.copytree(make_base(), base)
    stated = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**stated, **config}))
    if readme is not None:
        (base / "README.md").write_text(readme)
    assert Checkpoint(base).licence == licence


def test_folder_without_an_adapter_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"adapter_config\.json: missing"):
        LoraAdapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(TrainerError, match=r"adapter_config\.json: it has no lora_alpha"):
        LoraAdapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 1}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(TrainerError, match=r"adapter_model\.safetensors: cannot be read"):
        LoraAdapter(tmp_path)
