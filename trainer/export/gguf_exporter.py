"""Trained adapter + 16-bit base → `<name>.gguf` and `<name>-<type>.gguf`.

Nothing partial ever stands under a final name: each file is written beside it and renamed when it is whole, so that a
killed export leaves the earlier files as they were and a second run finishes the work.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from trainer.config import ExportConfig
from trainer.errors import TrainerError
from trainer.export.atomic_file import disk_full, partial_file
from trainer.export.checkpoint import Checkpoint
from trainer.export.export_records import ExportedFile, ExportReport, Progress, Provenance, sha256_of
from trainer.export.gguf_writer import LlamaShape, write_gguf
from trainer.export.llama_vocabulary import read_vocabulary
from trainer.export.lora_adapter import LoraAdapter, MergedWeights
from trainer.export.model_files import plain_file, quantized_file
from trainer.export.quantization import quantization_number, quantize
from trainer.student.base_folder import base_folder
from trainer.student.chat_format import template_text

QUANTIZED_SHARE = 0.35
"""Size of the quantised file beside the plain one, for the estimate of what the disk must hold (q4_k_m: 0.31)."""


def _described(path: Path, kind: str, sha256: str, seconds: float) -> ExportedFile:
    return ExportedFile(path=str(path), type=kind, bytes=path.stat().st_size, sha256=sha256, seconds=round(seconds, 2))


def _check_room(folder: Path, weights: MergedWeights) -> None:
    """Refuses at once what would fill the disk after minutes: the plain file and the quantised one beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    values = sum(math.prod(shape) for shape in weights.shapes.values())
    needed, free = int(values * 2 * (1 + QUANTIZED_SHARE)), shutil.disk_usage(folder).free
    if free < needed:
        raise disk_full(folder, f"{needed / 1e9:.1f} GB are needed for both files, {free / 1e9:.1f} GB are free")


class PlainExport(NamedTuple):
    """What `write_plain` made."""

    base: Path
    """Folder of the base."""
    tensors: int
    merged: int
    """Weights that the adapter changed."""
    sha256: str


def write_plain(
    base: Path | str,
    adapter: Path | None,
    path: Path,
    name: str,
    config: ExportConfig,
    *,
    provenance: Provenance | None = None,
    progress: Progress | None = None,
) -> PlainExport:
    """Merges and writes the f16 or bf16 GGUF to `path` itself (the caller gives a temporary name).

    Raises:
        TrainerError: as `export_model`.
    """
    folder = base_folder(base)
    checkpoint = Checkpoint(folder)
    shape = LlamaShape.of(checkpoint.config)
    if config.context_length > shape.max_positions:
        raise TrainerError(
            f"export.context_length is {config.context_length}, but {folder} was made for {shape.max_positions} "
            "positions; lower it"
        )
    weights = MergedWeights(checkpoint, LoraAdapter(adapter) if adapter is not None else None, base)
    origin = provenance or Provenance(base_model=str(base))
    if not origin.licence:
        origin = dataclasses.replace(origin, licence=checkpoint.licence)
    vocabulary = read_vocabulary(folder, shape.vocab_size)
    _check_room(path.parent, weights)
    tensors, digest = write_gguf(
        path,
        name=name,
        shape=shape,
        context_length=config.context_length,
        float_type=config.float_type,
        vocabulary=vocabulary,
        template=template_text(),
        weights=weights,
        provenance=origin,
        progress=progress,
    )
    merged = weights.adapter.merged_modules if weights.adapter is not None else 0
    return PlainExport(folder, tensors, merged, digest)


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
    plain, quantized = plain_file(output_dir, name), quantized_file(output_dir, name, config.quantization)
    with partial_file(plain) as plain_partial, partial_file(quantized) as quantized_partial:
        started = time.monotonic()
        made = write_plain(base, adapter, plain_partial, name, config, provenance=provenance, progress=progress)
        written = time.monotonic()
        quantize(plain_partial, quantized_partial, config.quantization, progress=progress)
        quantized_digest = sha256_of(quantized_partial, progress)
        done = time.monotonic()
    return ExportReport(
        name=name,
        base=str(made.base),
        adapter=str(adapter) if adapter is not None else None,
        merged=made.merged,
        tensors=made.tensors,
        plain=_described(plain, config.float_type, made.sha256, written - started),
        quantized=_described(quantized, config.quantization.lower(), quantized_digest, done - written),
    )
