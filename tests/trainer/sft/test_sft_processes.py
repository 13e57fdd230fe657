"""SFT in several processes takes the steps that one process takes, whatever each of them has to learn from."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.trainer.student.tiny_bases import tiny_base

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    "PYTHONPATH": str(ROOT),
    "ACCELERATE_USE_CPU": "true",
}


def launcher(processes: int) -> list[str]:
    """What starts so many processes on this machine; nothing for one."""
    if processes == 1:
        return []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"--config_file configs/accelerate/ddp.yaml --num_processes {processes} --main_process_port {port}"
    return ["-m", "accelerate.commands.launch", *options.split()]


def trained(runs: Path, base: str, processes: int, **values: Any) -> tuple[list[float], dict[str, Any]]:
    """Losses, step by step, and the adapter."""
    name = f"of-{processes}"
    command = [sys.executable, *launcher(processes), "-m", "tests.trainer.sft.small_sft", str(runs), name, base]
    done = subprocess.run(
        [*command, json.dumps(values)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (runs / name / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    return losses, dict(load_file(runs / name / "adapter" / "adapter_model.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "values"),
    [
        pytest.param(8, {}, id="whole batches"),
        pytest.param(8, {"gradient_accumulation": 2}, id="accumulation"),
        pytest.param(7, {}, id="an epoch that ends in the middle of a batch"),
    ],
)
def test_two_processes_with_unequal_tokens_learn_what_one_learns(
    tmp_path: Path, count: int, values: dict[str, Any]
) -> None:
    base = tiny_base(tmp_path / "base")
    # in the dataset's order, the second half three times as long: one process often has most of the tokens
    common = {"count": count, "repeats": 3, "order": "curriculum", "max_steps": 5} | values
    one, alone = trained(tmp_path, base, 1, **common | {"batch_size": 4})
    two, together = trained(tmp_path, base, 2, **common | {"batch_size": 2})
    assert two == pytest.approx(one, rel=1e-4)
    assert one[-1] < 0.98 * one[0], "it learns"
    for name, weight in alone.items():
        assert (weight - together[name]).norm() <= 1e-3 * weight.norm(), name
