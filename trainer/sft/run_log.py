"""What a running SFT leaves to be looked at: metrics.jsonl, progress, what the student writes; SIGTERM ends it cleanly.

The sums behind a metric line travel in the checkpoint, so that a continued run writes the lines of an undisturbed one;
so do the seconds of the legs before.
"""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from trainer.run_folder import RunFolder
from trainer.sft.student_samples import StudentSamples
from trainer.sft.weighted_trainer import WeightedSftTrainer

Progress = Callable[[int, int, float], None]
"""(step, steps, loss in nats per token)."""


class RunLog(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Bookkeeping around the steps; `lengths` are the samples' tokens, `began` is when this leg did (monotonic, s)."""

    def __init__(
        self,
        run: RunFolder,
        lengths: Sequence[int],
        progress: Progress | None,
        look: StudentSamples | None,
        look_every: int,
        began: float,
    ) -> None:
        self._run = run
        self._lengths = lengths
        self._progress = progress
        self._look = look
        self._look_every = look_every
        self._leg_began = began
        self._earlier_seconds = 0.0
        self.trainer: WeightedSftTrainer | None = None
        self.terminated = False
        """Whether the run has ended early because this process, or another one of it, was asked to."""
        self._asked_to_end = False
        self._loss = torch.zeros(2)
        self._tokens = 0
        self._began = self._ended = 0.0
        self._inside = 0.0

    def state(self) -> dict[str, Any]:
        """What the next metric line has collected so far; transformers keeps it in trainer_state.json."""
        return {"args": {}, "attributes": {"loss": self._loss.tolist(), "seconds": self.seconds()}}

    def seconds(self) -> float:
        """What the run has taken so far, over all its legs."""
        return self._earlier_seconds + time.monotonic() - self._leg_began

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes over from the checkpoint, where there is one."""
        self._run.forget_after("step", state.global_step)
        if self._look is not None:
            self._look.forget_after(state.global_step)
        kept = state.stateful_callbacks.get(type(self).__name__)
        if state.global_step and kept:
            self._loss = torch.tensor(kept["attributes"]["loss"])
            self._earlier_seconds = kept["attributes"].get("seconds", 0.0)  # checkpoints of before had none
        self._previous = signal.signal(signal.SIGTERM, self._terminate)
        self._look_every = self._look_every or max(1, state.max_steps // 10)
        self._ended = time.perf_counter()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sets the order of the samples, also in the middle of an epoch that is continued."""
        assert self.trainer is not None
        self.trainer.begin_epoch(int(state.epoch or 0))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Gives the signal back."""
        signal.signal(signal.SIGTERM, self._previous)

    def _terminate(self, *_: Any) -> None:
        self._asked_to_end = True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The batches are there; the step's own work begins."""
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Adds the step to the line, and writes it when it is due."""
        assert self.trainer is not None
        self._inside += time.perf_counter() - self._began
        self._loss += self.trainer.written_loss().cpu()
        self._tokens += sum(self._lengths[number] for number in self.trainer.samples_seen())
        self.terminated = self.trainer.anywhere(self._asked_to_end)
        if self.terminated:
            control.should_save = control.should_training_stop = True
        if state.global_step % args.logging_steps == 0 or state.global_step == 1:
            self._write_line(state)
        if self._look is not None and state.global_step % self._look_every == 0:
            self._look(kwargs["model"], state.global_step)

    def _write_line(self, state: Any) -> None:
        assert self.trainer is not None
        now = time.perf_counter()
        passed, loss = now - self._ended, (self._loss[0] / self._loss[1]).item()
        if state.is_world_process_zero:
            self._run.log(
                step=state.global_step,
                loss=loss,
                learning_rate=self.trainer.optimizer.param_groups[0]["lr"],
                epoch=state.epoch,
                tokens_per_second=self._tokens * self.trainer.accelerator.num_processes / passed,
                outside_step=max(0.0, 1 - self._inside / passed),
                memory=peak_memory(),
            )
            if self._progress is not None:
                self._progress(state.global_step, state.max_steps, loss)
        self._loss, self._tokens, self._inside, self._ended = torch.zeros(2), 0, 0.0, now


def peak_memory() -> int:
    """Bytes: the most that torch has held on the GPU, or this process in memory where there is none."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
