"""A LoRA adapter as a GGUF of its own, to be laid over the f16 base by llama.cpp (`--lora`, Ollama's ADAPTER).

The layout is that of llama.cpp's convert_lora_to_gguf.py: for every changed weight `<name>.lora_a` [r, in] and
`<name>.lora_b` [out, r] in float32. llama.cpp scales every pair by alpha / r and knows nothing else, so whatever
differs from that (rank-stabilised LoRA, alpha patterns) is multiplied into B. A few MB instead of a whole model; the
merged file stays the one to serve: it can be quantised as a whole, and needs no second file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import gguf
import torch

from trainer.errors import TrainerError
from trainer.export.atomic_file import partial_file
from trainer.export.checkpoint import Checkpoint
from trainer.export.export_records import METADATA_PREFIX, ExportedFile, Progress, Provenance
from trainer.export.gguf_writer import PERMUTED, LlamaShape, PlannedTensor, permute, write_tensors
from trainer.export.lora_adapter import LoraAdapter
from trainer.export.model_files import adapter_file
from trainer.export.registry import Registry
from trainer.student.base_folder import base_folder


def export_adapter(
    base: Path | str,
    adapter: Path,
    output_dir: Path,
    name: str,
    *,
    provenance: Provenance | None = None,
    progress: Progress | None = None,
) -> ExportedFile:
    """Writes `<name>-lora.gguf`.

    Args:
        base: folder or hub id of the base; only its config and the shapes of its weights are read.
        adapter: folder that peft saved.

    Raises:
        TrainerError: wrong base, an adapter that is more than pairs of factors, or a name that no file can have.
    """
    final = adapter_file(output_dir, name)
    Registry(output_dir).reserve(name, [final])
    checkpoint = Checkpoint(base_folder(base))
    lora = LoraAdapter(adapter)
    lora.check(checkpoint, base)
    if lora.replaced:
        raise TrainerError(f"{adapter}: it brings {lora.replaced[0]} whole, which no adapter GGUF can hold; merge it")
    if lora.config.get("use_dora"):
        raise TrainerError(f"{adapter}: it uses DoRA, which llama.cpp cannot lay over a base; merge it")
    origin = provenance or Provenance(base_model=str(base))
    started = time.monotonic()
    with partial_file(final) as path:
        writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.LLAMA])
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_name(name)
        if licence := origin.licence or checkpoint.licence:
            writer.add_license(licence)
        if origin.base_model:
            writer.add_base_model_count(1)
            writer.add_base_model_name(0, origin.base_model)
        writer.add_array(f"{METADATA_PREFIX}teachers", origin.teachers)
        writer.add_string(f"{METADATA_PREFIX}dataset_hash", origin.dataset_hash)
        writer.add_string(f"{METADATA_PREFIX}parent", origin.parent or "")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(lora.config["lora_alpha"]))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        digest = write_tensors(writer, path, list(_planned(checkpoint, lora)), progress)
    seconds = time.monotonic() - started
    return ExportedFile(
        path=str(final), type="f32", bytes=final.stat().st_size, sha256=digest, seconds=round(seconds, 2)
    )


def _planned(base: Checkpoint, lora: LoraAdapter) -> Iterator[PlannedTensor]:
    shape = LlamaShape.of(base.config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, shape.layers)
    for module in lora.modules:
        target = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if target is None:
            raise TrainerError(f"{lora.folder}: {module} is not part of a Llama")
        out, size = base.stored.shapes[f"{module}.weight"]
        rank = lora.rank(module)
        for part, dimensions in (("a", (rank, size)), ("b", (out, rank))):
            blocks = partial(_factor, lora, module, part, shape.head_size)
            yield PlannedTensor(
                f"{target}.lora_{part}", f"{module}.lora_{part}", dimensions, gguf.GGMLQuantizationType.F32, blocks
            )


def _factor(lora: LoraAdapter, module: str, part: str, head_size: int) -> Iterator[torch.Tensor]:
    """A as it is; B in llama.cpp's order of rows, with what alpha / r does not say multiplied in."""
    right, left, _ = lora.factors(module)
    if part == "a":
        yield right
        return
    rest = lora.scale(module) / (lora.config["lora_alpha"] / lora.rank(module))
    left = left if rest == 1 else left * rest
    yield permute(left, left.shape[0] // head_size) if f"{module}.weight".endswith(PERMUTED) else left
