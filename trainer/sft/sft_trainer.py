"""Supervised fine-tuning: the student learns the teacher's turns, with TRL's SFTTrainer and a LoRA adapter.

Conversations are tokenised by the one chat format (so TRL's own template handling is not used), each token carries
its loss weight, and the loss is the weighted negative log-likelihood of what the teacher wrote.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn import functional
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from trainer.config import Config
from trainer.errors import TrainerError
from trainer.records import BCSample
from trainer.run_folder import RunFolder
from trainer.sft.renaming import with_renamed_copies
from trainer.student.base_model import load_model, load_tokenizer
from trainer.student.chat_format import encode
from trainer.student.format_checks import check_mask

IGNORED = -100
ROUND_LENGTH = 32
"""Batches are padded to a multiple of this: few distinct shapes run faster (1.5x on CPU) and cost little."""


@dataclass(frozen=True)
class SftResult:
    """Where the student is and how the loss went, in nats per token that the teacher wrote."""

    adapter: Path
    loss_first: float
    loss_last: float
    steps: int
    tokens: int
    seconds: float


class WeightedSftTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with a loss weight per token.

    On a GPU, TRL's fused head keeps the logits of masked tokens out of memory. On CPU it would score those too,
    which costs a quarter of the step, so plain logits are used there.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.written_loss: list[float] = []

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Σ weight · nll / number of tokens under loss; the mean nll of written tokens goes to `written_loss`."""
        labels, weights = inputs["labels"], inputs["loss_weights"][:, 1:]
        mask = labels[:, 1:] != IGNORED
        if labels.is_cuda:
            outputs = model(input_ids=inputs["input_ids"], labels=labels, fused_lm_head=True)
            losses = -outputs.log_probs
        else:
            outputs = model(input_ids=inputs["input_ids"], use_cache=False)
            losses = torch.zeros_like(weights)
            losses[mask] = functional.cross_entropy(
                outputs.logits[:, :-1][mask].float(), labels[:, 1:][mask], reduction="none"
            )
        written = inputs["written"][:, 1:] & mask
        items = mask.sum() if num_items_in_batch is None else num_items_in_batch
        loss = (losses * weights).sum() / items
        if written.any():
            self.written_loss.append(losses.detach()[written].mean().item())
        return (loss, outputs) if return_outputs else loss


