"""Trained adapter + 16-bit base → `<name>.gguf` and `<name>-<type>.gguf`.

Nothing partial ever stands under a final name: each file is written beside it and renamed when it is whole, so that a
killed export leaves the earlier files as they were and a second run finishes the work.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from trainer.config import ExportConfig
from trainer.errors import TrainerError
from trainer.export.atomic_file import partial_file
from trainer.export.checkpoint import Checkpoint, fetch_base
from trainer.export.export_records import ExportedFile, ExportReport, Progress, Provenance, sha256_of
from trainer.export.gguf_writer import LlamaShape, write_gguf
from trainer.export.llama_vocabulary import read_vocabulary
from trainer.export.lora_merge import LoraAdapter
from trainer.export.quantization import quantization_number, quantize
from trainer.student.chat_format import template_text


def _described(path: Path, kind: str, seconds: float) -> ExportedFile:
    return ExportedFile(
        path=str(path),
        type=kind,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        seconds=round(seconds, 2),
    )


def export_model(
    base: Path | str,
    adapter: Path | None,
    output_dir: Path,
    name: str,
    config: ExportConfig,
    *,
    provenance: Provenance | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Merges, writes the plain GGUF and quantises it.

    Args:
        base: folder or hub id of the 16-bit base (never of 4-bit weights).
        adapter: folder that peft saved; None exports the base as it is.
        output_dir: usually `models/`.
        name: file name without suffix: llama-claude-bc-v1, llama-claude-ppo-v2 …
        provenance: written into the GGUF's metadata.
        progress: called as the work goes on.

    Raises:
        TrainerError: wrong base for the adapter, foreign tokenizer, broken weights, unknown quantisation …; files of an
            earlier export are left as they were.
    """
    quantization_number(config.quantization)
    folder = fetch_base(base)
    checkpoint = Checkpoint(folder)
    shape = LlamaShape.of(checkpoint.config)
    if config.context_length > shape.max_positions:
        raise TrainerError(
            f"export.context_length is {config.context_length}, but {folder} was made for {shape.max_positions} "
            "positions; lower it"
        )
    merge = LoraAdapter(adapter) if adapter is not None else None
    shapes = checkpoint.shapes
    if merge is not None:
        merge.check(shapes, shape.tied)

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for tensor_name, tensor in checkpoint.tensors():
            yield tensor_name, merge.merge(tensor_name, tensor) if merge is not None else tensor

    plain = output_dir / f"{name}.gguf"
    quantized = output_dir / f"{name}-{config.quantization.lower()}.gguf"
    vocabulary = read_vocabulary(folder, shape.vocab_size)
    with partial_file(plain) as plain_partial, partial_file(quantized) as quantized_partial:
        started = time.monotonic()
        count = write_gguf(
            plain_partial,
            name=name,
            shape=shape,
            context_length=config.context_length,
            float_type=config.float_type,
            vocabulary=vocabulary,
            template=template_text(),
            shapes=shapes,
            tensors=tensors(),
            provenance=provenance or Provenance(base_model=str(base)),
            progress=progress,
        )
        written = time.monotonic()
        quantize(plain_partial, quantized_partial, config.quantization, progress=progress)
        done = time.monotonic()
    return ExportReport(
        name=name,
        base=str(folder),
        adapter=str(adapter) if adapter is not None else None,
        merged=merge.merged_modules if merge is not None else 0,
        tensors=count,
        plain=_described(plain, config.float_type, written - started),
        quantized=_described(quantized, config.quantization.lower(), done - written),
    )
