"""TRL's SFTTrainer with a loss weight per token, batches that shrink when memory runs out, and a stop at NaN."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import SFTTrainer

from trainer.errors import TrainerError
from trainer.sft.batch_plan import BatchPlan, is_out_of_memory
from trainer.sft.batches import IGNORED, Batch, cut, nothing, samples_in


class EpochSampler(Sampler[int]):  # type: ignore[misc]
    """Samples in an order drawn by seed and epoch alone, those of like length in one update.

    transformers' own draws from torch's generator, whose state in the middle of an epoch cannot give that epoch's order
    again; a continued run would see some samples twice.

    Args:
        fillers: rows behind the last sample, see `batches.filled`; they stay there.
    """

    def __init__(self, lengths: Sequence[int], update: int, seed: int, fillers: int = 0) -> None:
        self._lengths = list(lengths)
        self._fillers = fillers
        self._update = update
        self._seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._lengths) + self._fillers

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        order = get_length_grouped_indices(self._lengths, self._update, generator=generator)
        return iter([*order, *range(len(order), len(self))])


class NotANumberError(Exception):
    """The gradient of a step is not finite; the weights are those of the step before."""

    def __init__(self, step: int, batches: list[Batch]) -> None:
        super().__init__(step)
        self.step = step
        self.batches = batches


def token_losses(model: Any, batch: Batch, *, fused: bool) -> tuple[torch.Tensor, Any]:
    """Negative log-likelihood of each token but a row's first, in nats, 0 where it is no target; and the outputs.

    Args:
        fused: by the head that TRL has added to the model, which keeps logits in tiles of a few tokens; else by plain
            logits of all tokens.
    """
    labels = batch["labels"]
    ids = {name: batch[name] for name in ("input_ids", "position_ids") if name in batch}
    if fused:
        outputs = model(**ids, labels=labels, fused_lm_head=True)
        return -outputs.log_probs, outputs
    outputs = model(**ids, use_cache=False)
    targets = labels[:, 1:]
    mask = targets != IGNORED
    losses = torch.zeros(targets.shape, device=labels.device)
    losses[mask] = functional.cross_entropy(outputs.logits[:, :-1][mask].float(), targets[mask], reduction="none")
    return losses, outputs


class WeightedSftTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer on the batches of `trainer.sft.batches`.

    On a GPU, TRL's fused head keeps the logits of masked tokens out of memory. On CPU it would score those too,
    which costs a quarter of the step, so plain logits are used there.
    """

    def __init__(self, *arguments: Any, run: Path, say: Callable[[str], None], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._run = run
        self._say = say
        self._plan = BatchPlan.read(run)
        self._sampler: EpochSampler | None = None
        self._step = -1
        self._batches: list[Batch] = []
        self._sums: list[torch.Tensor] = []

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """In the dataset's order where the arguments say so, else in groups of like length."""
        if self.args.train_sampling_strategy == "sequential":
            return super()._get_train_sampler(train_dataset)
        update = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.accelerator.num_processes
        fillers = sum(not numbers for numbers in self.train_dataset["numbers"])
        lengths = self.train_dataset[self.args.length_column_name][: len(self.train_dataset) - fillers]
        self._sampler = EpochSampler(lengths, update, self.args.data_seed, fillers)
        return self._sampler

    def begin_epoch(self, epoch: int) -> None:
        """Tells the sampler which epoch's order is next."""
        if self._sampler is not None:
            self._sampler.epoch = epoch

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Σ weight · nll / number of tokens under loss, over all processes of the step."""
        labels, weights = inputs["labels"], inputs["loss_weights"][:, 1:]
        mask = labels[:, 1:] != IGNORED
        losses, outputs = token_losses(model, inputs, fused=labels.is_cuda)
        written = inputs["written"][:, 1:] & mask
        self._sums.append(torch.stack([losses.detach()[written].sum(), written.sum().float()]))
        if num_items_in_batch is None:
            loss = (losses * weights).sum() / mask.sum().clamp(min=1)
        else:  # it counts the tokens of all processes, and their gradients will be averaged
            loss = (losses * weights).sum() / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one batch, in as many parts as fit."""
        if self.state.global_step != self._step:
            self._step, self._batches, self._sums = self.state.global_step, [], []
        self._batches.append(inputs)
        try:
            return self._in_parts(model, inputs, num_items_in_batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        return self._again_in_smaller_parts(model, num_items_in_batch)  # the traceback, which held tensors, is gone

    def _in_parts(self, model: Any, inputs: Batch, items: Any) -> torch.Tensor:
        losses = [super(WeightedSftTrainer, self).training_step(model, part, items) for part in self._cut(inputs)]
        return torch.stack(losses).sum()

    def _cut(self, inputs: Batch) -> list[Batch]:
        """The parts of a batch; several processes take equally many, or they would wait for each other for ever.

        Raises:
            TrainerError: under DeepSpeed, which takes the optimiser's step inside the backward pass.
        """
        parts = self._plan.parts
        if parts > 1 and self.is_deepspeed_enabled:
            raise TrainerError(
                f"batches cannot be run in {parts} parts under DeepSpeed: lower sft.batch_size for more of "
                "sft.gradient_accumulation, or lower dataset.max_tokens"
            )
        pieces = cut(inputs, parts)
        if self.accelerator.num_processes > 1:
            pieces += [nothing(inputs)] * (parts - len(pieces))
        return pieces

    def _again_in_smaller_parts(self, model: Any, items: Any) -> torch.Tensor:
        """Forgets the step's gradients, which may hold a part of the failed batch, and computes all of them again."""
        while True:
            samples = max(samples_in(batch) for batch in self._batches)
            self._plan = self._plan.halved(self._run, self._step + 1, samples, self._say)
            if self.accelerator.num_processes > 1:  # the others wait for this one's gradients, and would for ever
                raise TrainerError("out of memory in one of several processes; run the same command again to go on")
            model.zero_grad()
            self._sums = []
            gc.collect()
            torch.cuda.empty_cache()
            try:
                return [self._in_parts(model, batch, items) for batch in self._batches][-1]
            except Exception as error:
                if not is_out_of_memory(error):
                    raise

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm of the step's gradient, which must be finite before the optimiser sees it."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and not math.isfinite(norm):
            raise NotANumberError(self._step + 1, self._batches)
        return norm

    def written_loss(self) -> torch.Tensor:
        """Of the step that has just ended: [Σ nll of tokens the teacher wrote, how many], over all processes."""
        total: torch.Tensor = self.accelerator.reduce(torch.stack(self._sums).sum(0), "sum")
        return total

    def anywhere(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all of them have to ask."""
        if self.accelerator.num_processes == 1:
            return flag
        found = self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device), "sum")
        return bool(found.item())

    def samples_seen(self) -> list[int]:
        """Of the step that has just ended: the numbers of this process's samples."""
        return [number for batch in self._batches for number in batch["numbers"].tolist()]
