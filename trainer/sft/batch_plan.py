"""In how many parts each batch is run: one, until the memory does not suffice.

A batch that does not fit is cut in two, then in four …: half the samples at a time, twice the accumulation, the same
gradient. The plan lies in the run folder, so that a continued run does not fail its way down again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate.utils.memory import should_reduce_batch_size

from trainer.errors import TrainerError
from trainer.run_folder import write_atomic

FILE = "batch_plan.json"


@dataclass(frozen=True)
class BatchPlan:
    """`parts` is a power of two; `step` is the one that made it necessary, 0 where nothing did."""

    parts: int = 1
    step: int = 0

    @classmethod
    def read(cls, run: Path) -> BatchPlan:
        """The plan of a run folder; one part where nothing is remembered.

        Raises:
            TrainerError: the file is damaged.
        """
        file = run / FILE
        try:
            return cls(**json.loads(file.read_text("utf-8")))
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError):
            raise TrainerError(f"{file}: not readable; delete it, and batches are tried whole again") from None

    def halved(self, run: Path, step: int, samples: int, say: Callable[[str], None]) -> BatchPlan:
        """The next smaller plan, written down and said.

        Args:
            samples: in the largest batch of the step; it cannot be cut further than that.

        Raises:
            TrainerError: single samples do not fit either.
        """
        if self.parts >= samples:
            raise TrainerError(
                f"out of memory at step {step} with one sample at a time; lower dataset.max_tokens and build the "
                "dataset again, or set sft.gradient_checkpointing or student.load_in_4bit"
            )
        plan = BatchPlan(self.parts * 2, step)
        write_atomic(run / FILE, json.dumps(asdict(plan)) + "\n", 0o644)
        say(
            f"out of memory at step {step}: batches are run in {plan.parts} parts from now on, with {plan.parts} times "
            f"the accumulation, so updates see the same samples; remembered in {run / FILE}"
        )
        return plan


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's allocator, torch's for the CPU, or Python itself found no room."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, Exception) and should_reduce_batch_size(error)
    )
