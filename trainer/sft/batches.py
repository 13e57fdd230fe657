"""How samples become batches: padded side by side, or packed end to end so that no token is padding.

A packed row holds whole samples. Positions start again at 0 with each, which is how attention keeps them apart
(transformers' mask for SDPA, FlashAttention's kernel for many lengths); the first token of a sample is no target:
nothing before it belongs to it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

IGNORED = -100
ROUND_LENGTH = 32
"""Padded batches have a multiple of this as length: few distinct shapes run faster (1.5x on CPU) and cost little."""

Row = dict[str, Any]
"""`input_ids`, `loss_weights`, `written` (one entry per token), `numbers` (index of each sample in the row), `starts`
(where each begins), `length`."""
Batch = dict[str, torch.Tensor]
"""`input_ids`, `labels`, `loss_weights`, `written`: [rows, length]; `numbers`: indices of the samples, none for rows
that only fill up (they come last). A packed one has one row, and `position_ids` beside it."""


def pack(lengths: Sequence[int], room: int, keep_order: bool = False) -> list[list[int]]:
    """Which samples share a row: each row's lengths add up to `room` at most.

    Best fit, longest first, within 11/9 of the fewest rows possible (Johnson 1974). `keep_order` opens the next row as
    soon as a sample does not fit instead, so that an order of the samples is kept.

    Args:
        lengths: tokens per sample, none above `room`.
    """
    rows: list[list[int]] = []
    if keep_order:
        left = 0
        for index, length in enumerate(lengths):
            if length > left:
                rows.append([])
                left = room
            rows[-1].append(index)
            left -= length
        return rows
    gaps: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for index in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        place = bisect_left(gaps, (lengths[index], 0))
        if place < len(gaps):
            left, row = gaps.pop(place)
        else:
            left, row = room, len(rows)
            rows.append([])
        rows[row].append(index)
        insort(gaps, (left - lengths[index], row))
    return rows


def packed_rows(rows: Sequence[Row], room: int, keep_order: bool = False) -> list[Row]:
    """Rows of one sample each → rows of several."""
    made = []
    for members in pack([row["length"] for row in rows], room, keep_order):
        joined: Row = {"input_ids": [], "loss_weights": [], "written": [], "numbers": [], "starts": []}
        for member in members:
            joined["starts"].append(len(joined["input_ids"]))
            for name in ("input_ids", "loss_weights", "written", "numbers"):
                joined[name] += rows[member][name]
        made.append(joined | {"length": len(joined["input_ids"])})
    return made


def filled(rows: list[Row], multiple: int, pad: int) -> list[Row]:
    """The rows, and behind them as many of one token that teach nothing as make a multiple of `multiple`.

    Several processes take equally many batches of equally many rows. Without these accelerate would hand out rows of
    the epoch's beginning a second time, and they would learn something else than one process does.
    """
    filler = {"input_ids": [pad], "loss_weights": [0.0], "written": [False], "numbers": [], "starts": [0], "length": 1}
    return [*rows, *[filler] * (-len(rows) % multiple)]


def collate_padded(pad: int) -> Callable[[list[Row]], Batch]:
    """Right padding; causal attention never looks at it, so no attention mask is needed."""

    def collate(rows: list[Row]) -> Batch:
        longest = max(len(row["input_ids"]) for row in rows)
        length = -(-longest // ROUND_LENGTH) * ROUND_LENGTH
        ids = torch.full((len(rows), length), pad)
        weights = torch.zeros(len(rows), length)
        written = torch.zeros(len(rows), length, dtype=torch.bool)
        for index, row in enumerate(rows):
            count = len(row["input_ids"])
            ids[index, :count] = torch.tensor(row["input_ids"])
            weights[index, :count] = torch.tensor(row["loss_weights"])
            written[index, :count] = torch.tensor(row["written"])
        numbers = torch.tensor([number for row in rows for number in row["numbers"]], dtype=torch.long)
        return {
            "input_ids": ids,
            "labels": torch.where(weights > 0, ids, IGNORED),
            "loss_weights": weights,
            "written": written,
            "numbers": numbers,
        }

    return collate


def collate_packed(rows: list[Row]) -> Batch:
    """All rows end to end, as one."""
    ids, weights, written, numbers = (
        torch.tensor([value for row in rows for value in row[name]])
        for name in ("input_ids", "loss_weights", "written", "numbers")
    )
    labels = torch.where(weights > 0, ids, IGNORED)
    positions = []
    for row in rows:
        ends = [*row["starts"][1:], row["length"]]
        positions += [torch.arange(end - start) for start, end in zip(row["starts"], ends, strict=True)]
    position_ids = torch.cat(positions)
    labels[position_ids == 0] = IGNORED
    return {
        "input_ids": ids[None],
        "labels": labels[None],
        "loss_weights": weights[None],
        "written": written[None],
        "position_ids": position_ids[None],
        "numbers": numbers,
    }


def nothing(batch: Batch) -> Batch:
    """One token of a batch, which teaches nothing and is no sample."""
    piece = {name: tensor[:1, :1] for name, tensor in batch.items() if name != "numbers"}
    piece |= {
        name: torch.zeros_like(piece[name]) for name in ("loss_weights", "written", "position_ids") if name in piece
    }
    return piece | {"labels": torch.full_like(piece["labels"], IGNORED), "numbers": batch["numbers"][:0]}


def samples_in(batch: Batch) -> int:
    """How many samples a batch holds: the most parts that it can be cut into."""
    return len(batch["numbers"])


def cut(batch: Batch, parts: int) -> list[Batch]:
    """A batch as `parts` smaller ones of whole samples, or as many as it has samples; together the same tokens."""
    count = samples_in(batch)
    parts = max(1, min(parts, count))
    if parts == 1:
        return [batch]
    edges = [count * part // parts for part in range(parts + 1)]
    numbers = batch["numbers"]
    pieces = []
    if "position_ids" not in batch:
        for low, high in pairwise(edges):
            pieces.append({name: tensor[low:high] for name, tensor in batch.items()})
        return pieces
    starts = [*(batch["position_ids"][0] == 0).nonzero().flatten().tolist(), batch["input_ids"].shape[1]]
    for low, high in pairwise(edges):
        tokens = slice(starts[low], starts[high])
        piece = {name: tensor[:, tokens] for name, tensor in batch.items() if name != "numbers"}
        pieces.append(piece | {"numbers": numbers[low:high]})
    return pieces
