"""Trained adapter + 16-bit base → `<name>.gguf` and `<name>-<type>.gguf`.

Nothing partial ever stands under a final name: each file is written beside it and renamed when it is whole, so that a
killed export leaves the earlier files as they were and a second run finishes the work.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic import Field

from claude_capture.claude_trace_schema import Record
from trainer.config import ExportConfig
from trainer.errors import TrainerError
from trainer.export.atomic_file import partial_file
from trainer.export.checkpoint import Checkpoint, fetch_base
from trainer.export.gguf_writer import LlamaShape, Progress, Provenance, write_gguf
from trainer.export.llama_vocabulary import read_vocabulary
from trainer.export.lora_merge import LoraAdapter
from trainer.export.quantization import quantization_number, quantize
from trainer.student.chat_format import template_text


class ExportedFile(Record):
    """One GGUF."""

    path: str = Field(description="Where it lies")
    type: str = Field(description="Type of its matrices, as llama.cpp names it, e.g. f16 or q4_k_m")
    bytes: int = Field(description="Size")
    sha256: str = Field(description="Digest of the file, 64 hex digits")
    seconds: float = Field(description="Time taken to make it")


class ExportReport(Record):
    """What an export made."""

    name: str = Field(description="Model name, e.g. llama-claude-bc-v1")
    base: str = Field(description="Folder of the 16-bit base")
    adapter: str | None = Field(description="Folder of the adapter, None where the base was exported as it is")
    merged: int = Field(description="Weights that the adapter changed")
    tensors: int = Field(description="Tensors in the plain GGUF")
    plain: ExportedFile = Field(description="f16 or bf16 file")
    quantized: ExportedFile = Field(description="Quantised file")


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """The hex digest of a file."""
    digest = hashlib.sha256()
    total, done = path.stat().st_size, 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress("hashing", done, total)
    return digest.hexdigest()


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
