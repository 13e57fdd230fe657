"""Base and adapter as one model: a Hugging Face folder for vLLM and transformers.

The weights pass through a few rows at a time into shards of safetensors; their layout (a JSON table, then the bytes) is
written here because the `safetensors` package wants all tensors of a shard in memory.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch

from trainer.errors import TrainerError
from trainer.export.atomic_file import partial_folder
from trainer.export.checkpoint import Checkpoint
from trainer.export.export_records import Progress
from trainer.export.json_file import read_json
from trainer.export.llama_vocabulary import read_vocabulary
from trainer.export.lora_adapter import LoraAdapter, MergedWeights
from trainer.run_folder import write_atomic
from trainer.student.base_folder import base_folder
from trainer.student.chat_format import template_text

SHARD_BYTES = 4 << 30
_COPIED = ("config.json", "tokenizer.json", "special_tokens_map.json", "README.md", "LICENSE", "LICENSE.txt", "NOTICE")


def write_merged_checkpoint(
    base: Path | str,
    adapter: Path | None,
    folder: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> Path:
    """Writes config, tokenizer with the trainer's chat template, and merged weights in the type of the base.

    `folder` appears whole or not at all; one that is there already is replaced.

    Args:
        base: folder or hub id of the 16-bit base.
        adapter: folder that peft saved; None copies the base under the trainer's template.
        shard_bytes: size that a shard does not exceed unless it holds a single tensor.

    Raises:
        TrainerError: wrong base for the adapter, foreign tokenizer, values that are not finite, full disk.
    """
    source = base_folder(base)
    checkpoint = Checkpoint(source)
    if adapter is not None and folder.resolve() in (source.resolve(), adapter.resolve()):
        raise TrainerError(f"{folder}: this is the base or the adapter itself; give another folder")
    weights = MergedWeights(checkpoint, LoraAdapter(adapter) if adapter is not None else None, base)
    roles = read_vocabulary(source, checkpoint.config["vocab_size"]).roles
    with partial_folder(folder) as partial:
        _write_settings(source, partial, roles)
        total = sum(_size(weights, name) for name in weights.shapes)
        shards = _shards(weights, shard_bytes)
        place: dict[str, str] = {}
        done = 0
        for number, names in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            done = _write_shard(partial / file, weights, names, done, total, progress)
            place |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": total}, "weight_map": place}
        write_atomic(partial / "model.safetensors.index.json", json.dumps(index, indent=1), 0o644)
    return folder


def _write_settings(source: Path, target: Path, roles: dict[str, int]) -> None:
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    settings: dict[str, Any] = {}
    if (source / "tokenizer_config.json").is_file():
        settings = read_json(source / "tokenizer_config.json")
    settings.pop("chat_template", None)  # chat_template.jinja takes its place
    write_atomic(target / "tokenizer_config.json", json.dumps(settings, indent=1, ensure_ascii=False), 0o644)
    write_atomic(target / "chat_template.jinja", template_text(), 0o644)
    generation = {"bos_token_id": roles["bos"], "eos_token_id": [roles["eot"], roles["eom"]]}
    write_atomic(target / "generation_config.json", json.dumps(generation, indent=1), 0o644)


def _size(weights: MergedWeights, name: str) -> int:
    size: int = math.prod(weights.shapes[name]) * weights.dtype(name).itemsize
    return size


def _shards(weights: MergedWeights, limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name in weights.shapes:
        size = _size(weights, name)
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _write_shard(
    file: Path, weights: MergedWeights, names: list[str], done: int, total: int, progress: Progress | None
) -> int:
    """Writes one safetensors file; returns `done`, the bytes of weights in earlier shards, with its own added."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in names:
        end = offset + _size(weights, name)
        kind = weights.base.stored[name].type
        table[name] = {"dtype": kind, "shape": list(weights.shapes[name]), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for name in names:
            for block in weights.blocks(name):
                values = block.to(weights.dtype(name)).contiguous()
                if not all(bool(torch.isfinite(end)) for end in values.aminmax()):
                    raise TrainerError(f"tensor {name} holds NaN or infinite values: training diverged")
                stream.write(memoryview(values.view(torch.uint8).flatten().numpy()))
                done += values.nbytes
                if progress is not None:
                    progress("writing", done, total)
    return done
