"""What a training run will need and whether it is here, before it starts: GPU, memory, disk, base, hours, energy."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.config import Config
from trainer.preflight_memory import (
    CONTEXT,
    LLAMA_8B,
    Shape,
    peak,
    ppo_memory,
    sft_flops,
    sft_memory,
    trained_parameters,
)

State = Literal["ok", "warning", "missing", "unknown"]
"""A warning does not keep training from starting: it will be slow, or a later stage may not fit."""
GB = 1e9
PEAK_TFLOPS = {
    "GB200": 2500,
    "B200": 2250,
    "GH200": 989,
    "H200": 989,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L40": 181,
    "A40": 150,
    "A10": 125,
    "A10G": 70,
    "L4": 121,
    "RTX 5090": 210,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
"""Dense 16-bit tensor throughput from the makers' data sheets, by a word of the device's name."""
GPU_USE, CPU_USE = 0.35, 0.3
"""Share of the peak that training reaches: an assumption, to be replaced by what train_throughput.py measures."""
FROM_DATASET = ("data", "SFT time")
"""Names of the checks that are unknown until the dataset was built."""
RESERVE = 1.1
"""What the allocator cannot use because of its own gaps."""


def peak_tflops(device: str) -> float | None:
    """What the data sheet says of a GPU by its name, as the driver gives it; None for one that is not listed."""
    return next((rate for name, rate in PEAK_TFLOPS.items() if re.search(rf"\b{name}\b", device)), None)


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, what was found, and what to do where it is not enough."""

    name: str
    state: State
    found: str
    next: str = ""


