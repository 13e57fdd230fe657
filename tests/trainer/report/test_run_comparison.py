"""`claude-trainer runs`: the difference between two runs, in words and as curves over each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from trainer.config import Config, SftConfig
from trainer.errors import TrainerError
from trainer.report.road_report import sft_page
from trainer.report.run_comparison import compare_runs, read_run
from trainer.run_folder import RunFolder
from trainer.runs_command import runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, rate in (("sft-a", 1e-3), ("sft-b", 2e-3)):
        run = RunFolder(tmp_path, name, Config(sft=SftConfig(learning_rate=rate)))
        for step in range(1, 6):
            run.log(step=step, loss=rate * 1000 / step, tokens_per_second=100.0, memory=2_000_000_000)
        if name == "sft-a":
            run.finish(loss_last=0.2)
    return tmp_path


def test_list_and_compare(folder: Path) -> None:
    found = json.loads(CliRunner().invoke(runs, ["list", "--runs", str(folder), "--json"]).stdout)
    assert [(Path(row["run"]).name, row["steps"], row["last"], row["state"]) for row in found] == [
        ("sft-a", 5, "loss 0.2", "ended"),
        ("sft-b", 5, "loss 0.4", "not ended"),
    ]
    result = CliRunner().invoke(runs, ["compare", str(folder / "sft-a"), str(folder / "sft-b")])
    assert result.exit_code == 0, result.output
    assert "config  sft.learning_rate: 0.001 → 0.002\n" in result.stdout
    assert "result  loss_last: 0.2 → None\n" in result.stdout
    assert "versions  the same\n" in result.stdout
    page = (folder / "sft-b" / "compare.html").read_text("utf-8")
    assert page.count("<figure>") == 3, "loss, speed and memory"
    assert "sft-a" in page
    assert "sft-b" in page
    assert read_run(folder / "sft-b").curve("memory")[0] == (1.0, 2.0)


def test_what_is_no_run_is_said(folder: Path) -> None:
    with pytest.raises(TrainerError, match="no run folder there"):
        read_run(folder)
    (folder / "sft-a" / "result.json").write_text("{")
    with pytest.raises(TrainerError, match="a file of the run is damaged"):
        read_run(folder / "sft-a")


def test_a_run_equals_itself(folder: Path) -> None:
    run = read_run(folder / "sft-b")
    assert compare_runs(run, run) == {"config": {}, "versions": {}, "result": {}}


def test_page_of_an_sft_shows_what_the_student_wrote(folder: Path) -> None:
    looks = [
        {"step": step, "prompt": "Where is <x>?", "teacher": "I grep.", "student": f"try {step}"} for step in (5, 10)
    ]
    page = sft_page(read_run(folder / "sft-a").metrics, {"loss_last": 0.2}, 3, "tiny", looks).html()
    assert "Where is &lt;x&gt;?" in page
    assert page.index("try 5") < page.index("try 10") < page.index("I grep.")
    assert page.count("<figure>") == 3
