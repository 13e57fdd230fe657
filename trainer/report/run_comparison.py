"""Run folders side by side: what differs in their configs, what came out, and their curves over each other."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError
from trainer.report.page import Page
from trainer.report.plots import line_chart

CURVES = {
    "loss": ("loss", "nats per token", True),
    "reward": ("mean reward of the episodes", "reward", False),
    "kl": ("KL to the reference", "nats per episode", False),
    "tokens_per_second": ("speed", "tokens per second", False),
    "memory": ("peak memory", "GB", False),
}
"""Metric → (what it is, unit, logarithmic axis)."""
Differences = dict[str, dict[str, tuple[Any, Any]]]
"""`config`, `versions` and `result`: dotted key → (first, second) where they differ; None where one lacks it."""


@dataclass(frozen=True)
class Run:
    """What a run folder says; `result` is None for one that has not ended."""

    path: Path
    config: dict[str, Any]
    versions: dict[str, str]
    metrics: list[dict[str, Any]]
    result: dict[str, Any] | None

    @property
    def axis(self) -> str:
        """Metrics are counted in steps (SFT) or updates (PPO)."""
        return "update" if any("update" in row for row in self.metrics) else "step"

    def curve(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of a metric; memory in GB."""
        scale = 1e-9 if name == "memory" else 1.0
        rows = [row for row in self.metrics if isinstance(row.get(name), int | float) and self.axis in row]
        return [(float(row[self.axis]), row[name] * scale) for row in rows]

    def facts(self) -> dict[str, Any]:
        """One line of `runs list`."""
        last: dict[str, Any] = next((row for row in reversed(self.metrics) if "loss" in row or "reward" in row), {})
        name = "loss" if "loss" in last and self.axis == "step" else "reward"
        began = self.metrics[0].get("time") if self.metrics else None
        return {
            "run": str(self.path),
            "began": datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%d %H:%M") if began else "",
            "steps": last.get(self.axis),
            "last": f"{name} {last[name]:.4g}" if name in last else "",
            "state": "ended" if self.result is not None else "not ended",
        }


def read_run(path: Path) -> Run:
    """Reads a run folder; writes nothing.

    Raises:
        TrainerError: it is none, or a file in it is damaged.
    """
    if not (path / "config.toml").is_file():
        raise TrainerError(f"{path}: no run folder there (it has no config.toml); see `claude-trainer runs list`")
    try:
        config = tomllib.loads((path / "config.toml").read_text("utf-8"))
        versions = _json(path / "versions.json") or {}
        result = _json(path / "result.json")
    except ValueError as error:
        raise TrainerError(f"{path}: a file of the run is damaged ({error})") from None
    metrics = []
    file = path / "metrics.jsonl"
    for line in file.read_text("utf-8").splitlines() if file.exists() else []:
        try:
            metrics.append(json.loads(line))
        except ValueError:  # the last line of a killed run
            continue
    return Run(path, config, versions, metrics, result)


def _json(file: Path) -> Any:
    return json.loads(file.read_text("utf-8")) if file.exists() else None


def read_runs(folder: Path) -> list[Run]:
    """All runs below a folder, in order of their first metric.

    Raises:
        TrainerError: there is no such folder.
    """
    if not folder.is_dir():
        raise TrainerError(f"{folder}: no such folder; --runs names the one that the config calls `runs`")
    places = sorted(file.parent for file in folder.glob("**/versions.json") if (file.parent / "config.toml").is_file())
    found = [read_run(place) for place in places]
    return sorted(found, key=lambda run: run.metrics[0].get("time", 0) if run.metrics else 0)


def compare_runs(first: Run, second: Run) -> Differences:
    """What differs, by part."""
    parts = {
        "config": (first.config, second.config),
        "versions": (first.versions, second.versions),
        "result": (first.result or {}, second.result or {}),
    }
    found: Differences = {}
    for part, (one, other) in parts.items():
        left, right = _flat(one), _flat(other)
        keys = [*left, *(key for key in right if key not in left)]
        found[part] = {key: (left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)}
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def comparison_page(first: Run, second: Run) -> Page:
    """Curves first, then what made the difference."""
    names = (first.path.name, second.path.name)
    if names[0] == names[1]:
        names = (str(first.path), str(second.path))
    page = Page("Two runs", f"{names[0]} and {names[1]}")
    differences = compare_runs(first, second)
    page.text("## Curves")
    drawn = 0
    for metric, (what, unit, log) in CURVES.items():
        series = {name: run.curve(metric) for name, run in zip(names, (first, second), strict=True)}
        shown = {name: points for name, points in series.items() if points}
        if shown:
            page.figure(f"{what.capitalize()}, {unit}.", line_chart(shown, first.axis, unit, log=log))
            drawn += 1
    if not drawn:
        page.text("Neither run has written a metric yet.")
    for part, title in (("result", "Final figures"), ("config", "Config"), ("versions", "Versions")):
        page.text(f"## {title}")
        if rows := [[key, _cell(one), _cell(other)] for key, (one, other) in differences[part].items()]:
            page.table([part, *names], rows)
        else:
            page.text("The same in both.")
    return page


def _cell(value: Any) -> object:
    return value if value is None or isinstance(value, int | float) else str(value)
