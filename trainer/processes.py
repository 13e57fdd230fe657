"""Several processes of one run, as `accelerate launch` and torchrun start them: one speaks and writes, the others wait.

The launchers say who is who in the environment, so asking costs nothing and needs no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def process_count() -> int:
    """Processes of this run, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the one process that prints, and writes what is not its own."""
    return int(os.environ.get("RANK", "0")) == 0


def splits_weights() -> bool:
    """Whether the launcher asked for FSDP or DeepSpeed."""
    return any(
        os.environ.get(name, "").lower() == "true" for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    )


@contextmanager
def main_process_first() -> Iterator[None]:
    """The main process goes through the block first; the others follow and find what it has left."""
    if process_count() == 1:
        yield
        return
    with _state().main_process_first():
        yield


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if process_count() > 1:
        _state().wait_for_everyone()


def _state() -> Any:
    """accelerate's own, which opens the process group: gloo where there is no GPU, as accelerate must be told."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.accelerator.is_available())
