"""A LoRA adapter folded into 16-bit base weights, a few rows at a time.

W' = W + s·B·A with s = alpha / r, or alpha / √r for rank-stabilised LoRA (Hu et al. 2021; Kalajdzievski 2023). DoRA
scales every row of that sum to the length that it has learned (Liu et al. 2024). The sum is formed in float32 and
rounded once, when it is written. Merging into 4-bit weights would bake their rounding error in and cannot be exported:
the base is read again in 16 bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from trainer.errors import TrainerError
from trainer.export.checkpoint import FLOATS, Checkpoint, StoredTensors, row_blocks
from trainer.export.json_file import read_json

_PREFIX = "base_model.model."
_PART = re.compile(r"^(?P<module>.+)\.(?:lora_(?P<part>A|B|magnitude_vector))(?:\.default)?(?:\.weight)?$")
_UNSUPPORTED = (
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "megatron_config",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights that leave the base as it was; the others move a part of it into the adapter."""


class LoraAdapter:
    """The adapter in `folder`, as peft saves it: adapter_config.json and adapter_model.safetensors.

    Raises:
        TrainerError: no LoRA adapter, or one of a kind that cannot be merged exactly.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_json(folder / "adapter_config.json")
        if self.config.get("peft_type") != "LORA":
            raise TrainerError(f"{folder}: adapter type {self.config.get('peft_type')!r}; only LORA can be merged")
        if not isinstance(self.config.get("lora_alpha"), int | float):
            raise TrainerError(f"{folder / 'adapter_config.json'}: it has no lora_alpha; save the adapter again")
        for key in _UNSUPPORTED:
            if self.config.get(key):
                raise TrainerError(f"{folder}: the adapter uses {key}, which this merge does not know; train without")
        start = self.config.get("init_lora_weights")
        if start not in _PLAIN_STARTS:
            raise TrainerError(
                f"{folder}: the adapter was started with init_lora_weights={start!r}, which changes the base itself; "
                "convert it with peft's path_initial_model_for_weight_conversion, or train with the default"
            )
        self.stored = StoredTensors([folder / "adapter_model.safetensors"])
        self._parts: dict[str, dict[str, str]] = {}
        self._replaced: dict[str, str] = {}
        for key in self.stored.shapes:
            name = key.removeprefix(_PREFIX)
            part = _PART.match(name)
            if part:
                self._parts.setdefault(part["module"], {})[part["part"]] = key
            elif name.endswith(".weight") and "lora_" not in name:
                self._replaced[name.replace(".base_layer.", ".")] = key
            else:
                raise TrainerError(f"{folder}: adapter tensor {key} is of a kind this merge does not know")

    @property
    def merged_modules(self) -> int:
        """Number of weights that the adapter brings or changes."""
        return len({f"{module}.weight" for module in self._parts} | set(self._replaced))

    @property
    def modules(self) -> list[str]:
        """Modules with a pair of factors."""
        return list(self._parts)

    @property
    def replaced(self) -> list[str]:
        """Weights that the adapter brings whole (`modules_to_save`); peft's copies of what it leaves as it is not."""
        return [name for name, key in self._replaced.items() if ".base_layer." not in key]

    def check(self, base: Checkpoint, named: Path | str | None = None) -> None:
        """Compares the adapter with the base that it is to be merged into.

        Args:
            named: the base as the user gave it, a folder or hub id; None takes the folder.

        Raises:
            TrainerError: it was made for another base, or changes a tied embedding.
        """
        trained_on = str(self.config.get("base_model_name_or_path") or "")
        shapes = base.stored.shapes
        ends = {"model.embed_tokens", "lm_head"}
        if base.tied and ends & (set(self._parts) | {name.removesuffix(".weight") for name in self._replaced}):
            raise TrainerError(f"{self.folder}: the base ties its embeddings; an adapter on one of them is ambiguous")
        for module, parts in self._parts.items():
            shape = shapes.get(f"{module}.weight")
            if not {"A", "B"} <= set(parts):
                raise TrainerError(f"{self.folder}: {module} lacks one of lora_A and lora_B; save the adapter again")
            made_for: tuple[int, ...] = (self.stored[parts["B"]].shape[0], self.stored[parts["A"]].shape[1])
            if shape != made_for:
                found = "does not have it" if shape is None else f"has {shape}"
                raise TrainerError(
                    f"{self.folder}: wrong base: the adapter changes {module} of shape {made_for}, the base {found}; "
                    f"it was trained on {trained_on!r}"
                )
        for name, key in self._replaced.items():
            made_for = self.stored[key].shape
            if shapes.get(name) != made_for:
                raise TrainerError(
                    f"{self.folder}: wrong base: it has no {name} of shape {made_for}; "
                    f"the adapter was trained on {trained_on!r}"
                )
        if trained_on and not self._fits(trained_on, base, str(named or base.folder)):
            raise TrainerError(
                f"{self.folder}: wrong base: the adapter was trained on {trained_on!r}, which is not "
                f"{named or base.folder}; give that one as base"
            )

    def _fits(self, trained_on: str, base: Checkpoint, named: str) -> bool:
        """False only where it can be told: two hub ids that differ, or two folders with different weights."""
        if Path(trained_on).is_dir():
            try:
                return base.same_weights(Checkpoint(Path(trained_on)))
            except TrainerError:  # 4-bit weights, or no model at all any more: nothing to compare with
                return True
        looks_like_id = trained_on.count("/") == 1 and not trained_on.startswith((".", "/", "~"))
        return not looks_like_id or Path(named).is_dir() or named == trained_on

    def rank(self, module: str) -> int:
        """r, the inner dimension of a pair of factors."""
        return self.stored[self._parts[module]["A"]].shape[0]

    def scale(self, module: str) -> float:
        """s of W' = W + s·B·A."""
        rank = self.rank(module)
        alpha = _pattern_value(self.config.get("alpha_pattern") or {}, module, self.config["lora_alpha"])
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def factors(self, module: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """A [r, in], B [out, r] and DoRA's lengths [out], in float32."""
        parts = self._parts[module]
        lengths = self.stored.tensor(parts["magnitude_vector"]).float() if "magnitude_vector" in parts else None
        return self.stored.tensor(parts["A"]).float(), self.stored.tensor(parts["B"]).float(), lengths

    def merge(self, name: str, base: StoredTensors, unit: int = 1) -> Iterator[torch.Tensor]:
        """The merged weight in blocks of rows: float32 where the adapter changes it, else as it is stored."""
        stored, key = (self.stored, self._replaced[name]) if name in self._replaced else (base, name)
        module = name.removesuffix(".weight")
        factors = self.factors(module) if module != name and module in self._parts else None
        for first, last in row_blocks(base[name].shape, unit):
            rows = stored.rows(key, first, last)
            if factors is None:
                yield rows
                continue
            right, left, lengths = factors
            merged = torch.addmm(rows.float(), left[first:last], right, alpha=self.scale(module))
            if lengths is not None:
                merged *= (lengths[first:last] / torch.linalg.vector_norm(merged, dim=1)).unsqueeze(1)
            yield merged


class MergedWeights:
    """A base and, where there is one, the adapter on it, as the weights of one model.

    Args:
        named: the base as the user gave it, for the comparison with what the adapter says it was trained on.

    Raises:
        TrainerError: the adapter is not for this base.
    """

    def __init__(self, base: Checkpoint, adapter: LoraAdapter | None, named: Path | str | None = None) -> None:
        self.base, self.adapter = base, adapter
        if adapter is not None:
            adapter.check(base, named)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor name → shape, in the order of the base's files."""
        return self.base.stored.shapes

    def dtype(self, name: str) -> torch.dtype:
        """The type that the base has the tensor in."""
        return FLOATS[self.base.stored[name].type]

    def blocks(self, name: str, unit: int = 1) -> Iterator[torch.Tensor]:
        """A tensor's rows in order, a few at a time, multiples of `unit`; float32 where the adapter changes them."""
        if self.adapter is not None:
            yield from self.adapter.merge(name, self.base.stored, unit)
            return
        for first, last in row_blocks(self.shapes[name], unit):
            yield self.base.stored.rows(name, first, last)


def _pattern_value(patterns: dict[str, Any], module: str, default: Any) -> Any:
    """peft's rule: the first pattern that is the module's name or its tail, as a regular expression."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
