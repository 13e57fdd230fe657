"""What a PPO update costs beside the model's own work, against TRL's PPOTrainer, and how much memory it needs.

    python benchmarks/ppo_overhead.py [--parts share,peer,memory] [--updates N] [--rounds N] [--json]

share   CPU seconds of updates on the demo world (the weak student of ppo_gain.py, which is trained first where it is
        not there: minutes), by what they went into. Overhead is everything outside forward, backward and generate.
peer    Updates per CPU second of ours and of TRL's PPOTrainer on the same random tiny Llama with the same LoRA: equal
        episodes, prompt and response lengths, epochs, minibatches, float32, one turn per episode. TRL 1.13 dropped PPO,
        so its last release with it, 1.12, is installed into a virtual environment of its own under
        ~/.cache/claude-capture/peers. TRL's reward model is a stub that costs nothing; its value model is a second
        backbone of the same shape, because that is what it asks for. Ours scores with the real reward. Both sides take
        turns, so many updates a round; the ratio is the mean over rounds with its 95 % interval (Student's t).
memory  Peak memory of log-probabilities and their gradient for a Llama-3-sized vocabulary: ours, with logits at written
        tokens only and in chunks, and a plain loop with logits of all tokens; each in a process of its own.

Times are CPU seconds with one thread, so that a busy machine troubles both sides alike.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
TRL = "1.12.0"
_PEER = Path.home() / ".cache" / "claude-capture" / "peers" / f"trl-{TRL}"
_PEER_PACKAGES = ("torch", "transformers", "accelerate", "peft", "datasets")
"""Taken in the versions that are installed here."""
EPISODES, MINIBATCH, EPOCHS = 16, 8, 2
RESPONSE = 128
WANTED_SHARE, WANTED_SPEEDUP = 0.10, 1.5
MODEL_WORK = ("generate", "forward", "backward")
VOCABULARY, ROWS, LENGTH, WRITTEN = 128_256, 2, 512, 0.25

_WORKER = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from transformers.modeling_outputs import BaseModelOutput
from trl.experimental.ppo import PPOConfig, PPOTrainer

work = json.load(sys.stdin)

class Tokens(torch.nn.Module):
    def forward(self, input_ids, **options):
        return BaseModelOutput(hidden_states=(input_ids[..., None].float(),))

class Free(torch.nn.Module):
    # a reward model that costs nothing
    base_model_prefix = "backbone"

    def __init__(self):
        super().__init__()
        self.backbone = Tokens()

    def score(self, hidden):
        return torch.cos(hidden)

marks = []

class Clock(TrainerCallback):
    def on_step_end(self, args, state, control, **options):
        marks.append((time.process_time(), time.perf_counter()))

tokenizer = AutoTokenizer.from_pretrained(work["base"], padding_side="left")
tokenizer.pad_token = "<|eot_id|>"
load = dict(dtype=torch.float32, attn_implementation="sdpa")
policy = AutoModelForCausalLM.from_pretrained(work["base"], **load)
value = AutoModelForSequenceClassification.from_pretrained(work["base"], num_labels=1, **load)
settings = PPOConfig(
    output_dir=work["folder"], per_device_train_batch_size=work["episodes"], gradient_accumulation_steps=1,
    num_mini_batches=work["episodes"] // work["minibatch"], num_ppo_epochs=work["epochs"],
    total_episodes=work["episodes"] * work["updates"], response_length=work["response"], temperature=1.0,
    learning_rate=1e-5, bf16=False, use_cpu=True, gradient_checkpointing=False, num_sample_generations=0,
    report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=1,
)
rows = Dataset.from_list([{"input_ids": work["prompt"]}] * work["episodes"])
trainer = PPOTrainer(
    settings, tokenizer, policy, None, Free(), rows, value, eval_dataset=rows, callbacks=[Clock()],
    peft_config=LoraConfig(r=work["rank"], lora_alpha=work["rank"], target_modules="all-linear"),
)
trainer.train()
print("RESULT " + json.dumps(marks))
"""