def _collate(pad: int) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Right padding; causal attention never looks at it, so no attention mask is needed."""

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
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
        labels = torch.where(weights > 0, ids, IGNORED)
        return {"input_ids": ids, "labels": labels, "loss_weights": weights, "written": written}

    return collate


class _RunLog(TrainerCallback):  # type: ignore[misc]
    """Writes metrics.jsonl, reports progress, and turns SIGTERM into a checkpoint and a clean end."""

    def __init__(self, run: RunFolder, progress: Callable[[int, int, float], None] | None) -> None:
        self.run = run
        self.progress = progress
        self.trainer: WeightedSftTrainer | None = None
        self.terminated = False
        self._since = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.run.forget_after("step", state.global_step)
        self._previous = signal.signal(signal.SIGTERM, self._terminate)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _terminate(self, *_: Any) -> None:
        self.terminated = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self.trainer is not None
        if self.terminated:
            control.should_save = control.should_training_stop = True
        if state.global_step % args.logging_steps and state.global_step != 1:
            return
        recent = self.trainer.written_loss[self._since :]
        self._since = len(self.trainer.written_loss)
        loss = sum(recent) / max(1, len(recent))
        rate = self.trainer.optimizer.param_groups[0]["lr"]
        self.run.log(step=state.global_step, loss=loss, learning_rate=rate, epoch=state.epoch)
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps, loss)


def encode_samples(
    samples: Sequence[BCSample], tokenizer: Any, max_tokens: int, context_weight: float = 0.0
) -> list[dict[str, Any]]:
    """Tokenises each sample: `input_ids`, `loss_weights` and `written` (same length), `length`.

    Args:
        context_weight: loss weight of tokens that the student is given; turns of weight 0 keep 0.

    Raises:
        TrainerError: a sample is too long, or its mask is empty or suspicious (`check_mask`).
    """
    rows = []
    for sample in samples:
        encoded = encode(tokenizer, sample.messages, sample.tools, sample.weights)
        if len(encoded.ids) > max_tokens:
            raise TrainerError(
                f"sample {sample.trace_id} has {len(encoded.ids)} tokens, over max_tokens = {max_tokens}; "
                "rebuild the dataset with this base's tokenizer or raise dataset.max_tokens"
            )
        check_mask(tokenizer, encoded, sample.messages, f"sample {sample.trace_id}, window {sample.window},")
        weights = [
            weight if own else context_weight for weight, own in zip(encoded.weights, encoded.written, strict=True)
        ]
        rows.append(
            {
                "input_ids": encoded.ids,
                "loss_weights": weights,
                "written": encoded.written,
                "length": len(encoded.ids),
            }
        )
    return rows


def whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end, None where there is none.

    transformers writes a checkpoint file by file, trainer_state.json last; what a killed process left without a
    readable one is deleted.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for checkpoint in found:
        try:
            json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            shutil.rmtree(checkpoint, ignore_errors=True)
        else:
            return str(checkpoint)
    return None


def train_sft(
    samples: Sequence[BCSample],
    base: str,
    config: Config,
    run: RunFolder,
    progress: Callable[[int, int, float], None] | None = None,
) -> SftResult:
    """Trains an adapter on the samples; continues from the run folder's last checkpoint where there is one.

    Args:
        samples: training split; anything else is refused.
        base: folder or hub id, as `resolve_base` gives it.
        progress: called with (step, steps, loss).

    Raises:
        TrainerError: no samples, samples of another split, or a mask that trains nothing.
    """
    if not samples:
        raise TrainerError("no training samples; run `claude-trainer dataset build` and read what it left out")
    if foreign := [s.trace_id for s in samples if s.split != "train"]:
        raise TrainerError(f"{len(foreign)} samples are not of the training split, the first is {foreign[0]}")
    sft, began = config.sft, time.monotonic()
    tokenizer = load_tokenizer(base)
    shown = with_renamed_copies(samples, sft.renamed_copies, config.student.seed)
    rows = encode_samples(shown, tokenizer, config.dataset.max_tokens, sft.context_weight)
    adapter = LoraConfig(
        r=sft.lora_r,
        lora_alpha=sft.lora_alpha,
        lora_dropout=sft.lora_dropout,
        target_modules="all-linear",
        modules_to_save=["embed_tokens", "lm_head"] if sft.train_embeddings else None,
        task_type="CAUSAL_LM",
    )
    arguments = TrlConfig(
        output_dir=str(run.path / "checkpoints"),
        per_device_train_batch_size=sft.batch_size,
        gradient_accumulation_steps=sft.gradient_accumulation,
        num_train_epochs=sft.epochs,
        max_steps=sft.max_steps,
        learning_rate=sft.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=sft.warmup_fraction,
        weight_decay=sft.weight_decay,
        adam_beta2=sft.adam_beta2,
        max_grad_norm=sft.max_grad_norm,
        optim=sft.optimizer,
        bf16=sft.bf16,
        gradient_checkpointing=sft.gradient_checkpointing,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        train_sampling_strategy="sequential" if config.dataset.order == "curriculum" else "group_by_length",
        length_column_name="length",
        logging_steps=sft.logging_steps,
        save_steps=sft.save_steps,
        save_total_limit=2,
        seed=config.student.seed,
        data_seed=config.student.seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
        log_level="error",
    )
    log = _RunLog(run, progress)
    trainer = WeightedSftTrainer(
        model=load_model(base, config.student),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        data_collator=_collate(tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[log],
    )
    trainer.remove_callback(PrinterCallback)
    log.trainer = trainer
    checkpoints = run.path / "checkpoints"
    trainer.train(resume_from_checkpoint=whole_checkpoint(checkpoints))
    if log.terminated:
        raise TrainerError(f"stopped by SIGTERM at step {trainer.state.global_step}; run the same command to go on")
    folder = run.path / "adapter"
    trainer.model.save_pretrained(str(folder))
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    result = SftResult(
        adapter=folder,
        loss_first=losses[0],
        loss_last=sum(losses[-5:]) / len(losses[-5:]),
        steps=trainer.state.global_step,
        tokens=int(sum(row["length"] for row in rows) * trainer.state.epoch),
        seconds=time.monotonic() - began,
    )
    run.finish(
        base=base,
        adapter=folder.name,
        loss_first=result.loss_first,
        loss_last=result.loss_last,
        steps=result.steps,
        tokens=result.tokens,
        seconds=result.seconds,
    )
    return result
