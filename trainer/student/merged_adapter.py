"""A LoRA adapter folded into the weights for as long as the student writes.

Beside the weights an adapter costs two more products per layer and token, which is a third of the time of a small
model that writes token by token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear


@contextmanager
def merged_adapter(model: Any) -> Iterator[None]:
    """Within the block the active LoRA adapter is part of the base's weights; afterwards both are what they were.

    Only float32 weights are merged: in a narrower type the sum would round the adapter away, and quantised weights
    cannot take it. It needs room for a second copy of the layers that the adapter changes.
    """
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, Linear)
        and not (layer.merged or layer.disable_adapters)
        and layer.get_base_layer().weight.dtype == torch.float32
    ]
    before = [layer.get_base_layer().weight.data for layer in layers]
    try:
        with torch.no_grad():
            for layer, weight in zip(layers, before, strict=True):
                # into a copy of our own: PEFT's safe merge makes one too, but raises where a weight is not a number,
                # and a student gone wrong must be able to write garbage, which is scored and noticed as such
                layer.get_base_layer().weight.data = weight.clone()
                layer.merge()
        yield
    finally:
        for layer, weight in zip(layers, before, strict=True):
            layer.merged_adapters.clear()
            layer.get_base_layer().weight.data = weight