# Where the time of an update goes


@dataclass
class Stopwatch:
    """Seconds by label, of this process's CPU or of another clock; time inside a nested label counts there alone."""

    clock: Callable[[], float] = time.process_time
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _open: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def __call__(self, label: str) -> Iterator[None]:
        now = self.clock()
        if self._open:
            outer, since = self._open[-1]
            self.seconds[outer] += now - since
        self._open.append((label, now))
        try:
            yield
        finally:
            now = self.clock()
            label, since = self._open.pop()
            self.seconds[label] += now - since
            if self._open:
                self._open[-1] = (self._open[-1][0], now)

    def watch(self, owner: Any, name: str, label: str) -> None:
        """Counts every call of an attribute from now on."""
        original: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(original)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self(label):
                return original(*arguments, **options)

        setattr(owner, name, timed)


def watch_update(watch: Stopwatch, student: Any) -> None:
    """Labels all that a PPO update of this student does; forward, backward and generate are the model's own work."""
    import torch

    from trainer.ppo import learner, ppo_trainer, rollout_buffer
    from trainer.ppo.replay_environment import ReplayEnvironment
    from trainer.ppo.value_head import Actor
    from trainer.student import episodes

    watch.watch(student.get_base_model(), "forward", "generate")
    watch.watch(episodes, "choose", "generate")
    watch.watch(Actor, "forward", "forward")
    watch.watch(torch.Tensor, "backward", "backward")
    watch.watch(torch.optim.AdamW, "step", "optimiser")
    watch.watch(ppo_trainer._Loop, "update", "bookkeeping, metrics, log")
    watch.watch(learner.Learner, "improve_policy", "gradient clipping and loss")
    watch.watch(learner.Learner, "fit_values", "value head")
    watch.watch(learner.Learner, "look_back", "GAE and gathering")
    watch.watch(learner, "minibatches", "padding")
    watch.watch(ppo_trainer, "collect", "lock step and tokenising")
    watch.watch(ReplayEnvironment, "step", "environment")
    watch.watch(rollout_buffer, "_environment", "environment")
    watch.watch(rollout_buffer, "score_episode", "reward")


def share(folder: Path, base: str, updates: int) -> dict[str, Any]:
    """CPU seconds per update by what they went into; the first update is not counted."""
    from ppo_gain import prepare, weak_student

    from trainer.ppo.ppo_trainer import train_ppo
    from trainer.reward.behavioral_reward_model import BehavioralRewardModel
    from trainer.run_folder import RunFolder
    from trainer.student.base_model import load_adapted, load_tokenizer

    road = prepare(folder, base, quick=True)
    changes = {"updates": updates + 1, "value_warmup": 0, "target_kl": 1e9, "episodes_per_update": EPISODES}
    settings = road.config.ppo.model_copy(update=changes | {"minibatch_size": MINIBATCH, "epochs": EPOCHS})
    config = road.config.model_copy(update={"ppo": settings})
    adapter, _ = weak_student(road, config)
    student = load_adapted(config.student.base_model, config.student, adapter, trainable=True)
    watch, totals = Stopwatch(), []
    watch_update(watch, student)
    first: dict[str, float] = {}

    def progress(update: int, _: int, metrics: dict[str, Any]) -> None:
        totals.append(metrics["tokens"] * EPISODES)
        if update == 1:
            first.update(watch.seconds)

    shutil.rmtree(folder / "runs" / "overhead", ignore_errors=True)
    run = RunFolder(folder / "runs", "overhead", config)
    reward = BehavioralRewardModel(config.reward)
    train_ppo(
        student, load_tokenizer(config.student.base_model), road.cases("train"), [], reward, config, run,
        progress=progress,
    )  # fmt: skip
    seconds = {label: (spent - first.get(label, 0.0)) / updates for label, spent in watch.seconds.items()}
    total = sum(seconds.values())
    return {
        "updates": updates,
        "episodes": EPISODES,
        "tokens": statistics.mean(totals[1:]),
        "seconds": dict(sorted(seconds.items(), key=lambda item: -item[1])),
        "total": total,
        "overhead": 1 - sum(seconds[label] for label in MODEL_WORK) / total,
    }


