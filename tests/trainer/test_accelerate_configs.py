"""The files of configs/accelerate: accelerate reads them, and what they start learns what one process learns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "accelerate"
FILES = sorted(file.name for file in CONFIGS.glob("*.yaml"))


def test_there_is_one_for_each_engine() -> None:
    assert FILES == ["ddp.yaml", "fsdp2.yaml", "zero3.yaml"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("machines", "rank"), [(1, 0), (2, 1)])
def test_accelerate_takes_the_file_on_one_machine_and_on_two(name: str, machines: int, rank: int) -> None:
    file = str(CONFIGS / name)
    load_config_from_file(file)
    more = [
        "--num_machines",
        "2",
        "--machine_rank",
        "1",
        "--main_process_ip",
        "10.0.0.1",
        "--main_process_port",
        "29500",
    ]
    options = ["--config_file", file, "--num_processes", "4", *(more if machines > 1 else [])]
    arguments, _, _ = _validate_launch_command(
        launch_command_parser().parse_args([*options, "-m", "trainer.cli", "sft", "--config", "C"])
    )
    assert (arguments.num_machines, arguments.machine_rank, arguments.num_processes) == (machines, rank, 4)
    assert (arguments.use_fsdp, arguments.use_deepspeed) == (name == "fsdp2.yaml", name == "zero3.yaml")
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ""
        _, environment = prepare_deepspeed_cmd_env(arguments)
        assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
        return
    environment = prepare_multi_gpu_env(arguments)
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"  # the TOML decides
    if arguments.use_fsdp:
        assert environment["FSDP_VERSION"] == "2"
        assert environment["FSDP_TRANSFORMER_CLS_TO_WRAP"] == "LlamaDecoderLayer"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_processes_have_the_loss_curves_of_one() -> None:
    """The real commands, started from the shipped files: SFT and PPO, DDP and FSDP2."""
    done = subprocess.run(
        [sys.executable, "benchmarks/two_processes.py", "--steps", "6", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["engine"], row["stage"]) for row in rows] == [
        (engine, stage) for stage in ("sft", "ppo") for engine in ("ddp", "fsdp2")
    ]
    for row in rows:
        assert row["steps"] == 6
        assert row["largest_difference"] < 1e-4, row
