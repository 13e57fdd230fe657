"""How fast an SFT step is, beside a bare transformers loop and beside TRL's SFTTrainer as it comes.

    python benchmarks/train_throughput.py [--tiny] [--rounds N] [--steps N] [--json]

Without a GPU (or with --tiny): a tiny random Llama. ours, bare and TRL train the same LoRA on the same batches, in
alternation; CPU seconds per step with one thread, so that a busy machine troubles all alike; ratios per round, and
their spread. `bare` is forward, loss, backward, clip, step and nothing else. `outside` is the share of ours between the
steps: batches, log, metrics.

On a GPU: a random Llama with the shapes of 3.1 8B (16 GB of disk, made on the spot) under configs/llama-3.1-8b.toml,
packed rows of 4,096 tokens for ours, TRL's own defaults with the same adapter, optimiser and weights: tokens/s, MFU,
peak memory. NOT YET RUN BY US ON A GPU. What a PPO update costs is ppo_overhead.py's to say.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
WORDS = ("read", "the", "file", "edit", "grep", "value", "config", "line", "test", "state", "load", "depth", "unit")
WANTED_RATIO, WANTED_OUTSIDE, WANTED_SPEEDUP = 1.03, 0.02, 1.3
WARM_UP = 3
"""Steps of each run that are not counted."""


def conversations(count: int, shortest: int, longest: int) -> list[Any]:
    """Training samples of random words, between so many words each; the assistant writes half of them."""
    from claude_capture.claude_trace_schema import Teacher
    from trainer.records import BCSample

    draw, made = random.Random(0), []
    for number in range(count):
        text = [" ".join(draw.choices(WORDS, k=draw.randint(shortest, longest) // 2)) for _ in range(2)]
        messages = [
            {"role": "system", "content": "You are an agent."},
            {"role": "user", "content": text[0]},
            {"role": "assistant", "content": text[1]},
        ]
        fields: dict[str, Any] = {"workflow_type": "search", "exploration_depth": "minimal", "split": "train"}
        fields |= {"prompt": "", "response": "", "weights": [1.0], "teacher": Teacher(), "basis": "own work"}
        made.append(BCSample(trace_id=f"t{number}", family=f"f{number}", messages=messages, **fields))
    return made


class Clock:
    """Seconds between ends of steps: of this process's CPU, or of the wall on a GPU once it has finished."""

    def __init__(self, gpu: bool) -> None:
        self.gpu = gpu
        self.marks: list[float] = []

    def mark(self) -> None:
        """A step has ended."""
        if self.gpu:
            import torch

            torch.cuda.synchronize()
        self.marks.append(time.perf_counter() if self.gpu else time.process_time())

    def steps(self) -> list[float]:
        """Seconds per step, without the first."""
        return [after - before for before, after in zip(self.marks[WARM_UP:], self.marks[WARM_UP + 1 :], strict=False)]


def ours(samples: list[Any], base: str, config: Any, folder: Path, clock: Clock) -> dict[str, float]:
    """`train_sft` as `claude-trainer sft` calls it, with a line of metrics per ten steps, as it comes."""
    from unittest.mock import patch

    from trainer.run_folder import RunFolder
    from trainer.sft.run_log import RunLog
    from trainer.sft.sft_trainer import train_sft

    written = RunLog.on_step_end

    def on_step_end(log: RunLog, *arguments: Any, **options: Any) -> None:
        """The run's own bookkeeping, and the clock after it."""
        written(log, *arguments, **options)
        clock.mark()

    run = RunFolder(folder, "ours", config)
    with patch.object(RunLog, "on_step_end", on_step_end):
        train_sft(samples, base, config, run)
    outside = [row["outside_step"] for row in run.metrics()[1:]]
    shutil.rmtree(run.path)
    return {"outside": statistics.mean(outside)}