@dataclass
class Preflight:
    """All lines, and the figures behind them."""

    checks: list[Check] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def missing(self) -> list[Check]:
        """What must be mended before training can run."""
        return [check for check in self.checks if check.state == "missing"]

    def add(self, name: str, state: State, found: str, next: str = "") -> None:
        """Adds a line."""
        self.checks.append(Check(name, state, found, next))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for --json."""
        return {"ready": not self.missing, "checks": [asdict(check) for check in self.checks], **self.figures}


def preflight(config: Config, data: Path) -> Preflight:
    """Looks at everything that a run of this config on this data root needs; trains and downloads nothing."""
    from trainer.preflight_hub import base_access

    result = Preflight()
    shape, fetch = LLAMA_8B, False
    if config.student.base_model == "tiny":
        tiny = config.student.tiny
        width = tiny.hidden_size // tiny.heads
        shape = Shape(
            tiny.hidden_size,
            tiny.intermediate_size,
            tiny.layers,
            tiny.kv_heads * width,
            tiny.heads * width,
            tiny.vocab_size,
        )
        result.add("base", "ok", "tiny, made on the spot")
    else:
        access = base_access(config.student.base_model)
        fetch = access.fetch
        result.add("base", "ok" if access.state == "ready" else "missing", access.found, access.next)
        try:
            shape = Shape.read(access.shape or {})
        except KeyError:  # not here, or of another architecture
            result.add("size", "unknown", "no config.json of a Llama could be read; figures are those of Llama 3.1 8B")
    result.figures["parameters"] = shape.parameters
    device = _device(result, config)
    _memory(result, shape, config, device)
    _disk(result, shape, config, fetch)
    work = _data(result, config, data)
    if work is not None:
        _time(result, shape, config, device, *work)
    return result


@dataclass(frozen=True)
class _Device:
    name: str
    free: int
    total: int
    flops: float | None
    """Per second, as training reaches them."""
    watts: float | None
    gpu: bool


def _device(result: Preflight, config: Config) -> _Device:
    import psutil  # type: ignore[import-untyped]
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        free, total = torch.cuda.mem_get_info()
        tflops = peak_tflops(name)
        if (count := torch.cuda.device_count()) > 1:
            advice = "one process trains on one: set CUDA_VISIBLE_DEVICES=0, or read docs/scale.md for all of them"
            result.add("GPU", "warning", f"{count} × {name}", advice)
        else:
            result.add("GPU", "ok", name)
        return _Device(name, free, total, tflops and tflops * 1e12 * GPU_USE, _board_power(), True)
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if config.student.base_model == "tiny":
        result.add("GPU", "ok", f"none; the tiny base needs none ({cores} CPU cores)")
    else:
        result.add(
            "GPU",
            "warning",
            f"none: SFT, PPO and held-out tests would run on {cores} CPU cores, some hundred times slower",
            "use a machine with a GPU, or try the whole road with configs/tiny.toml: minutes on a CPU",
        )
    return _Device("CPU", memory.available, memory.total, _cpu_flops() * CPU_USE, None, False)


def _board_power() -> float | None:
    """Watts that the GPU may draw, as its driver says; None where it does not."""
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=power.limit", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        return float(answer.stdout.split("\n")[0])
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _cpu_flops() -> float:
    """Of the fastest product of matrices in a fifth of a second: what other work takes is not counted."""
    import torch

    matrix, fastest = torch.ones(384, 384), math.inf
    end = time.perf_counter() + 0.2
    while (began := time.perf_counter()) < end:
        torch.mm(matrix, matrix)
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * 384**3 / fastest


def _memory(result: Preflight, shape: Shape, config: Config, device: _Device) -> None:
    """SFT's and PPO's peaks against what is free."""
    advice = {
        "SFT memory": "lower dataset.max_tokens or sft.batch_size, set sft.gradient_checkpointing or load_in_4bit",
        "PPO memory": "set ppo.gradient_checkpointing, lower ppo.episodes_at_once or ppo.window",
    }
    stages: list[tuple[str, State, dict[str, int]]] = [
        ("SFT memory", "missing", sft_memory(shape, config)),
        ("PPO memory", "warning", ppo_memory(shape, config)),
    ]
    for name, short, parts in stages:
        needed = int(peak(parts) * RESERVE) + (CONTEXT if device.gpu else 0)
        largest = sorted(parts.items(), key=lambda part: -part[1])[:3]
        words = ", ".join(f"{part} {size / GB:.1f}" for part, size in largest)
        found = f"{needed / GB:.1f} GB needed ({words}), {device.free / GB:.1f} of {device.total / GB:.1f} GB free"
        fits = needed <= device.free
        result.add(name, "ok" if fits else short, found, "" if fits else advice[name])
        result.figures[name.lower().replace(" ", "_")] = {"needed": needed, "free": device.free, "parts": parts}


def _disk(result: Preflight, shape: Shape, config: Config, fetch: bool) -> None:
    """Space on each file system that will be written to."""
    from huggingface_hub.constants import HF_HUB_CACHE

    students = 1 + config.ppo.iterations
    wanted = {
        Path(config.runs): students * 3 * trained_parameters(shape, config) * 14,
        Path(config.models): students * int(shape.parameters * (2 + 0.62)),
    }
    if fetch:
        wanted[Path(HF_HUB_CACHE)] = shape.parameters * 2
    needed: dict[int, int] = defaultdict(int)
    places: dict[int, Path] = {}
    for path, size in wanted.items():
        there = next(parent for parent in [path.absolute(), *path.absolute().parents] if parent.exists())
        needed[there.stat().st_dev] += size
        places.setdefault(there.stat().st_dev, there)
    for disk, size in needed.items():
        free = shutil.disk_usage(places[disk]).free
        state: State = "ok" if size <= free else "missing"
        found = f"{size / GB:.1f} GB for runs, models{' and the base' if fetch else ''}, {free / GB:.1f} GB free"
        result.add("disk", state, found, f"make room on the disk of {places[disk]}" if state == "missing" else "")


def sft_steps(rows: int, config: Config) -> int:
    """Updates of an SFT over `rows` rows, as transformers counts them."""
    sft = config.sft
    if sft.max_steps > 0:
        return sft.max_steps
    batches = math.ceil(rows / sft.batch_size)
    return math.ceil(sft.epochs * math.ceil(batches / sft.gradient_accumulation))


def _data(result: Preflight, config: Config, data: Path) -> tuple[int, float] | None:
    """Adds tokens and steps; returns (tokens in all, mean length of a sample)."""
    from trainer.dataset import read_dataset
    from trainer.dataset.windows import estimate_tokens
    from trainer.sft.batches import pack

    file = data / "datasets" / "bc_dataset.jsonl"
    if not file.exists():
        result.add("data", "unknown", f"no {file} yet", "claude-trainer dataset build, then tokens and hours are known")
        return None
    samples = [sample for sample in read_dataset(file) if sample.split == "train"]
    if not samples:
        result.add("data", "missing", f"{file} has no training samples", "read what `dataset build` left out")
        return None
    lengths = [min(estimate_tokens(s.messages, s.tools), config.dataset.max_tokens) for s in samples]
    lengths *= 1 + config.sft.renamed_copies
    rows = len(pack(lengths, config.dataset.max_tokens)) if config.sft.packing else len(lengths)
    steps = sft_steps(rows, config)
    share = steps / sft_steps(rows, config.model_copy(update={"sft": config.sft.model_copy(update={"max_steps": -1})}))
    tokens = int(sum(lengths) * config.sft.epochs * share)
    result.add("data", "ok", f"{len(samples)} samples, about {tokens:,} tokens in {steps:,} steps of SFT")
    result.figures |= {"samples": len(samples), "tokens": tokens, "steps": steps}
    return tokens, sum(lengths) / len(lengths)


def _time(result: Preflight, shape: Shape, config: Config, device: _Device, tokens: int, length: float) -> None:
    """Hours and energy of SFT; PPO's depend on how long the student's episodes become."""
    if device.flops is None:
        result.add("SFT time", "unknown", f"the speed of {device.name} is not known here")
        return
    hours = sft_flops(shape, config, tokens, length) / device.flops / 3600
    found = f"about {hours:.1f} hours" if hours >= 1 else f"about {math.ceil(hours * 60)} minutes"
    energy = None if device.watts is None else hours * device.watts / 1000
    if energy is not None:
        found += f", at most {energy:.1f} kWh at {device.watts:.0f} W"
    found += (
        f"; assumes {GPU_USE if device.gpu else CPU_USE:.0%} of the device's peak. PPO shows its own after an update"
    )
    result.add("SFT time", "warning" if hours > 72 else "ok", found)
    result.figures |= {"sft_hours": hours, "sft_kwh": energy}