# Beside TRL


def random_llama(vocabulary: int) -> Any:
    """A random Llama of the tiny base's shape, in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from trainer.config import TinyLlama

    shape = TinyLlama()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, max_position_embeddings=shape.max_positions, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def random_base(folder: Path) -> Path:
    """A random base that as good as never ends a turn, so that lengths are exact."""
    import torch

    from trainer.student.chat_format import CONTROL_TOKENS
    from trainer.student.tiny_llama import train_tokenizer

    tokenizer = train_tokenizer([Path(__file__).read_text("utf-8")] * 4, 1024)
    model = random_llama(len(tokenizer))
    model.config.bos_token_id, model.config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 1.0  # a direction that every hidden state has
        for name in (*CONTROL_TOKENS, "<|eom_id|>", "<|end_of_text|>"):
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(name)] = 0.0
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(name), 0] = -100.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Question:
    """One prompt of so many words, one turn."""

    def __init__(self, words: int = 120) -> None:
        self.tools: list[dict[str, Any]] = []
        self.words = words

    def reset(self) -> list[dict[str, Any]]:
        prompt = "word " * self.words
        return [{"role": "system", "content": "You are a coding agent."}, {"role": "user", "content": prompt}]

    def step(self, turn: Any) -> None:
        return None


def prompt_ids(base: Path) -> list[int]:
    """Tokens of the prompt that both sides answer."""
    from trainer.student.base_model import load_tokenizer
    from trainer.student.chat_format import encode

    return encode(load_tokenizer(str(base)), Question().reset(), generation_prompt=True).ids


def ours(base: Path, updates: int, folder: Path) -> list[tuple[float, float]]:
    """(CPU, wall) seconds at the end of each update."""
    from peft import LoraConfig, get_peft_model

    from claude_capture.claude_trace_schema import Trace
    from trainer.config import Config
    from trainer.ppo.ppo_trainer import train_ppo
    from trainer.reward.behavioral_reward_model import BehavioralRewardModel
    from trainer.run_folder import RunFolder
    from trainer.student.base_model import load_model, load_tokenizer
    from trainer.student.episodes import Case

    config = Config()
    changes: dict[str, Any] = {"updates": updates, "episodes_per_update": EPISODES, "epochs": EPOCHS, "bf16": False}
    changes |= {"minibatch_size": MINIBATCH, "max_new_tokens": RESPONSE, "max_turns": 1, "value_warmup": 0}
    changes |= {"target_kl": 1e9, "learning_rate": 1e-5, "runaway_malformed": 1.0}
    config = config.model_copy(update={"ppo": config.ppo.model_copy(update=changes)})
    model, tokenizer = load_model(str(base), config.student).eval(), load_tokenizer(str(base))
    policy = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"))
    reference = Trace(trace_id="t", session_id="s", user_prompt="word", claude_response="A word, said 120 times.")
    cases = [Case(f"t{n}", (reference,), Question, split="train") for n in range(EPISODES)]
    marks: list[tuple[float, float]] = []

    def progress(update: int, _: int, metrics: dict[str, Any]) -> None:
        assert metrics["written_tokens"] == RESPONSE, metrics
        assert metrics["gradient_steps"] == EPOCHS * EPISODES // MINIBATCH, metrics
        marks.append((time.process_time(), time.perf_counter()))

    reward = BehavioralRewardModel(config.reward)
    train_ppo(policy, tokenizer, cases, [], reward, config, RunFolder(folder, "ours", config), progress=progress)
    return marks


def peer_python() -> Path | None:
    """The interpreter that has TRL's PPO; None, said on stderr, where it cannot be installed."""
    from importlib.metadata import version

    python = _PEER / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (_PEER / "complete").exists():
        venv.create(_PEER, with_pip=True, clear=True)
        wanted = [f"{name}=={version(name).split('+')[0]}" for name in _PEER_PACKAGES]
        for packages in (
            wanted[:1],
            [*wanted, f"trl=={TRL}", "pandas", "rich"],
        ):  # torch first, so that a CPU build fits
            command = [str(python), "-m", "pip", "install", "--quiet", *packages]
            if subprocess.run(command, check=False, capture_output=True).returncode != 0:
                print(f"TRL {TRL} cannot be installed here: figures without it", file=sys.stderr)
                return None
        (_PEER / "complete").touch()
    return python


