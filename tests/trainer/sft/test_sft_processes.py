"""SFT in several processes takes the steps that one process takes, whatever each of them has to learn from."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from tests.trainer.student.tiny_bases import tiny_base
from trainer.sft.batch_plan import FILE as PLAN
from trainer.sft.sft_trainer import BAD_BATCH, whole_checkpoint

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    "PYTHONPATH": str(ROOT),
    "ACCELERATE_USE_CPU": "true",
}

PACKED = {"packing": True, "gradient_checkpointing": True}


def launcher(processes: int) -> list[str]:
    """What starts so many processes on this machine; nothing for one."""
    if processes == 1:
        return []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"--config_file configs/accelerate/ddp.yaml --num_processes {processes} --main_process_port {port}"
    return ["-m", "accelerate.commands.launch", *options.split()]


def command(runs: Path, base: str, processes: int, **values: Any) -> list[str]:
    program = ["-m", "tests.trainer.sft.small_sft", str(runs), f"of-{processes}", base, json.dumps(values)]
    return [sys.executable, *launcher(processes), *program]


def trained(runs: Path, base: str, processes: int, **values: Any) -> tuple[list[float], dict[str, Any]]:
    """Losses, step by step, and the adapter."""
    done = subprocess.run(
        command(runs, base, processes, **values),
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = runs / f"of-{processes}"
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return losses, dict(load_file(folder / "adapter" / "adapter_model.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "values"),
    [
        pytest.param(8, {}, id="whole batches"),
        pytest.param(8, {"gradient_accumulation": 2}, id="accumulation"),
        pytest.param(7, {}, id="an epoch that ends in the middle of a batch"),
        pytest.param(8, PACKED | {"max_tokens": 160}, id="packed rows, as in the 8B config"),
        pytest.param(8, PACKED | {"max_tokens": 320}, id="packed rows that are all in one process"),
        pytest.param(
            7, {"parts": 2}, id="two parts, of a batch that has two samples in one process and one in the other"
        ),
    ],
)
def test_two_processes_with_unequal_tokens_learn_what_one_learns(
    tmp_path: Path, count: int, values: dict[str, Any]
) -> None:
    base = tiny_base(tmp_path / "base")
    if parts := values.get("parts"):  # as an earlier leg has left it that ran out of memory
        (tmp_path / "of-2").mkdir()
        (tmp_path / "of-2" / PLAN).write_text(json.dumps({"parts": parts, "step": 1}))
    # in the dataset's order, the second half three times as long: one process often has most of the tokens
    common = {"count": count, "repeats": 3, "order": "curriculum", "max_steps": 5} | values
    common.pop("parts", None)
    one, alone = trained(tmp_path, base, 1, **common | {"batch_size": 4})
    two, together = trained(tmp_path, base, 2, **common | {"batch_size": 2})
    assert two == pytest.approx(one, rel=1e-4)
    assert one[-1] < 0.98 * one[0], "it learns"
    for name, weight in alone.items():
        assert (weight - together[name]).norm() <= 1e-3 * weight.norm(), name


def workers(process: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    """The processes that a launcher has started, by rank."""
    started = psutil.Process(process.pid).children(recursive=True)
    return {int(one.environ()["RANK"]): one for one in started if "RANK" in one.environ()}


@pytest.mark.slow
def test_sigterm_to_one_process_ends_all_after_the_same_step(tmp_path: Path) -> None:
    base, values = tiny_base(tmp_path / "base"), {"batch_size": 2, "max_steps": 30, "lora_dropout": 0.1}
    runs, metrics = tmp_path / "stopped", tmp_path / "stopped" / "of-2" / "metrics.jsonl"
    errors = tmp_path / "errors"
    with errors.open("w") as stream:
        launched = subprocess.Popen(
            command(runs, base, 2, **values), cwd=ROOT, env=ENVIRONMENT, stdout=stream, stderr=stream, text=True
        )
        while launched.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 2):
            time.sleep(0.01)
        workers(launched)[1].send_signal(signal.SIGTERM)
        assert launched.wait(120) != 0
    said = errors.read_text()
    steps = set(re.findall(r"stopped by SIGTERM at step (\d+)", said))
    assert len(steps) == 1, said
    assert whole_checkpoint(runs / "of-2" / "checkpoints") == str(
        runs / "of-2" / "checkpoints" / f"checkpoint-{steps.pop()}"
    )
    losses, adapter = trained(runs, base, 2, **values)
    whole, expected = trained(tmp_path / "whole", base, 2, **values)
    assert losses == whole
    assert all(adapter[name].equal(weight) for name, weight in expected.items())


@pytest.mark.slow
def test_a_gradient_that_is_not_a_number_leaves_the_samples_of_all_processes(tmp_path: Path) -> None:
    values = {"learning_rate": 1e30, "max_grad_norm": 1e30, "batch_size": 2, "save_steps": 1}
    done = subprocess.run(
        command(tmp_path, tiny_base(tmp_path / "base"), 2, **values),
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert "is not a number; the last good state is" in done.stderr
    assert "its 4 samples are in" in done.stderr
    study = json.loads((tmp_path / "of-2" / BAD_BATCH).read_text())
    assert len({one["trace_id"] for one in study["samples"]}) == len(study["texts"]) == len(study["token_ids"]) == 4
    assert all(one["prompt"] in text for one, text in zip(study["samples"], study["texts"], strict=True))
