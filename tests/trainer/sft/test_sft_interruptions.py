"""An SFT that was stopped or killed, anywhere, ends as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.trainer.sft.small_sft import curve, settings, train
from trainer.run_folder import RunFolder
from trainer.sft.sft_trainer import whole_checkpoint

VALUES: dict[str, Any] = {
    "packing": True,
    "max_tokens": 160,
    "batch_size": 1,
    "gradient_accumulation": 2,
    "lora_dropout": 0.2,
    "max_steps": 14,
    "logging_steps": 3,
}
"""Dropout draws random numbers, a line of metrics spans three steps, and the run takes several epochs."""


def start(runs: Path, name: str, base: str, *options: str, **values: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.trainer.sft.small_sft", str(runs), name, base, json.dumps(VALUES | values)]
    return subprocess.Popen(
        [*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def same(runs: Path, one: str, other: str) -> None:
    first, second = (RunFolder(runs, name, settings()) for name in (one, other))
    assert curve(first) == curve(second)
    weights = [load_file(run.path / "adapter" / "adapter_model.safetensors") for run in (first, second)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_sigterm_saves_and_the_rest_is_the_same(base: str, tmp_path: Path) -> None:
    train(tmp_path, "whole", base, **VALUES)
    process = start(tmp_path, "stopped", base, "--hold-at", "9")
    assert process.stdout is not None
    next(line for line in iter(process.stdout.readline, "") if line == "step 9\n")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate("go on\n")
    assert process.returncode == 1
    assert "stopped by SIGTERM at step 10; run the same command to go on" in errors
    assert (tmp_path / "stopped" / "checkpoints" / "checkpoint-10").is_dir()
    train(tmp_path, "stopped", base, **VALUES)
    same(tmp_path, "whole", "stopped")


@pytest.mark.slow
def test_kill_while_a_checkpoint_is_written_leaves_the_one_before(base: str, tmp_path: Path) -> None:
    """Killed while the newest checkpoint has no trainer_state.json yet; tried again where the kill came too late."""
    train(tmp_path, "whole", base, **VALUES, save_steps=1)
    for attempt in range(10):
        name = f"killed-{attempt}"
        folder = tmp_path / name / "checkpoints"
        process = start(tmp_path, name, base, save_steps=1)
        while process.poll() is None and unfinished(folder) < 4:
            time.sleep(0.0002)
        process.kill()
        process.communicate()
        if cut_off := unfinished(folder):
            break
    else:
        pytest.fail("no kill hit a checkpoint")
    assert whole_checkpoint(folder) == str(folder / f"checkpoint-{cut_off - 1}")
    train(tmp_path, name, base, **VALUES, save_steps=1)
    same(tmp_path, "whole", name)


def unfinished(folder: Path) -> int:
    """The step whose checkpoint is being written; 0 where none is."""
    for checkpoint in folder.glob("checkpoint-*"):
        if not (checkpoint / "trainer_state.json").exists():
            return int(checkpoint.name.rpartition("-")[2])
    return 0
