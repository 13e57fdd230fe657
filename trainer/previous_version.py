"""Which model a new version is compared with, and the held-out scores that are kept beside each exported model.

    models/llama-claude-ppo-v1.gguf  llama-claude-ppo-v1-q4_k_m.gguf  llama-claude-ppo-v1-scores.json

The version before is the registry's current model, because that is the one in service; the SFT student where none is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trainer.export.model_files import scores_file
from trainer.export.registry import ModelEntry, Registry
from trainer.ppo.heldout import Heldout, read_scores, write_scores
from trainer.records import StudentScores
from trainer.student_versions import SFT, Student


def keep_scores(models: Path, scores: StudentScores) -> Path:
    """Puts a student's scores beside its exported model."""
    return write_scores(scores_file(models, scores.student), scores)


def previous_scores(
    models: Path,
    student: Student,
    adapter: Path | None,
    measured: str,
    prompts: set[str],
    score: Callable[[str, str, Path], Heldout],
) -> StudentScores | None:
    """Held-out scores of the model that a student is compared with; None where that is the SFT student.

    They are the ones kept beside the model, if they are of the same prompts under the same settings; else it works on
    the prompts again. Where its adapter is gone, no scores are returned, and the comparison stays open.

    Args:
        adapter: the student's.
        measured: hash of what a score depends on beside student and prompt.
        prompts: ids of the held-out prompts.
        score: (name, base, adapter) → the held-out episodes of that model.
    """
    entry = previous_model(models, student, adapter)
    if entry is None:
        return None
    kept = read_scores(scores_file(models, entry.name))
    if kept and kept.measured == measured and prompts <= {one.trace_id for one in kept.scores}:
        return kept
    if entry.base and entry.adapter and Path(entry.adapter).is_dir():
        return score(entry.name, entry.base, Path(entry.adapter)).scores(entry.name, measured)
    return StudentScores(student=entry.name, measured=measured, scores=[])


def is_exported(models: Path, student: Student, adapter: Path | None) -> bool:
    """Whether the registry's model of this name is this very student, not one of another dataset or config."""
    return _is(_entries(models).get(student.name), adapter)


def previous_model(models: Path, student: Student, adapter: Path | None) -> ModelEntry | None:
    """The model that a student is compared with; None where that is the SFT student it was made from.

    Args:
        models: the registry's folder.
        adapter: the student's. Who is in service already is compared with the model that was before it.
    """
    registry, entries = Registry(models).read(), _entries(models)
    name = registry.current
    if name == student.name and _is(entries.get(name), adapter):
        promotions = (event for event in reversed(registry.history) if event.action == "promote")
        name = next((event.previous for event in promotions if event.model == name), None)
    return entries.get(name) if name is not None and name != SFT.name else None


def _entries(models: Path) -> dict[str, ModelEntry]:
    return {entry.name: entry for entry in Registry(models).read().models}


def _is(entry: ModelEntry | None, adapter: Path | None) -> bool:
    """Whether an entry was made from this adapter; entries of before adapters were recorded count as such."""
    if entry is None or adapter is None:
        return False
    return entry.adapter is None or Path(entry.adapter).resolve() == adapter.resolve()
