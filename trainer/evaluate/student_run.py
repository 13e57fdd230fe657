"""Finds what a student did on the held-out prompts: the traces that `claude-trainer gate` or `train` left.

Those are the very episodes that the gate judged, run in fresh workspaces where there are such, else on replayed tools.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from trainer.config import Config, load_config
from trainer.errors import TrainerError


class StudentRun(NamedTuple):
    """A finished test of a student."""

    traces: Path
    live: bool
    """True where real tools answered the student's calls in a fresh workspace."""
    patched: float
    """Share of the calls that a replay could not answer from the recording, in [0, 1]; 0 for live tools."""

    def note(self) -> str:
        """How the student's traces came about, for the report."""
        if self.live:
            return "the student worked in fresh workspaces with real tools"
        return f"the student's calls were answered by replay; {self.patched:.0%} of them had no recorded answer"


def find_student_run(config: Config, student: str) -> StudentRun:
    """The newest finished test of a student on this config, one with live tools before replayed ones.

    Args:
        student: `ppo` (its newest version), `ppo-v2`, `sft` or `untrained`.

    Raises:
        TrainerError: there is none.
    """
    found: list[tuple[bool, float, StudentRun]] = []
    for file in Path(config.runs).glob(f"test-{student}-*/result.json"):
        traces = file.with_name("traces.jsonl")
        if not traces.exists() or not _same_training(load_config(file.with_name("config.toml")), config):
            continue
        coverage = json.loads(file.read_text("utf-8")).get("coverage") or {}
        run = StudentRun(traces, not coverage, float(coverage.get("patched", 0.0)))
        found.append((run.live, file.stat().st_mtime, run))
    if not found:
        raise TrainerError(
            f"{config.runs}: no finished test of the {student} student on this config; run `claude-trainer gate "
            "--student …` with the same --config from the same folder first, or name its traces with --student"
        )
    return max(found)[2]


def _same_training(one: Config, other: Config) -> bool:
    """Whether two configs make the same student; later defaults and more iterations do not matter."""
    parts = {"dataset", "student", "sft", "ppo", "reward"}
    first, second = (config.model_dump(include=parts, exclude={"ppo": {"iterations"}}) for config in (one, other))
    return first == second
