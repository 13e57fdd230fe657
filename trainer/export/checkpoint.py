"""A Hugging Face folder read a few rows at a time, so that an 8B model never has to fit into memory."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from trainer.errors import TrainerError
from trainer.export.json_file import read_json

BLOCK_ELEMENTS = 8 << 20
"""Values that are in memory at a time: 16 MB as 16-bit floats."""
FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Types of weights that can be merged and exported, as safetensors names them."""
_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
"""What config.json has to say about the network."""


class StoredTensor(NamedTuple):
    """Where a tensor lies and what it is."""

    file: Path
    shape: tuple[int, ...]
    type: str
    """As safetensors names it: BF16, F16, F32 …"""


class StoredTensors:
    """The tensors of several safetensors files. Shapes are known at once, values are read when asked for.

    Every block is read through a mapping of its own, so that pages of the file do not pile up in the process.

    Raises:
        TrainerError: a file is missing, cut off, or no safetensors.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._stored: dict[str, StoredTensor] = {}
        for file in files:
            try:
                with safe_open(file, "pt") as shard:
                    for name in shard.keys():  # noqa: SIM118 - not a dict
                        part = shard.get_slice(name)
                        self._stored[name] = StoredTensor(file, tuple(part.get_shape()), part.get_dtype())
            except (SafetensorError, OSError) as error:
                raise TrainerError(f"{file}: cannot be read as safetensors: {error}; copy or save it again") from None

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def __getitem__(self, name: str) -> StoredTensor:
        return self._stored[name]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor name → shape, in the order of the files."""
        return {name: stored.shape for name, stored in self._stored.items()}

    def tensor(self, name: str) -> torch.Tensor:
        """All values of a tensor."""
        with safe_open(self._stored[name].file, "pt") as shard:
            values: torch.Tensor = shard.get_tensor(name)
        return values

    def rows(self, name: str, first: int, last: int) -> torch.Tensor:
        """Rows `first` up to, but without, `last`."""
        with safe_open(self._stored[name].file, "pt") as shard:
            values: torch.Tensor = shard.get_slice(name)[first:last]
        return values


def row_blocks(shape: tuple[int, ...], unit: int = 1) -> Iterator[tuple[int, int]]:
    """Spans of rows, [first, last), that cover a tensor in order.

    Args:
        unit: rows that must not be parted; every span but the last is a multiple of it.
    """
    width = max(1, torch.Size(shape[1:]).numel())
    step = max(1, BLOCK_ELEMENTS // (width * unit)) * unit
    for first in range(0, shape[0], step):
        yield first, min(first + step, shape[0])


class Checkpoint:
    """The base model's folder: its config and its tensors.

    Raises:
        TrainerError: no Llama in 16 or 32 bit lies there, files are missing, or config.json lacks a size.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_json(folder / "config.json")
        if quantized := self.config.get("quantization_config"):
            kind = quantized.get("quant_method") if isinstance(quantized, dict) else None
            raise _not_16_bit(folder, f"{kind or 'quantised'} weights")
        if self.config.get("model_type") != "llama":
            raise TrainerError(f"{folder}: model_type is {self.config.get('model_type')!r}; only 'llama' is exported")
        for key in _SIZES:
            if not isinstance(size := self.config.get(key), int) or size < 1:
                raise TrainerError(f"{folder / 'config.json'}: {key} is {size!r}; download or save the base again")
        if not isinstance(eps := self.config.get("rms_norm_eps"), float):
            raise TrainerError(f"{folder / 'config.json'}: rms_norm_eps is {eps!r}; download or save the base again")
        self.stored = StoredTensors(self._shards())
        for name in self.stored.shapes:
            if self.stored[name].type not in FLOATS:
                raise _not_16_bit(folder, f"{self.stored[name].type} weights ({name})")

    def _shards(self) -> list[Path]:
        index = self.folder / "model.safetensors.index.json"
        if index.exists():
            place = read_json(index).get("weight_map")
            if not isinstance(place, dict):
                raise TrainerError(f"{index}: it has no weight_map; download the base again")
            names = sorted(set(place.values()))
        elif (self.folder / "model.safetensors").exists():
            names = ["model.safetensors"]
        else:
            raise TrainerError(f"{self.folder}: no model.safetensors here; save the model with safe_serialization")
        missing = [name for name in names if not (self.folder / name).exists()]
        if missing:
            raise TrainerError(f"{self.folder}: shard {missing[0]} is missing; download the base again")
        return [self.folder / name for name in names]

    @property
    def bytes(self) -> int:
        """Size of all weights."""
        stored = (self.stored[name] for name in self.stored.shapes)
        return sum(math.prod(one.shape) * FLOATS[one.type].itemsize for one in stored)

    @property
    def widest(self) -> int:
        """Values of the largest tensor."""
        return max(math.prod(shape) for shape in self.stored.shapes.values())

    @property
    def tied(self) -> bool:
        """Whether the embedding is also the output matrix."""
        return bool(self.config.get("tie_word_embeddings", False))

    @property
    def licence(self) -> str:
        """Licence of the base as its folder states it: config.json, else the header of README.md; empty if neither."""
        stated = self.config.get("license")
        readme = self.folder / "README.md"
        if not stated and readme.is_file():
            header = re.match(r"---\n(.*?)\n---", readme.read_text("utf-8", "replace"), re.DOTALL)
            fields = dict(re.findall(r"^(license|license_name):[ \t]*(\S+)", header[1] if header else "", re.MULTILINE))
            stated = fields.get("license_name") if fields.get("license") == "other" else fields.get("license")
        return str(stated or "").strip("'\"")

    def same_weights(self, other: Checkpoint) -> bool:
        """Whether both hold the same tensors, judged by shape and first row of each."""
        if self.folder.resolve() == other.folder.resolve():
            return True
        if self.stored.shapes != other.stored.shapes:
            return False
        return all(
            torch.equal(self.stored.rows(name, 0, 1), other.stored.rows(name, 0, 1)) for name in self.stored.shapes
        )


def _not_16_bit(folder: Path, found: str) -> TrainerError:
    return TrainerError(
        f"{folder}: these are {found}; an adapter is merged into the 16-bit base only: "
        "give the folder or hub id of the 16-bit model as base"
    )
