"""A Hugging Face folder read tensor by tensor, so that an 8B model never has to fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from trainer.errors import TrainerError
from trainer.export.json_file import read_json

FILES = ["config.json", "*.safetensors", "model.safetensors.index.json", "tokenizer*", "special_tokens_map.json"]


def fetch_base(base: Path | str) -> Path:
    """A local folder as it is, anything else as a hub id (taken from the local cache or downloaded).

    Raises:
        TrainerError: neither a folder nor a reachable hub id.
    """
    if Path(base).is_dir():
        return Path(base)
    name = str(base)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise TrainerError(f"{name}: no such folder; a base is a folder with config.json and safetensors, or a hub id")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except Exception as error:  # the hub's client raises a dozen kinds; all mean the same here
        reason = str(error).strip().split("\n")[0]
        raise TrainerError(
            f"{name}: cannot be fetched from the hub ({reason}); give a local folder with config.json, "
            "model*.safetensors and tokenizer.json as base"
        ) from None


class Checkpoint:
    """The base model's folder. Shapes are known at once, weights are read when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_json(folder / "config.json")
        if "quantization_config" in self.config:
            kind = self.config["quantization_config"].get("quant_method", "quantised")
            raise TrainerError(
                f"{folder}: these are {kind} weights; an adapter is merged into the 16-bit base only: "
                "give the folder or hub id of the 16-bit model as base"
            )
        if self.config.get("model_type") != "llama":
            raise TrainerError(f"{folder}: model_type is {self.config.get('model_type')!r}; only 'llama' is exported")
        self._file_of: dict[str, Path] = {}
        self._shape_of: dict[str, tuple[int, ...]] = {}
        for file in self._shards():
            try:
                with safe_open(file, "pt") as shard:
                    for name in shard.keys():  # noqa: SIM118 - not a dict
                        self._file_of[name] = file
                        self._shape_of[name] = tuple(shard.get_slice(name).get_shape())
            except (SafetensorError, OSError) as error:
                raise TrainerError(f"{file}: cannot be read as safetensors: {error}; copy or save it again") from None

    def _shards(self) -> list[Path]:
        index = self.folder / "model.safetensors.index.json"
        if index.exists():
            names = sorted(set(read_json(index)["weight_map"].values()))
        elif (self.folder / "model.safetensors").exists():
            names = ["model.safetensors"]
        else:
            raise TrainerError(f"{self.folder}: no model.safetensors here; save the model with safe_serialization")
        missing = [name for name in names if not (self.folder / name).exists()]
        if missing:
            raise TrainerError(f"{self.folder}: shard {missing[0]} is missing; download the base again")
        return [self.folder / name for name in names]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor name → shape, in the order of the files."""
        return dict(self._shape_of)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor in the same order, one in memory at a time."""
        for file in dict.fromkeys(self._file_of.values()):
            with safe_open(file, "pt") as shard:
                for name in shard.keys():  # noqa: SIM118
                    yield name, shard.get_tensor(name)
