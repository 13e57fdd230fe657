"""Registered models side by side: origin, verdicts, figures of the gate, of the file at work, sizes and digests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trainer.export.registry import ModelEntry


class Row(NamedTuple):
    """One line of a comparison; a value is None where a model lacks it."""

    section: str
    name: str
    values: list[str | None]


def compare(entries: Sequence[ModelEntry]) -> list[Row]:
    """Every figure that at least one of the models has, in the order in which a person asks for them."""
    columns = [_figures(entry) for entry in entries]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    order = list(dict.fromkeys(section for section, _ in keys))
    keys.sort(key=lambda key: order.index(key[0]))
    return [Row(section, name, [column.get((section, name)) for column in columns]) for section, name in keys]


def _figures(entry: ModelEntry) -> dict[tuple[str, str], str]:
    found = {
        ("origin", "parent"): entry.parent or "-",
        ("origin", "dataset"): entry.dataset_hash or "-",
        ("origin", "exported"): entry.created_at,
        ("verdict", "gate"): "not gated" if entry.gate is None else entry.gate.verdict,
        ("verdict", "doctor"): "healthy" if entry.doctor.healthy else entry.doctor.failures()[0],
    }
    for measure in entry.gate.measures if entry.gate is not None else []:
        found["gate", measure.name] = f"{measure.mean:.3f} [{measure.low:.3f}, {measure.high:.3f}]"
    trial = entry.doctor.trial
    if trial is not None:
        for measure in trial.gate.measures if trial.gate is not None else []:
            found["file in llama.cpp", measure.name] = f"{measure.mean:.3f} [{measure.low:.3f}, {measure.high:.3f}]"
        for side, figures in trial.parity.items():
            found["file in llama.cpp", f"{side} top-1 agreement"] = f"{figures['argmax_agreement']:.2%}"
            found["file in llama.cpp", f"{side} KL"] = f"{figures['kl']:.2g}"
        for workflow, score in sorted(trial.workflows.items()):
            found["reward by workflow", workflow] = f"{score.reward:.3f} ({score.n})"
    for file in entry.files:
        found["bytes", file.type] = f"{file.bytes:,}"
        found["sha256", file.type] = file.sha256[:12]
    return found
