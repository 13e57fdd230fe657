"""An SFT that was stopped or killed, anywhere, ends as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests.trainer.sft.small_sft import curve, settings, train
from trainer.run_folder import RunFolder

VALUES: dict[str, Any] = {
    "packing": True,
    "max_tokens": 160,
    "batch_size": 1,
    "gradient_accumulation": 2,
    "lora_dropout": 0.2,
    "max_steps": 20,
    "logging_steps": 3,
}
"""Dropout draws random numbers, a line of metrics spans three steps, and the run takes several epochs."""


def start(runs: Path, name: str, base: str, **values: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.trainer.sft.small_sft", str(runs), name, base, json.dumps(VALUES | values)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def same(runs: Path, one: str, other: str) -> None:
    first, second = (RunFolder(runs, name, settings()) for name in (one, other))
    assert curve(first) == curve(second)
    weights = [load_file(run.path / "adapter" / "adapter_model.safetensors") for run in (first, second)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_sigterm_saves_and_the_rest_is_the_same(base: str, tmp_path: Path) -> None:
    train(tmp_path, "whole", base, **VALUES)
    process = start(tmp_path, "stopped", base)
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    next(line for line in lines if line == "step 6\n")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped by SIGTERM at step" in errors
    (saved,) = (tmp_path / "stopped" / "checkpoints").glob("checkpoint-*")
    assert int(saved.name.rpartition("-")[2]) < 14, "it was stopped before its end"
    train(tmp_path, "stopped", base, **VALUES)
    same(tmp_path, "whole", "stopped")


def test_kill_while_a_checkpoint_is_written_leaves_the_one_before(base: str, tmp_path: Path) -> None:
    """Killed as soon as a new checkpoint's folder appears, so that its files are not all there."""
    train(tmp_path, "whole", base, **VALUES, save_steps=1)
    process = start(tmp_path, "killed", base, save_steps=1)
    folder, deadline = tmp_path / "killed" / "checkpoints" / "checkpoint-6", time.monotonic() + 100
    while not folder.exists() and time.monotonic() < deadline:
        time.sleep(0.0005)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "trainer_state.json").exists(), "killed in the middle of it"
    assert (folder.with_name("checkpoint-5") / "trainer_state.json").exists()
    train(tmp_path, "killed", base, **VALUES, save_steps=1)
    same(tmp_path, "whole", "killed")
