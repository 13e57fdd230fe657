"""A key/value cache that is written in place.

transformers' dynamic cache concatenates at every step, which copies the whole cache once per generated token.
Here each layer owns a buffer that doubles when it is full and hands out views of its filled part.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer


class InPlaceLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, [batch, kv heads, capacity, head size], filled up to `length`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None
        self._length = 0

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Appends [batch, kv heads, n, head size] and returns views of all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self._length, self._length + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            self._grow(key_states, value_states, max(256, 2 * end))
        assert self._buffers is not None
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = states
        self._length = end
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def _grow(self, key_states: Any, value_states: Any, capacity: int) -> None:
        grown = tuple(s.new_empty((*s.shape[:-2], capacity, s.shape[-1])) for s in (key_states, value_states))
        if self._buffers is not None:
            for new, old in zip(grown, self._buffers, strict=True):
                new[..., : self._length, :] = old[..., : self._length, :]
        self._buffers = (grown[0], grown[1])

    def batch_select_indices(self, indices: Any) -> None:
        """Keeps the rows `indices` of the batch."""
        if self._buffers is not None:
            self._buffers = (self._buffers[0][indices], self._buffers[1][indices])
            self.keys, self.values = (buffer[..., : self._length, :] for buffer in self._buffers)


def in_place_cache() -> Cache:
    """A cache to pass as `past_key_values`."""
    return Cache(layer_class_to_replicate=InPlaceLayer)
