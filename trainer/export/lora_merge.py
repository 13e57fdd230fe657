"""A LoRA adapter folded into 16-bit base weights, tensor by tensor.

W' = W + s·B·A with s = alpha / r, or alpha / √r for rank-stabilised LoRA (Hu et al. 2021; Kalajdzievski 2023).
The sum is formed in float32 and rounded once, when the GGUF is written. Merging into 4-bit weights would bake their
rounding error in and cannot be exported: the base is read again in 16 bit.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from trainer.errors import TrainerError
from trainer.export.json_file import read_json

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<side>A|B)(?:\.default)?\.weight$")
_UNSUPPORTED = {
    "use_dora": "DoRA",
    "fan_in_fan_out": "fan_in_fan_out",
    "lora_bias": "lora_bias",
    "layer_replication": "layer_replication",
    "trainable_token_indices": "trainable_token_indices",
    "megatron_config": "megatron_config",
}


class LoraAdapter:
    """The adapter in `folder`, as peft saves it: adapter_config.json and adapter_model.safetensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_json(folder / "adapter_config.json")
        if self.config.get("peft_type") != "LORA":
            raise TrainerError(f"{folder}: adapter type {self.config.get('peft_type')!r}; only LORA can be merged")
        for key, what in _UNSUPPORTED.items():
            if self.config.get(key):
                raise TrainerError(f"{folder}: the adapter uses {what}, which this merge does not know; train without")
        try:
            weights = load_file(folder / "adapter_model.safetensors")
        except (SafetensorError, OSError) as error:
            raise TrainerError(f"{folder}/adapter_model.safetensors: cannot be read: {error}") from None
        self._factors: dict[str, dict[str, torch.Tensor]] = {}
        self._replaced: dict[str, torch.Tensor] = {}
        for key, tensor in weights.items():
            name = key.removeprefix(_PREFIX)
            factor = _FACTOR.match(name)
            if factor:
                self._factors.setdefault(factor["module"], {})[factor["side"]] = tensor
            elif name.endswith(".weight") and "lora_" not in name:
                self._replaced[name.replace(".base_layer.", ".")] = tensor
            else:
                raise TrainerError(f"{folder}: adapter tensor {key} is of a kind this merge does not know")

    @property
    def merged_modules(self) -> int:
        """Number of weights that the adapter brings or changes."""
        return len({f"{module}.weight" for module in self._factors} | set(self._replaced))

    def check(self, shapes: dict[str, tuple[int, ...]], tied: bool) -> None:
        """Compares the adapter with the base's tensors.

        Raises:
            TrainerError: it was made for another base, or changes a tied embedding.
        """
        for module, factors in self._factors.items():
            shape = shapes.get(f"{module}.weight")
            if set(factors) != {"A", "B"}:
                raise TrainerError(f"{self.folder}: {module} lacks one of lora_A and lora_B; save the adapter again")
            made_for = (factors["B"].shape[0], factors["A"].shape[1])
            if shape != made_for:
                found = "does not have it" if shape is None else f"has {shape}"
                raise TrainerError(
                    f"{self.folder}: wrong base: the adapter changes {module} of shape {made_for}, the base {found}; "
                    f"it was trained on {self.config.get('base_model_name_or_path')!r}"
                )
        for name, tensor in self._replaced.items():
            if shapes.get(name) != tuple(tensor.shape):
                raise TrainerError(f"{self.folder}: wrong base: it has no {name} of shape {tuple(tensor.shape)}")
        ends = {"model.embed_tokens", "lm_head"}
        if tied and ends & (set(self._factors) | {name.removesuffix(".weight") for name in self._replaced}):
            raise TrainerError(f"{self.folder}: the base ties its embeddings; an adapter on one of them is ambiguous")

    def _scale(self, module: str, rank: int) -> float:
        alpha = _pattern_value(self.config.get("alpha_pattern") or {}, module, self.config["lora_alpha"])
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def merge(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """The merged weight, in float32 where the adapter changes it, else `weight` itself."""
        if name in self._replaced:
            weight = self._replaced[name].float()
        module = name.removesuffix(".weight")
        factors = self._factors.get(module) if module != name else None
        if factors is None:
            return weight
        left, right = factors["B"].float(), factors["A"].float()
        scale = self._scale(module, right.shape[0])
        return torch.addmm(weight.float(), left, right, alpha=scale)


def _pattern_value(patterns: dict[str, Any], module: str, default: Any) -> Any:
    """peft's rule: the first pattern that is the module's name or its tail, as a regular expression."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
