"""Supervised fine-tuning: the student learns the teacher's turns, with TRL's SFTTrainer and a LoRA adapter.

Conversations are tokenised by the one chat format (so TRL's own template handling is not used), each token carries
its loss weight, and the loss is the weighted negative log-likelihood of what the teacher wrote.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import LoraConfig
from transformers import PrinterCallback
from trl import SFTConfig as TrlConfig

from trainer.config import Config
from trainer.errors import TrainerError
from trainer.processes import is_main_process, main_process_first, process_count, wait_for_all
from trainer.records import BCSample
from trainer.run_folder import RunFolder, write_atomic
from trainer.sft.batches import Row, collate_packed, collate_padded, filled, packed_rows
from trainer.sft.renaming import with_renamed_copies
from trainer.sft.run_log import Progress, RunLog
from trainer.sft.student_samples import FILE as SAMPLES
from trainer.sft.student_samples import StudentSamples
from trainer.sft.weighted_trainer import NotANumberError, WeightedSftTrainer
from trainer.student.base_checksum import claim_base
from trainer.student.base_model import load_model, load_tokenizer
from trainer.student.chat_format import encode
from trainer.student.format_checks import check_mask

BAD_BATCH = "bad_batch.json"
LOOK_TOKENS = 256
"""Longest turn that is written when the student is looked at."""


@dataclass(frozen=True)
class SftResult:
    """Where the student is and how the loss went, in nats per token that the teacher wrote."""

    adapter: Path
    loss_first: float
    loss_last: float
    steps: int
    tokens: int
    seconds: float
    """Over all legs of a run that was interrupted."""


def encode_samples(
    samples: Sequence[BCSample], tokenizer: Any, max_tokens: int, context_weight: float = 0.0
) -> list[Row]:
    """Tokenises each sample: one row of `trainer.sft.batches` each, numbered in order.

    Args:
        context_weight: loss weight of tokens that the student is given; turns of weight 0 keep 0.

    Raises:
        TrainerError: a sample is too long, or its mask is empty or suspicious (`check_mask`).
    """
    rows: list[Row] = []
    for number, sample in enumerate(samples):
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
                "numbers": [number],
                "starts": [0],
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


def _explained(error: NotANumberError, run: Path, samples: Sequence[BCSample], tokenizer: Any) -> TrainerError:
    """Keeps the step's batches for study and says where the last good state is.

    The gradient is the sum over all processes, so all of them have met it, and whose samples spoiled it is not known:
    the main process writes down what each of them had.
    """
    held = gather_object([samples[number] for batch in error.batches for number in batch["numbers"].tolist()])
    rows = gather_object([row for batch in error.batches for row in batch["input_ids"].tolist()])
    if is_main_process():
        study = {
            "step": error.step,
            "samples": [{"trace_id": s.trace_id, "window": s.window, "prompt": s.prompt} for s in held],
            "token_ids": rows,
            "texts": [tokenizer.decode(row) for row in rows],
        }
        write_atomic(run / BAD_BATCH, json.dumps(study, ensure_ascii=False, indent=1) + "\n")
    wait_for_all()
    good = whole_checkpoint(run / "checkpoints")
    state = f"the last good state is {good}" if good else "no checkpoint had been written"
    return TrainerError(
        f"the gradient of step {error.step} is not a number; {state}; its {len(held)} samples are in "
        f"{run / BAD_BATCH}. Lower sft.learning_rate, or leave those samples out, and run again"
    )


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def train_sft(
    samples: Sequence[BCSample],
    base: str,
    config: Config,
    run: RunFolder,
    progress: Progress | None = None,
    *,
    looked_at: Sequence[BCSample] = (),
    show: Callable[[], None] | None = None,
    say: Callable[[str], None] = _to_stderr,
) -> SftResult:
    """Trains an adapter on the samples; continues from the run folder's last checkpoint where there is one.

    Args:
        samples: training split; anything else is refused.
        base: folder or hub id, as `resolve_base` gives it.
        progress: called with (step, steps, loss).
        looked_at: prompts that the student answers every `sft.sample_steps`, for samples.jsonl.
        show: called after each such look, so that a page can show it.
        say: told once when batches had to become smaller.

    Raises:
        TrainerError: no samples, samples of another split, several GPUs for one process, a mask that trains nothing,
            another base than the run began with, a gradient that is not a number, or no room for a single sample.
    """
    if not samples:
        raise TrainerError("no training samples; run `claude-trainer dataset build` and read what it left out")
    if foreign := [s.trace_id for s in samples if s.split != "train"]:
        raise TrainerError(f"{len(foreign)} samples are not of the training split, the first is {foreign[0]}")
    if process_count() == 1 and (visible := torch.cuda.device_count()) > 1:  # transformers would replicate the model
        raise TrainerError(
            f"one process trains on one GPU, and {visible} are visible: set CUDA_VISIBLE_DEVICES=0, or start `sft` by "
            "`accelerate launch --config_file configs/accelerate/ddp.yaml` (docs/scale.md)"
        )
    sft, began = config.sft, time.monotonic()
    with main_process_first():
        claim_base(run.path, base)
    tokenizer = load_tokenizer(base)
    shown = with_renamed_copies(samples, sft.renamed_copies, config.student.seed)
    rows = encode_samples(shown, tokenizer, config.dataset.max_tokens, sft.context_weight)
    lengths = [row["length"] for row in rows]
    in_order = config.dataset.order == "curriculum"
    if sft.packing:
        rows = packed_rows(rows, config.dataset.max_tokens, in_order)
    if process_count() > 1:
        rows = filled(rows, sft.batch_size * process_count(), tokenizer.pad_token_id)
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
        train_sampling_strategy="sequential" if in_order else "group_by_length",
        length_column_name="length",
        logging_steps=sft.logging_steps,
        save_steps=sft.save_steps,
        save_total_limit=2,
        seed=config.student.seed,
        data_seed=config.student.seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        use_liger_kernel=sft.liger_kernels and torch.cuda.is_available() and find_spec("liger_kernel") is not None,
        logging_nan_inf_filter=False,  # the gradient is looked at instead
        disable_tqdm=True,
        report_to="none",
        log_level="error",
    )
    longest = min(LOOK_TOKENS, config.ppo.max_new_tokens)
    looks = StudentSamples(looked_at, tokenizer, longest, config.ppo.window, run.path / SAMPLES, show)
    alone = process_count() == 1  # shards of a model cannot write
    log = RunLog(run, lengths, progress, looks if looked_at and alone else None, sft.sample_steps, began)
    trainer = WeightedSftTrainer(
        model=load_model(base, config.student),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        data_collator=collate_packed if sft.packing else collate_padded(tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[log],
        run=run.path,
        say=say,
    )
    trainer.remove_callback(PrinterCallback)
    log.trainer = trainer
    checkpoints = run.path / "checkpoints"
    try:
        trainer.train(resume_from_checkpoint=whole_checkpoint(checkpoints))
    except NotANumberError as error:
        raise _explained(error, run.path, shown, tokenizer) from None
    if log.terminated:
        wait_for_all()  # the launcher ends the others when one has gone, and one of them writes the checkpoint
        raise TrainerError(f"stopped by SIGTERM at step {trainer.state.global_step}; run the same command to go on")
    folder = run.path / "adapter"
    _save_adapter(trainer, folder)
    wait_for_all()
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    result = SftResult(
        adapter=folder,
        loss_first=losses[0],
        loss_last=sum(losses[-5:]) / len(losses[-5:]),
        steps=trainer.state.global_step,
        tokens=int(sum(lengths) * trainer.state.epoch),
        seconds=log.seconds(),
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
    wait_for_all()
    return result


def _save_adapter(trainer: WeightedSftTrainer, folder: Path) -> None:
    """Saves the adapter, which several processes may hold in parts."""
    if process_count() == 1:
        trainer.model.save_pretrained(str(folder))
        return
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if is_main_process():
        trainer.accelerator.unwrap_model(trainer.model_wrapped).save_pretrained(str(folder), state_dict=state)