def theirs(base: Path, prompt: list[int], updates: int, folder: Path) -> list[tuple[float, float]] | None:
    """The same of TRL, in a process of its own."""
    python = peer_python()
    if python is None:
        return None
    work = {"base": str(base), "prompt": prompt, "folder": str(folder / "trl"), "updates": updates, "rank": 16}
    work |= {"episodes": EPISODES, "minibatch": MINIBATCH, "epochs": EPOCHS, "response": RESPONSE}
    done = subprocess.run([python, "-c", _WORKER], input=json.dumps(work), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"TRL's PPOTrainer failed:\n{done.stderr[-2000:]}")
    marks: list[tuple[float, float]] = json.loads(done.stdout.rpartition("RESULT ")[2])
    return marks


def per_update(marks: list[tuple[float, float]]) -> dict[str, float]:
    """Median seconds between two marks: the first update, which warms up, is not counted."""
    gaps = [(cpu - before[0], wall - before[1]) for before, (cpu, wall) in itertools.pairwise(marks)]
    return {"cpu": statistics.median(gap[0] for gap in gaps), "wall": statistics.median(gap[1] for gap in gaps)}


def peer(updates: int, rounds: int) -> dict[str, Any]:
    """Seconds per update of both sides, in turns over the same base in one run."""
    from trainer.report.statistics import mean_interval

    seconds: dict[str, list[dict[str, float]]] = {"ours": [], "trl": []}
    with tempfile.TemporaryDirectory() as name:
        base = random_base(Path(name) / "base")
        prompt = prompt_ids(base)
        for number in range(rounds):
            folder = Path(name) / f"round-{number}"
            folder.mkdir()
            sides = ("ours", "trl") if number % 2 == 0 else ("trl", "ours")
            for side in sides:
                marks = ours(base, updates + 1, folder) if side == "ours" else theirs(base, prompt, updates + 1, folder)
                seconds[side] += [] if marks is None else [per_update(marks)]
    found: dict[str, Any] = {"updates": updates, "rounds": rounds, "prompt": len(prompt), "response": RESPONSE}
    for side, measured in seconds.items():
        if measured:
            found[side] = {clock: statistics.median(one[clock] for one in measured) for clock in ("cpu", "wall")}
    if seconds["trl"]:
        ratios = [trl["cpu"] / own["cpu"] for own, trl in zip(seconds["ours"], seconds["trl"], strict=True)]
        found["speedup"] = list(mean_interval(ratios, method="t", bounds=(0.0, math.inf))[:3])
        found["ratios"] = ratios
    return found


# Memory


def memory_side(side: str) -> dict[str, float]:
    """Log-probabilities of written tokens and their gradient; MB at the peak above what the loaded model takes."""
    import torch
    from peft import LoraConfig, get_peft_model

    from trainer.ppo.value_head import Actor

    lora = LoraConfig(r=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    policy = get_peft_model(random_llama(VOCABULARY), lora)
    torch.manual_seed(0)
    ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH))
    first = int(LENGTH * (1 - WRITTEN))
    rows = torch.arange(ROWS).repeat_interleave(LENGTH - first)
    columns = torch.arange(first, LENGTH).repeat(ROWS)
    before = _peak()
    if side == "ours":
        log_probs, _ = Actor(policy)(ids, rows, columns)
    else:
        logits = policy(input_ids=ids, use_cache=False).logits.float()
        everywhere = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        log_probs = everywhere[rows, columns - 1]
    log_probs.sum().backward()
    gradient = sum(float(p.grad.double().square().sum()) for p in policy.parameters() if p.grad is not None)
    return {"mb": _peak() - before, "sum": float(log_probs.detach().sum()), "gradient": gradient**0.5}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def memory() -> dict[str, Any]:
    """Both sides, each in a process of its own; their log-probabilities and gradients are the same."""
    found: dict[str, Any] = {"vocabulary": VOCABULARY, "tokens": ROWS * LENGTH, "written": int(ROWS * LENGTH * WRITTEN)}
    for side in ("ours", "naive"):
        command = [sys.executable, __file__, "--memory-side", side]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[side] = json.loads(done.stdout.splitlines()[-1])
    for name in ("sum", "gradient"):
        assert abs(found["ours"][name] / found["naive"][name] - 1) < 1e-3, found
    return found


