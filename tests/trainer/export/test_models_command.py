"""`claude-trainer models …` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.export.export_records import Check, DoctorReport, ExportedFile, ExportReport, Provenance, sha256_of
from trainer.export.registry import Registry
from trainer.records import GateMeasure, GateReport


def register(folder: Path, name: str, reward: float, parent: str | None = None) -> None:
    files = []
    for suffix, kind in (("", "f16"), ("-q4_k_m", "q4_k_m")):
        path = folder / f"{name}{suffix}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{name}{kind}".encode())
        size, digest = path.stat().st_size, sha256_of(path)
        files.append(ExportedFile(path=str(path), type=kind, bytes=size, sha256=digest, seconds=0.1))
    export = ExportReport(name=name, base="b", adapter=None, merged=0, tensors=3, plain=files[0], quantized=files[1])
    verdict = "PASS" if reward > 0.8 else "FAIL"
    measure = GateMeasure(name="reward", threshold=0.8, mean=reward, low=reward, high=reward, n=60, verdict=verdict)
    gate = GateReport(passed=verdict == "PASS", verdict=verdict, reasons=["reward"], n=60, measures=[measure])
    doctor = DoctorReport(path="m", healthy=True, checks=[Check(name="bos", status="passed", detail="1 BOS")])
    Registry(folder).register(export, doctor, Provenance(parent=parent), gate)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    register(tmp_path, "llama-claude-bc-v1", 0.85)
    register(tmp_path, "llama-claude-ppo-v1", 0.91, "llama-claude-bc-v1")
    register(tmp_path, "llama-claude-ppo-v2", 0.10, "llama-claude-ppo-v1")
    return tmp_path


def models(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "from trainer.cli import main; main()",
        "models",
        *arguments,
        "--models",
        str(folder),
    ]
    return subprocess.run(command, capture_output=True, text=True)


def test_list_marks_the_current_model(folder: Path) -> None:
    assert models(folder, "promote", "llama-claude-ppo-v1").stdout == "llama-claude-ppo-v1 is current\n"
    lines = models(folder, "list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["llama-claude-bc-v1", "*", "llama-claude-ppo-v2"]
    assert "FAIL" in lines[3]
    assert json.loads(models(folder, "list", "--json").stdout)["current"] == "llama-claude-ppo-v1"
    assert "no models yet" in models(folder / "none", "list").stdout


def test_forced_promotion_is_shown_with_its_reason(folder: Path) -> None:
    refused = models(folder, "promote", "llama-claude-ppo-v2")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "llama-claude-ppo-v2 is not promoted: it has the gate verdict FAIL" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert models(folder, "promote", "llama-claude-ppo-v2", "--force", "a trial run").returncode == 0
    shown = models(folder, "show", "llama-claude-ppo-v2").stdout
    assert shown.startswith("# llama-claude-ppo-v2\n")
    assert "promote (forced: a trial run)" in shown


def test_compare_stands_side_by_side(folder: Path) -> None:
    models(folder, "promote", "llama-claude-bc-v1")
    table = models(folder, "compare", "llama-claude-ppo-v2").stdout
    assert "llama-claude-bc-v1" in table.splitlines()[0]
    assert next(line.split() for line in table.splitlines() if line.startswith("  reward")) == [
        *("reward", "0.850", "[0.850,", "0.850]", "0.100", "[0.100,", "0.100]"),
    ]
    rows = json.loads(models(folder, "compare", "llama-claude-ppo-v1", "llama-claude-ppo-v2", "--json").stdout)
    verdict = next(row for row in rows if row["name"] == "gate")
    assert (verdict["llama-claude-ppo-v1"], verdict["llama-claude-ppo-v2"]) == ("PASS", "FAIL")


def test_rollback_and_gc(folder: Path) -> None:
    for name in ("llama-claude-bc-v1", "llama-claude-ppo-v1"):
        models(folder, "promote", name)
    assert models(folder, "rollback").stdout == "llama-claude-bc-v1 is current again\n"
    planned = models(folder, "gc", "--dry-run").stdout
    assert planned.splitlines()[:2] == ["llama-claude-ppo-v1: 47 bytes", "  llama-claude-ppo-v1.gguf  22"]
    assert planned.endswith("bytes would be freed\n")
    done = json.loads(models(folder, "gc", "--json").stdout)
    assert (done["dry_run"], done["bytes"] > 0) == (False, True)
    assert not (folder / "llama-claude-ppo-v1.gguf").exists()
    assert "removed" in models(folder, "list").stdout
