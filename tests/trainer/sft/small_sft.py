"""An SFT run of a second, in this process or as a program that can be killed.

    python -m tests.trainer.sft.small_sft RUNS NAME BASE '{"max_steps": 8}' [--room-mb N]

prints `step N` with each line of metrics. --room-mb limits the address space to what is used after step 1 and N MB
more; --hold-at waits after a step until it may read a line.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
from pathlib import Path
from typing import Any

from claude_capture.claude_trace_schema import Teacher
from trainer.config import Config, DatasetConfig, SftConfig, StudentConfig
from trainer.errors import TrainerError
from trainer.records import BCSample
from trainer.run_folder import RunFolder
from trainer.sft.sft_trainer import SftResult, train_sft


def sample(number: int, repeats: int = 1) -> BCSample:
    """One question and its answer; `repeats` makes it longer."""
    return BCSample(
        trace_id=f"t{number}",
        prompt=f"Where is constant {number}?",
        response="r",
        workflow_type="search",
        exploration_depth="minimal",
        messages=[
            {"role": "system", "content": "You are an agent."},
            {"role": "user", "content": f"Where is constant {number}?" * repeats},
            {"role": "assistant", "content": f"I search for {number}. " * repeats},
        ],
        weights=[1.0 + number % 2],
        split="train",
        family=f"f{number}",
        teacher=Teacher(),
        basis="own work",
    )


def samples(count: int = 12, repeats: int = 1) -> list[BCSample]:
    """Samples of different lengths; with `repeats` those of the second half are so many times longer."""
    return [sample(number, (1 + number % 3) * (repeats if 2 * number >= count else 1)) for number in range(count)]


def settings(max_tokens: int = 4096, order: str = "time", **sft: Any) -> Config:
    """A config for steps of a few milliseconds."""
    values = {
        "lora_r": 4,
        "learning_rate": 5e-3,
        "batch_size": 2,
        "max_steps": 8,
        "save_steps": 100,
        "logging_steps": 1,
        "bf16": False,
    }
    return Config(
        dataset=DatasetConfig(max_tokens=max_tokens, order=order),  # type: ignore[arg-type]
        student=StudentConfig(),
        sft=SftConfig(**values | sft),  # type: ignore[arg-type]
    )


def curve(run: RunFolder) -> list[tuple[int, float, float, float]]:
    """What metrics.jsonl says of the learning, without what depends on the clock."""
    return [(row["step"], row["loss"], row["learning_rate"], row["epoch"]) for row in run.metrics()]


def train(runs: Path, name: str, base: str, count: int = 12, repeats: int = 1, **values: Any) -> SftResult:
    """Trains in this process."""
    config = settings(**values)
    return train_sft(samples(count, repeats), base, config, RunFolder(runs, name, config))


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path)
    parser.add_argument("name")
    parser.add_argument("base")
    parser.add_argument("values", type=json.loads)
    parser.add_argument("--room-mb", type=int)
    parser.add_argument("--hold-at", type=int)
    asked = parser.parse_args()
    values = dict(asked.values)
    count, repeats = values.pop("count", 12), values.pop("repeats", 1)
    config = settings(**values)

    def progress(step: int, steps: int, loss: float) -> None:
        print(f"step {step}", flush=True)
        if step == asked.hold_at:
            sys.stdin.readline()
        if step == 1 and asked.room_mb:
            gc.collect()
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (asked.room_mb << 20),) * 2)

    try:
        train_sft(samples(count, repeats), asked.base, config, RunFolder(asked.runs, asked.name, config), progress)
    except TrainerError as error:
        sys.exit(f"stopped: {error}")
    finally:
        if asked.room_mb:
            resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2)


if __name__ == "__main__":
    main()