def show(found: dict[str, Any]) -> None:
    """The tables and the verdicts."""
    if "share" in found:
        part = found["share"]
        print(
            f"an update of {part['episodes']} episodes, {part['tokens']:,.0f} tokens: {part['total']:.2f} CPU s "
            f"(mean of {part['updates']})"
        )
        for label, seconds in part["seconds"].items():
            print(f"  {label:28}{seconds:8.3f} s {seconds / part['total']:7.1%}")
        print(
            f"  outside {', '.join(MODEL_WORK)}: {part['overhead']:.1%} (wanted below {WANTED_SHARE:.0%}) "
            f"{verdict(part['overhead'] < WANTED_SHARE)}"
        )
    if "peer" in found:
        part = found["peer"]
        print(
            f"\n{EPISODES} episodes of {part['prompt']} + {part['response']} tokens, {EPOCHS} epochs of minibatches of "
            f"{MINIBATCH}, {part['updates']} updates a side in each of {part['rounds']} rounds"
        )
        for label, side in (("ours", "ours"), (f"TRL {TRL} PPOTrainer", "trl")):
            if side in part:
                cpu, wall = part[side]["cpu"], part[side]["wall"]
                print(f"  {label:28}{cpu:8.2f} CPU s per update, {60 / cpu:6.1f} updates a minute ({wall:.2f} s wall)")
        if "speedup" in part:
            mean, low, high = part["speedup"]
            print(
                f"  {mean:.2f} times as fast [{low:.2f}, {high:.2f}] (wanted {WANTED_SPEEDUP}) "
                f"{verdict(mean >= WANTED_SPEEDUP)}"
            )
    if "memory" in found:
        part = found["memory"]
        print(
            f"\npeak memory of log-probabilities and gradient, {part['tokens']:,} tokens, {part['written']:,} written, "
            f"vocabulary {part['vocabulary']:,}"
        )
        ours_mb, naive_mb = part["ours"]["mb"], part["naive"]["mb"]
        print(
            f"  ours {ours_mb:,.0f} MB, logits of all tokens {naive_mb:,.0f} MB: {naive_mb / ours_mb:.1f} times as much"
        )


def verdict(good: bool) -> str:
    """PASS or MISS."""
    return "PASS" if good else "MISS"


def main() -> None:
    from ppo_gain import FOLDER

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="share,peer,memory", help="which of the three, with commas")
    parser.add_argument("--updates", type=int, default=5, help="updates that are counted")
    parser.add_argument("--rounds", type=int, default=3, help="how often both sides of `peer` take turns")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="that of ppo_gain.py")
    parser.add_argument("--base", default="tiny", help="that of ppo_gain.py")
    parser.add_argument("--memory-side", choices=("ours", "naive"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.memory_side:
        print(json.dumps(memory_side(options.memory_side)))
        return
    parts = {
        "share": lambda: share(options.folder, options.base, options.updates),
        "peer": lambda: peer(options.updates, options.rounds),
        "memory": memory,
    }
    found = {name: parts[name]() for name in options.parts.split(",")}
    if options.json:
        print(json.dumps(found))
        return
    show(found)


if __name__ == "__main__":
    main()
