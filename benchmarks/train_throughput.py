"""How fast an SFT step is, beside a bare transformers loop and beside TRL's SFTTrainer as it comes; and a PPO update.

    python benchmarks/train_throughput.py [--tiny] [--rounds N] [--steps N] [--updates N] [--stages sft,ppo] [--json]

Without a GPU (or with --tiny): a tiny random Llama. ours, bare and TRL train the same LoRA on the same batches, in
alternation; CPU seconds per step with one thread, so that a busy machine troubles all alike; ratios per round, and
their spread. `bare` is forward, loss, backward, clip, step and nothing else. `outside` is the share of ours between the
steps: batches, log, metrics.

On a GPU: a random Llama with the shapes of 3.1 8B (16 GB of disk, made on the spot) under configs/llama-3.1-8b.toml,
packed rows of 4,096 tokens for ours, TRL's own defaults with the same adapter, optimiser and weights: tokens/s, MFU,
peak memory. NOT YET RUN BY US ON A GPU.

PPO: updates of the config on one prompt, one turn an episode, its length exact because the random base as good as never
ends one. Printed: tokens of the episodes per second, peak memory, the share of the time that is the model's own work
(generate, forward, backward), on a GPU MFU. Beside a peer, and on real episodes: ppo_overhead.py.
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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
WORDS = ("read", "the", "file", "edit", "grep", "value", "config", "line", "test", "state", "load", "depth", "unit")
WANTED_RATIO, WANTED_OUTSIDE, WANTED_SPEEDUP, WANTED_MODEL_SHARE = 1.03, 0.02, 1.3, 0.7
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


def ppo_updates(base: str, config: Any, folder: Path, prompt_words: int) -> dict[str, Any]:
    """What `config.ppo.updates` updates take, the first one apart: it warms up.

    Args:
        base: a random base that as good as never ends a turn.
        prompt_words: words of each prompt.
    """
    import resource

    import torch
    from peft import get_peft_model
    from ppo_overhead import MODEL_WORK, Question, Stopwatch, watch_update

    from claude_capture.claude_trace_schema import Trace
    from trainer.ppo.ppo_trainer import train_ppo
    from trainer.reward.behavioral_reward_model import BehavioralRewardModel
    from trainer.run_folder import RunFolder
    from trainer.student.base_model import load_model, load_tokenizer
    from trainer.student.episodes import Case

    gpu = torch.cuda.is_available()

    def now() -> float:
        """Of the CPU; on a GPU of the wall, once it has finished what it was given."""
        if gpu:
            torch.cuda.synchronize()
        return time.perf_counter() if gpu else time.process_time()

    model = get_peft_model(load_model(base, config.student).eval(), adapter(config))
    watch = Stopwatch(clock=now)
    watch_update(watch, model)
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    reference = Trace(trace_id="t", session_id="s", user_prompt="word", claude_response="A word, said many times.")
    episodes = config.ppo.episodes_per_update
    cases = [Case(f"t{n}", (reference,), partial(Question, prompt_words), split="train") for n in range(episodes)]
    first: dict[str, float] = {}
    tokens: list[float] = []

    def progress(update: int, _: int, metrics: dict[str, Any]) -> None:
        assert metrics["written_tokens"] > 0.9 * config.ppo.max_new_tokens, metrics
        assert metrics["learned"], metrics
        tokens.append(metrics["tokens"] * episodes)
        if update == 1:
            first.update(watch.seconds)

    run, reward = RunFolder(folder, "ppo", config), BehavioralRewardModel(config.reward)
    train_ppo(model, load_tokenizer(base), cases, [], reward, config, run, progress=progress)
    seconds = {label: spent - first.get(label, 0.0) for label, spent in watch.seconds.items()}
    total = sum(seconds.values())
    peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "tokens_per_second": sum(tokens[1:]) / total,
        "seconds_per_update": total / (len(tokens) - 1),
        "peak_gb": peak / 1e9,
        "model_share": sum(seconds[label] for label in MODEL_WORK) / total,
        "shares": {label: spent / total for label, spent in sorted(seconds.items(), key=lambda item: -item[1])},
    }


def measured_ppo(config: Any, **ppo: Any) -> Any:
    """The config with settings that make each update the same work."""
    changes = {"max_turns": 1, "value_warmup": 0, "target_kl": 1e9, "runaway_malformed": 1.0, "runaway_length": 1e9}
    return config.model_copy(update={"ppo": config.ppo.model_copy(update=changes | ppo)})


def ppo_on_cpu(updates: int) -> dict[str, Any]:
    """PPO with the tiny config's settings on a random tiny base."""
    from ppo_overhead import random_base

    from trainer.config import load_config

    config = load_config(Path(__file__).resolve().parents[1] / "configs" / "tiny.toml")
    config = measured_ppo(config, updates=updates + 1, episodes_per_update=16, max_new_tokens=128, bf16=False)
    with tempfile.TemporaryDirectory() as scratch:
        base = str(random_base(Path(scratch) / "base"))
        return ppo_updates(base, config, Path(scratch), 120)


