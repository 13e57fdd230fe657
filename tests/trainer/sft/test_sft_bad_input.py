"""No memory, no number, another base: said in one line, and nothing that was learned is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trainer.sft.small_sft import curve, settings, train
from trainer.errors import TrainerError
from trainer.run_folder import RunFolder
from trainer.sft.batch_plan import FILE as PLAN
from trainer.sft.batch_plan import BatchPlan, is_out_of_memory
from trainer.sft.sft_trainer import BAD_BATCH
from trainer.student.base_checksum import base_checksum, claim_base

LONG = {"count": 16, "repeats": 14, "batch_size": 8, "max_steps": 3, "max_tokens": 4096, "order": "curriculum"}


def test_batches_shrink_where_memory_runs_out(base: str, tmp_path: Path) -> None:
    """A real allocation fails, because the process may not grow; the run ends with the curve of an unlimited one."""
    command = [sys.executable, "-m", "tests.trainer.sft.small_sft", str(tmp_path)]
    limited = subprocess.run(
        [*command, "limited", base, json.dumps(LONG), "--room-mb", "40"], capture_output=True, text=True, check=False
    )
    assert limited.returncode == 0, limited.stderr
    assert limited.stderr.count("out of memory at step 2: batches are run in 2 parts") == 1
    plan = json.loads((tmp_path / "limited" / PLAN).read_text())
    assert plan["parts"] >= 2
    assert limited.stderr.count("out of memory") == plan["parts"].bit_length() - 1, "said once for each halving"
    train(tmp_path, "free", base, **LONG)
    free, shrunk = (curve(RunFolder(tmp_path, name, settings())) for name in ("free", "limited"))
    assert [row[0] for row in shrunk] == [1, 2, 3]
    assert [row[1] for row in shrunk] == pytest.approx([row[1] for row in free], rel=1e-4)


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as cpu:
        torch.empty(1 << 50)
    assert is_out_of_memory(cpu.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_a_single_sample_that_does_not_fit_ends_the_run(tmp_path: Path) -> None:
    said: list[str] = []
    plan = BatchPlan.read(tmp_path).halved(tmp_path, 3, 4, said.append).halved(tmp_path, 3, 4, said.append)
    assert BatchPlan.read(tmp_path) == plan == BatchPlan(parts=4, step=3)
    with pytest.raises(TrainerError, match=r"step 3 with one sample at a time; lower dataset\.max_tokens"):
        plan.halved(tmp_path, 3, 4, said.append)
    assert len(said) == 2
    (tmp_path / PLAN).write_text("{")
    with pytest.raises(TrainerError, match="not readable; delete it"):
        BatchPlan.read(tmp_path)


def test_nan_ends_at_the_last_good_checkpoint_and_keeps_the_batch(base: str, tmp_path: Path) -> None:
    """A learning rate of 1e30 makes the weights infinite, then the loss not a number."""
    with pytest.raises(TrainerError, match=r"not a number; the last good state is .*checkpoint-\d+; its 2 samples"):
        train(tmp_path, "nan", base, learning_rate=1e30, save_steps=1, max_grad_norm=1e30)
    run = tmp_path / "nan"
    study = json.loads((run / BAD_BATCH).read_text())
    checkpoints = sorted(int(path.name.rpartition("-")[2]) for path in (run / "checkpoints").glob("checkpoint-*"))
    assert checkpoints[-1] == study["step"] - 1, "nothing was saved after the gradient had gone bad"
    assert len(study["samples"]) == len(study["texts"]) == 2
    assert all(one["prompt"] in text for one, text in zip(study["samples"], study["texts"], strict=True))
    assert (run / BAD_BATCH).stat().st_mode & 0o777 == 0o600
    assert not (run / "result.json").exists()


def test_a_run_does_not_go_on_with_another_base(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own = tmp_path / "base"
    shutil.copytree(base, own)
    run = tmp_path / "run"
    run.mkdir()
    assert claim_base(run, str(own)) == claim_base(run, base) == base_checksum(base), "a copy is the same base"
    weights = own / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, weights, metadata={"format": "pt"})
    with pytest.raises(TrainerError, match=r"began on a base with checksum \w{12} .*delete the folder to start over"):
        claim_base(run, str(own))
    noted = [json.loads(file.read_text()) for file in (tmp_path / "cache").rglob("*.json")]
    assert {one["path"] for one in noted} == {str(weights), str(Path(base) / "model.safetensors")}
    weights.unlink()
    with pytest.raises(TrainerError, match=r"no \*\.safetensors there"):
        base_checksum(str(own))
