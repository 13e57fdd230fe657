"""Runs in processes of their own: two that share the work, one that is terminated, one that is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainer.ppo.checkpoints import Checkpoint, latest_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[3]
CLOCKS = ("time", "seconds", "tokens_per_second", "validation_seconds")
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    "PYTHONPATH": str(ROOT),
    "ACCELERATE_USE_CPU": "true",
}


def start(folder: Path, launcher: list[str] | None = None, **ppo: Any) -> subprocess.Popen[str]:
    command = [sys.executable, *(launcher or ["-m"]), "tests.trainer.ppo.micro", str(folder), json.dumps(ppo)]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in CLOCKS} for line in lines]


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def close(one: Any, other: Any) -> None:
    """Equal but for the rounding of floats."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            close(one[key], other[key])
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=2e-3, abs=2e-5)
    else:
        assert one == other


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "program"), [("ddp", "-m"), ("fsdp2", "benchmarks/fsdp_on_cpu.py")])
def test_two_processes_take_the_steps_that_one_takes(tmp_path: Path, engine: str, program: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = f"-m accelerate.commands.launch --config_file configs/accelerate/{engine}.yaml --num_processes 2"
    launcher += f" --main_process_port {port} {program}"
    # 7 episodes in minibatches of 3: neither can be halved, and the last minibatch is of one episode
    ppo: dict[str, Any] = {"episodes_per_update": 7, "minibatch_size": 3, "updates": 3, "kl_control": "adaptive"}
    alone, together = tmp_path / "alone", tmp_path / "together"
    printed = finished(start(alone, **ppo)), finished(start(together, launcher.split(), **ppo))
    assert printed[0].split() == printed[1].split() == ["1", "2", "3"]
    assert (together / "process-1").exists()  # accelerate can start one process alone and not say so
    for one, other in zip(rows(alone), rows(together), strict=True):
        close(one, other)
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (alone, together))
    for name, weight in first.items():
        assert torch.allclose(weight, second[name], atol=1e-3), name


@pytest.mark.slow
def test_terminated_run_saves_and_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ppo: dict[str, Any] = {"updates": 6, "checkpoint_every": 50}
    running = start(parts, **ppo)
    assert running.stdout is not None
    assert running.stdout.readline().strip() == "1"
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 1
    assert "TrainerError: stopped by SIGTERM after update" in err.strip().splitlines()[-1]
    saved = latest_checkpoint(parts / "checkpoints")
    assert saved is not None
    assert 1 <= saved.update < 6
    finished(start(parts, **ppo))
    finished(start(whole, **ppo))
    assert rows(parts) == rows(whole)


def write_forever(folder: Path, told: int) -> None:
    for update in range(10_000):
        weights = {"w": torch.full((500_000,), float(update))}
        save_checkpoint(folder, Checkpoint(update, weights, {}, weights, {}, 0, None, {}, None, {}, "x", []))
        os.write(told, update.to_bytes(2, "big"))


def test_kill_during_the_write_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    torn = 0
    for attempt in range(24):
        folder = tmp_path / str(attempt)
        listening, told = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                write_forever(folder, told)
            finally:
                os._exit(1)
        os.close(told)
        with os.fdopen(listening, "rb") as stream:
            said = stream.read(4)
            time.sleep(0.0007 * attempt)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            said += stream.read()
        last = int.from_bytes(said[-2:], "big")
        torn += bool(list(folder.glob(".*.partial")))
        checkpoint = latest_checkpoint(folder)
        assert checkpoint is not None
        assert checkpoint.update in (last, last + 1)
        assert checkpoint.adapter["w"].eq(float(checkpoint.update)).all()
        save_checkpoint(folder, checkpoint)
        assert not list(folder.glob(".*.partial"))
    assert torn  # at least one was hit while it wrote
