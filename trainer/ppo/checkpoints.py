"""One file per checkpoint, written whole or not at all: everything that an exact continuation needs.

Episodes, order and sampling are drawn from generators seeded by (seed, update), so there is little random state to
keep; what torch itself holds is kept all the same.
"""

from __future__ import annotations

import hashlib
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
    learner: dict[str, Any]
    """`Learner.state`: value head, optimisers, KL coefficient, scale of the learning rate."""
    best_adapter: dict[str, Tensor]
    best_value_head: dict[str, Tensor]
    best_update: int
    best_score: float | None
    best_totals: dict[str, float]
    """Reward of each validation prompt under the best student, by trace id."""
    start_score: float | None
    watch: dict[str, Any]
    """`runaway.Watch` as plain values."""
    origin: str
    """`fingerprint` of the adapter that PPO started from and of its reference."""
    random: list[Tensor]
    """State of torch's generators: the CPU's, then one per GPU."""
    seconds: float = 0.0
    """What the run has taken up to here, over all its legs; what a killed leg did after its last checkpoint is lost."""


def fingerprint(*states: dict[str, Tensor]) -> str:
    """SHA-256 over names and bytes of weights."""
    digest = hashlib.sha256()
    for state in states:
        for name in sorted(state):
            digest.update(f"{name}\x00{tuple(state[name].shape)}\x00".encode())
            digest.update(state[name].detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def random_state() -> list[Tensor]:
    """The state of torch's own generators."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def restore_random_state(state: list[Tensor]) -> None:
    """Undoes every draw since `random_state`; GPUs that were not there then keep theirs."""
    torch.set_rng_state(state[0])
    for device, value in enumerate(state[1 : torch.cuda.device_count() + 1]):
        torch.cuda.set_rng_state(value, device)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes `folder/<update>.pt` atomically, then drops all but the newest and what killed runs left half written.

    Raises:
        TrainerError: the file cannot be written; older ones are as they were.
    """
    buffer = io.BytesIO()
    torch.save({field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}, buffer)
    file = folder / f"{checkpoint.update:06d}.pt"
    try:
        write_atomic(file, buffer.getvalue())
    except OSError as error:
        raise TrainerError(f"{file}: checkpoint not written ({error.strerror}); make room and run again") from None
    for old in [*sorted(folder.glob("[0-9]*.pt"))[:-KEPT], *folder.glob(".[0-9]*.partial")]:
        old.unlink(missing_ok=True)
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