def adapter(config: Any) -> Any:
    """The LoRA that all sides train."""
    from peft import LoraConfig

    sft = config.sft
    return LoraConfig(
        r=sft.lora_r,
        lora_alpha=sft.lora_alpha,
        lora_dropout=sft.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def bare(samples: list[Any], base: str, config: Any, folder: Path, clock: Clock) -> dict[str, float]:
    """The same batches through forward, loss, backward, clip, step."""
    import torch
    from peft import get_peft_model

    from trainer.sft.batches import IGNORED, collate_padded
    from trainer.sft.sft_trainer import encode_samples
    from trainer.student.base_model import load_model, load_tokenizer

    sft, tokenizer = config.sft, load_tokenizer(base)
    rows = encode_samples(samples, tokenizer, config.dataset.max_tokens)
    collate = collate_padded(tokenizer.pad_token_id)
    model = get_peft_model(load_model(base, config.student), adapter(config)).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=sft.learning_rate, betas=(0.9, sft.adam_beta2), weight_decay=0.0)
    for step in range(sft.max_steps):
        batch = collate(rows[step * sft.batch_size : (step + 1) * sft.batch_size])
        mask = batch["labels"][:, 1:] != IGNORED
        logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1][mask]
        losses = torch.nn.functional.cross_entropy(logits.float(), batch["labels"][:, 1:][mask], reduction="none")
        loss = (losses * batch["loss_weights"][:, 1:][mask]).sum() / mask.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, sft.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        clock.mark()
    return {}


