"""A run folder says what its result was made with, whoever opens it later, and a run that goes on has one history."""

from __future__ import annotations

from pathlib import Path

from trainer.config import TeacherRights, load_config, parse_config
from trainer.run_folder import RunFolder, config_toml


def test_config_of_a_finished_run_is_not_overwritten_by_who_opens_it_later(tmp_path: Path) -> None:
    made_with = parse_config({"gate": {"min_prompts": 7}})
    RunFolder(tmp_path, "sft-1", made_with).finish(loss=0.5)

    opened = RunFolder(tmp_path, "sft-1", parse_config({"gate": {"min_prompts": 9}}))
    assert opened.result == {"loss": 0.5}
    assert load_config(opened.path / "config.toml") == made_with


def test_config_of_an_interrupted_run_is_that_of_the_run_that_ends_it(tmp_path: Path) -> None:
    RunFolder(tmp_path, "sft-1", parse_config({"gate": {"min_prompts": 7}}))
    goes_on = parse_config({"gate": {"min_prompts": 9}})
    RunFolder(tmp_path, "sft-1", goes_on).finish()
    assert load_config(tmp_path / "sft-1" / "config.toml") == goes_on


def test_stored_config_reads_back_as_it_was(tmp_path: Path) -> None:
    rights = TeacherRights(match="glm-*", basis='licence: "MIT" — π \\ and\ttab')
    config = parse_config({"teachers": [rights.model_dump()], "dataset": {"test_projects": ["held-*"]}, "data": "x"})
    file = tmp_path / "config.toml"
    file.write_text(config_toml(config), "utf-8")
    assert load_config(file) == config


def test_metrics_after_the_checkpoint_are_forgotten_when_a_run_goes_on(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "sft-1", parse_config({}))
    for step in (10, 20, 30):
        run.log(step=step, loss=1 / step)
    run.forget_after("step", 20)
    run.log(step=30, loss=0.0)
    assert [(row["step"], row["loss"]) for row in run.metrics()] == [(10, 0.1), (20, 0.05), (30, 0.0)]
