"""One file per checkpoint, written whole or not at all: everything that an exact continuation needs.

Episodes, order and sampling are drawn from generators seeded by (seed, update), so there is little random state to
keep; what torch itself holds is kept all the same.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.errors import TrainerError
from trainer.run_folder import write_atomic

KEPT = 2
"""Newest checkpoints that stay on disk."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after `update` updates; 0 is the student that PPO started from."""

    update: int
    adapter: dict[str, Tensor]
    start_adapter: dict[str, Tensor]
    best_adapter: dict[str, Tensor]
    best_update: int
    best_score: float | None
    start_score: float | None
    value_head: dict[str, Tensor]
    optimizer: dict[str, Any]
    random: list[Tensor]
    """State of torch's generators: the CPU's, then one per GPU."""


def random_state() -> list[Tensor]:
    """The state of torch's own generators."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def restore_random_state(state: list[Tensor]) -> None:
    """Undoes every draw since `random_state`; GPUs that were not there then keep theirs."""
    torch.set_rng_state(state[0])
    for device, value in enumerate(state[1 : torch.cuda.device_count() + 1]):
        torch.cuda.set_rng_state(value, device)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes `folder/<update>.pt` atomically, then drops all but the newest."""
    buffer = io.BytesIO()
    torch.save({field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}, buffer)
    file = folder / f"{checkpoint.update:06d}.pt"
    write_atomic(file, buffer.getvalue())
    for old in sorted(folder.glob("[0-9]*.pt"))[:-KEPT]:
        old.unlink()
    return file


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint, or None where there is none.

    Raises:
        TrainerError: the file is not one of ours or is damaged.
    """
    files = sorted(folder.glob("[0-9]*.pt"))
    if not files:
        return None
    try:
        return Checkpoint(**torch.load(files[-1], map_location="cpu", weights_only=True))
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise TrainerError(
            f"{files[-1]}: not a checkpoint of PPO ({reason}); delete it to use the one before"
        ) from None