def ppo_on_gpu(base: str, config: Any, folder: Path, updates: int, peak: float | None) -> dict[str, Any]:
    """PPO with the 8B config's settings; MFU over generating, looking back twice and learning."""
    from trainer.preflight_memory import LLAMA_8B

    config = measured_ppo(config, updates=updates + 1)
    found = ppo_updates(base, config, folder, 1500)
    # of each token one forward pass to write it, two to look back; per epoch forward, backward, and forward again
    passes = 3 + config.ppo.epochs * (3 if config.ppo.gradient_checkpointing else 2)
    flops = found["tokens_per_second"] * passes * LLAMA_8B.flops_per_token(1000)
    return found | {"mfu": flops / (peak * 1e12) if peak else None}


def silent(base: Path) -> None:
    """Makes a random Llama's control tokens so unlikely that it as good as never ends a turn."""
    from random_llama import BYTE_LEVEL_TOKENS
    from safetensors.torch import load_file, save_file

    files = json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors = load_file(base / files[name])
        if name == "lm_head.weight":
            tensors[name][BYTE_LEVEL_TOKENS:] = 0.0
            tensors[name][BYTE_LEVEL_TOKENS:, 0] = -10.0
        else:
            tensors[name][:, 0] = 1.0  # what every hidden state then has
        save_file(tensors, base / files[name], {"format": "pt"})


def on_gpu(steps: int, updates: int, stages: Sequence[str]) -> dict[str, Any]:
    """Tokens per second, MFU and peak memory of 8B QLoRA."""
    import torch
    from random_llama import write_llama

    from trainer.config import load_config
    from trainer.preflight import peak_tflops
    from trainer.preflight_memory import LLAMA_8B
    from trainer.student.base_model import load_tokenizer
    from trainer.student.chat_format import template_text

    config = load_config(Path(__file__).resolve().parents[1] / "configs" / "llama-3.1-8b.toml")
    changes = {"max_steps": steps, "gradient_accumulation": 2, "save_steps": 10 * steps, "logging_steps": 1}
    config = config.model_copy(update={"sft": config.sft.model_copy(update=changes)})
    name = torch.cuda.get_device_name()
    peak = peak_tflops(name)
    samples = conversations(8 * steps * 2, 300, 1500)
    result: dict[str, Any] = {"device": name}
    with tempfile.TemporaryDirectory() as scratch:
        shape = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "head_dim": 128}
        shape |= {"tie_word_embeddings": False}
        base = str(write_llama(Path(scratch) / "base", template_text(), **shape))
        tokenizer = load_tokenizer(base)
        mean = statistics.mean(len(tokenizer.encode(sample.messages[1]["content"])) * 2 for sample in samples[:50])
        for side in ("ours", "trl") if "sft" in stages else ():
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
        if "sft" in stages:
            result["speedup"] = result["ours"]["tokens_per_second"] / result["trl"]["tokens_per_second"]
        if "ppo" in stages:
            silent(Path(base))
            result["ppo"] = ppo_on_gpu(base, config, Path(scratch) / "runs", updates, peak)
    return result


def show_ppo(found: dict[str, Any]) -> None:
    """The row of PPO and what its time went into."""
    use = f"{found['mfu']:.0%} MFU, " if found.get("mfu") else ""
    print(
        f"PPO   {found['tokens_per_second']:>9,.0f} tokens/s, {use}{found['peak_gb']:.1f} GB at the peak, "
        f"{found['seconds_per_update']:.1f} s per update"
    )
    print("      " + ", ".join(f"{label} {share:.1%}" for label, share in found["shares"].items() if share >= 0.001))
    print(f"      generate, forward, backward: {found['model_share']:.1%} (wanted at least {WANTED_MODEL_SHARE:.0%})")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="the tiny Llama on the CPU, also where a GPU is")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--updates", type=int, default=5, help="updates of PPO that are counted")
    parser.add_argument("--stages", default="sft,ppo", help="which of the two, with a comma")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    gpu = torch.cuda.is_available() and not asked.tiny
    stages = asked.stages.split(",")
    if gpu:
        found = on_gpu(asked.steps, asked.updates, stages)
    else:
        found = on_cpu(asked.rounds, asked.steps) if "sft" in stages else {}
        found |= {"ppo": ppo_on_cpu(asked.updates)} if "ppo" in stages else {}
    if asked.json:
        print(json.dumps(found))
        return
    print(found.get("device", "CPU, one thread"))
    if gpu and "sft" in stages:
        for side in ("ours", "trl"):
            row = found[side]
            use = f"{row['mfu']:.0%} MFU, " if row["mfu"] else ""
            print(f"{side:<6}{row['tokens_per_second']:>9,.0f} tokens/s, {use}{row['peak_gb']:.1f} GB at the peak")
        print(f"ours to TRL: {found['speedup']:.2f}× (wanted {WANTED_SPEEDUP}×)")
    elif "sft" in stages:
        for side, milliseconds in found["ms_per_step"].items():
            print(f"{side:<6}{milliseconds:8.1f} ms of CPU per step")
        for peer, (low, middle, high) in found["ours_to"].items():
            wanted = f" (wanted at most {WANTED_RATIO})" if peer == "bare" else ""
            print(f"ours to {peer:<5}{middle:6.3f} [{low:.3f} to {high:.3f} over rounds]{wanted}")
        print(f"outside the step: {found['outside_step']:.2%} (wanted under {WANTED_OUTSIDE:.0%})")
    if "ppo" in stages:
        show_ppo(found["ppo"])


if __name__ == "__main__":
    main()
