"""The whole road on a world so small that it learns nothing: every stage runs, and every number is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CONFIG = """
[[teachers]]
match = "scripted-teacher-*"
basis = "own work"

[dataset]
max_tokens = 1024
test_projects = ["heldout-*"]
validation_fraction = 0.1
test_fraction = 0.0

[student.tiny]
copy_steps = 10

[sft]
lora_r = 8
train_embeddings = true
learning_rate = 2e-3
batch_size = 2
max_steps = 8
renamed_copies = 1

[ppo]
updates = 2
episodes_per_update = 4
eval_every = 2
max_turns = 3
max_new_tokens = 24

[demo]
train_sessions = 24
heldout_sessions = 8
"""
STUDENTS = {"untrained", "sft", "ppo"}
FIGURES = {"reward", "alignment", "constraints", "exact_sequences", "n", "ci_low", "ci_high"}


def _demo(folder: Path, config: Path) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "trainer.cli", "demo", "--config", str(config), "--folder", str(folder), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.slow
def test_demo_runs_every_stage_and_a_second_run_trains_nothing_again(tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text(CONFIG)
    folder = tmp_path / "demo"
    summary, shown = _demo(folder, config)

    assert summary == json.loads((folder / "summary.json").read_text())
    assert summary["traces"] == 32
    assert summary["tool_calls"] > 64
    assert set(summary["heldout"]) == STUDENTS
    for row in summary["heldout"].values():
        assert row.keys() >= FIGURES
        assert row["n"] == 8
        assert -1 <= row["ci_low"] <= row["reward"] <= row["ci_high"] <= 1
    assert summary["gate"]["passed"] is False, "eight steps cannot have taught anything"
    assert summary["gate"]["reasons"]
    assert summary["gguf"]["f16_argmax_agreement"] >= 0.999
    assert 0 < summary["gguf"]["q4_bytes"] < summary["gguf"]["f16_bytes"]
    assert summary["headline"]["question"] == "What's the difference between transformer 1 and transformer 2?"
    assert "❯ What's the difference" in shown

    report = (folder / "report.html").read_text()
    assert "Quality gate" in report
    assert "<svg" in report
    models = folder / "models"
    assert (models / "registry.json").exists()
    adapters = sorted(folder.glob("*/adapter/adapter_model.safetensors"))
    before = [file.stat().st_mtime_ns for file in adapters]
    assert len(adapters) == 2

    again, _ = _demo(folder, config)
    assert [file.stat().st_mtime_ns for file in adapters] == before
    assert again["heldout"] == summary["heldout"], "the same students on the same prompts score the same"