def trl(samples: list[Any], base: str, config: Any, folder: Path, clock: Clock) -> dict[str, float]:
    """TRL's SFTTrainer with its own collator and loss, on the same token ids and labels."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from trainer.sft.batches import IGNORED
    from trainer.sft.sft_trainer import encode_samples
    from trainer.student.base_model import load_model, load_tokenizer

    class Mark(TrainerCallback):  # type: ignore[misc]
        """Marks the end of every step."""

        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            clock.mark()

    sft, tokenizer = config.sft, load_tokenizer(base)
    rows = [
        {
            "input_ids": row["input_ids"],
            "labels": [
                token if weight else IGNORED
                for token, weight in zip(row["input_ids"], row["loss_weights"], strict=True)
            ],
        }
        for row in encode_samples(samples, tokenizer, config.dataset.max_tokens)
    ]
    settings = SFTConfig(
        output_dir=str(folder / "trl"),
        max_steps=sft.max_steps,
        per_device_train_batch_size=sft.batch_size,
        gradient_accumulation_steps=sft.gradient_accumulation,
        learning_rate=sft.learning_rate,
        optim=sft.optimizer,
        bf16=sft.bf16,
        gradient_checkpointing=sft.gradient_checkpointing,
        max_grad_norm=sft.max_grad_norm,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="random" if clock.gpu else "sequential",
        use_cpu=not clock.gpu,
        dataloader_pin_memory=clock.gpu,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        log_level="error",
    )
    trainer = SFTTrainer(
        model=load_model(base, config.student),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapter(config),
        callbacks=[Mark()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return {}


SIDES: dict[str, Callable[..., dict[str, float]]] = {"ours": ours, "bare": bare, "trl": trl}


def on_cpu(rounds: int, steps: int) -> dict[str, Any]:
    """Ratios of seconds per step, per round, and what lies between the steps."""
    from trainer.config import Config, DatasetConfig, SftConfig, TinyLlama
    from trainer.student.chat_format import render
    from trainer.student.tiny_llama import make_tiny_base

    batch = 4
    samples = conversations(steps * batch, 60, 240)
    config = Config(
        dataset=DatasetConfig(max_tokens=1024, order="curriculum"),
        sft=SftConfig(batch_size=batch, max_steps=steps, lora_r=16, bf16=False, save_steps=steps, sample_steps=steps),
    )
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    outside = []
    with tempfile.TemporaryDirectory() as scratch:
        texts = [render(sample.messages) for sample in samples[:50]]
        base = str(make_tiny_base(TinyLlama(copy_steps=0, recall_steps=0), texts, Path(scratch)))
        for number in range(rounds):
            names = list(SIDES) if number % 2 == 0 else list(reversed(SIDES))
            for name in names:
                clock = Clock(gpu=False)
                found = SIDES[name](samples, base, config, Path(scratch) / "runs", clock)
                seconds[name].append(statistics.median(clock.steps()))
                outside += [found["outside"]] if "outside" in found else []
    ratios = {
        peer: [own / other for own, other in zip(seconds["ours"], seconds[peer], strict=True)]
        for peer in ("bare", "trl")
    }
    return {
        "device": "CPU, one thread",
        "ms_per_step": {name: 1000 * statistics.median(values) for name, values in seconds.items()},
        "ours_to": {peer: [min(found), statistics.median(found), max(found)] for peer, found in ratios.items()},
        "outside_step": statistics.median(outside),
    }


def on_gpu(steps: int) -> dict[str, Any]:
    """Tokens per second, MFU and peak memory of 8B QLoRA."""
    import torch
    from random_llama import write_llama

    from trainer.config import load_config
    from trainer.preflight import PEAK_TFLOPS
    from trainer.preflight_memory import LLAMA_8B
    from trainer.student.base_model import load_tokenizer
    from trainer.student.chat_format import template_text

    config = load_config(Path(__file__).resolve().parents[1] / "configs" / "llama-3.1-8b.toml")
    updates = {"max_steps": steps, "gradient_accumulation": 2, "save_steps": 10 * steps, "logging_steps": 1}
    config = config.model_copy(update={"sft": config.sft.model_copy(update=updates)})
    name = torch.cuda.get_device_name()
    peak = next((rate for part, rate in PEAK_TFLOPS.items() if part in name), None)
    samples, result = conversations(8 * steps * 2, 300, 1500), {}
    with tempfile.TemporaryDirectory() as scratch:
        shape = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "head_dim": 128}
        shape |= {"tie_word_embeddings": False}
        base = str(write_llama(Path(scratch) / "base", template_text(), **shape))
        tokenizer = load_tokenizer(base)
        mean = statistics.mean(len(tokenizer.encode(sample.messages[1]["content"])) * 2 for sample in samples[:50])
        for side in ("ours", "trl"):
            torch.cuda.reset_peak_memory_stats()
            clock = Clock(gpu=True)
            SIDES[side](samples, base, config, Path(scratch) / "runs", clock)
            # ours fills rows of max_tokens, TRL takes one sample a row
            per_row = config.dataset.max_tokens * 0.97 if side == "ours" else mean
            seen = per_row * config.sft.batch_size * config.sft.gradient_accumulation
            rate = seen / statistics.median(clock.steps())
            flops = rate * 3 * LLAMA_8B.flops_per_token(mean / 2)
            result[side] = {
                "tokens_per_second": rate,
                "mfu": flops / (peak * 1e12) if peak else None,
                "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
            }
            torch.cuda.empty_cache()
    result["speedup"] = result["ours"]["tokens_per_second"] / result["trl"]["tokens_per_second"]
    return {"device": name, **result}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="the tiny Llama on the CPU, also where a GPU is")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    gpu = torch.cuda.is_available() and not asked.tiny
    found = on_gpu(asked.steps) if gpu else on_cpu(asked.rounds, asked.steps)
    if asked.json:
        print(json.dumps(found))
    elif gpu:
        print(found["device"])
        for side in ("ours", "trl"):
            row = found[side]
            use = f"{row['mfu']:.0%} MFU, " if row["mfu"] else ""
            print(f"{side:<6}{row['tokens_per_second']:>9,.0f} tokens/s, {use}{row['peak_gb']:.1f} GB at the peak")
        print(f"ours to TRL: {found['speedup']:.2f}× (wanted {WANTED_SPEEDUP}×)")
    else:
        print(found["device"])
        for side, milliseconds in found["ms_per_step"].items():
            print(f"{side:<6}{milliseconds:8.1f} ms of CPU per step")
        for peer, (low, middle, high) in found["ours_to"].items():
            wanted = f" (wanted at most {WANTED_RATIO})" if peer == "bare" else ""
            print(f"ours to {peer:<5}{middle:6.3f} [{low:.3f} to {high:.3f} over rounds]{wanted}")
        print(f"outside the step: {found['outside_step']:.2%} (wanted under {WANTED_OUTSIDE:.0%})")


if __name__ == "__main__":
    main()
