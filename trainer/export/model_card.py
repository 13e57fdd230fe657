"""The model card that stands beside a GGUF, in the form that the Hugging Face hub reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trainer.export.model_files import card_file
from trainer.export.registry import ModelEntry
from trainer.run_folder import write_atomic

_HUB_LICENCES = (
    "apache-2.0",
    "mit",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "gemma",
    "cc-by-4.0",
    "bsd-3-clause",
)
"""Licence ids that the hub knows and that bases of this project come under; others are `other` with a name."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def _front_matter(entry: ModelEntry) -> list[str]:
    head: dict[str, Any] = {"library_name": "gguf", "pipeline_tag": "text-generation"}
    licence = entry.licence.lower()
    if licence in _HUB_LICENCES:
        head["license"] = licence
    elif licence:
        head |= {"license": "other", "license_name": entry.licence}
    if _HUB_ID.fullmatch(entry.base_model):
        head["base_model"] = entry.base_model
    if entry.dataset_hash:
        head["datasets"] = [f"bc_dataset-{entry.dataset_hash}"]
    head["tags"] = ["claude-capture", "tool-use", "behavioural-cloning", "gguf", entry.quantized.type]
    if results := _results(entry):
        head["model-index"] = [{"name": entry.name, "results": results}]
    # JSON is YAML too, and quotes whatever a name may hold
    return ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()), "---"]


def _results(entry: ModelEntry) -> list[dict[str, Any]]:
    """The gate's figures as the hub's model-index: the student by transformers, the file by llama.cpp."""
    trial = entry.doctor.trial
    results = []
    for kind, gate in (("trained weights", entry.gate), (entry.quantized.type, trial.gate if trial else None)):
        if gate is None or not gate.measures:
            continue
        metrics = [{"type": m.name, "name": f"{m.name} ({kind})", "value": round(m.mean, 4)} for m in gate.measures]
        task = {"type": "text-generation", "name": "Work of a coding agent"}
        dataset = {"type": "claude-capture", "name": f"{gate.n} held-out prompts", "split": "test"}
        dataset["revision"] = entry.dataset_hash or "unknown"
        results.append({"task": task, "dataset": dataset, "metrics": metrics})
    return results


def _gate_lines(entry: ModelEntry) -> list[str]:
    if entry.gate is None:
        return ["Not gated: how well it works is not known."]
    lines = [f"Verdict **{entry.gate.verdict}** on {entry.gate.n} held-out prompts.", ""]
    lines += [f"- {reason}" for reason in entry.gate.reasons]
    trial = entry.doctor.trial
    if trial is not None and trial.gate is not None:
        kind = entry.quantized.type
        lines += ["", f"The {kind} file at work in llama.cpp: **{trial.gate.verdict}** on {trial.gate.n} prompts.", ""]
        lines += [f"- {reason}" for reason in trial.gate.reasons]
        lines += ["", "| Kind of work | Prompts | Reward | Same calls as the teacher |", "|---|---|---|---|"]
        for workflow, score in sorted(trial.workflows.items()):
            lines.append(f"| {workflow} | {score.n} | {score.reward:.3f} | {score.exact_sequences:.0%} |")
    return lines


def model_card(entry: ModelEntry) -> str:
    """Markdown with YAML front matter: what it is, from whom it learned, how it was judged, which files there are."""
    teachers = [f"- {teacher}" for teacher in entry.teachers] or ["- not recorded"]
    continues = f" It continues `{entry.parent}`." if entry.parent else ""
    lines = [
        *_front_matter(entry),
        "",
        f"# {entry.name}",
        "",
        "A student that was trained to work as its teacher does in Claude Code: which tools, in which order, with what",
        f"reasoning. It answers with tool calls in its own chat template, which the GGUF holds.{continues}",
        "",
        "## Where it comes from",
        "",
        f"Base: `{entry.base_model or 'not recorded'}`, licence: {entry.licence or 'not recorded'}.",
        f"Training set: `{entry.dataset_hash or 'not recorded'}`. Teachers, with the basis of learning from them:",
        "",
        *teachers,
        "",
        "## How it was judged",
        "",
        *_gate_lines(entry),
        "",
        "## Files",
        "",
        "| File | Type | Bytes | SHA-256 |",
        "|---|---|---|---|",
        *(f"| {Path(f.path).name} | {f.type} | {f.bytes:,} | `{f.sha256}` |" for f in entry.files),
        "",
        "## Checks of the quantised file",
        "",
        "| Check | Result | Found |",
        "|---|---|---|",
        *(f"| {c.name} | {c.status} | {_cell(c.detail)} |" for c in entry.doctor.checks),
        "",
        "## Limits",
        "",
        "It knows the tools and the kinds of task it was trained on; elsewhere it is a small language model. Let a",
        "person or a sandbox stand between its calls and anything that matters.",
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text that cannot break a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def write_model_card(entry: ModelEntry, folder: Path) -> Path:
    """Writes `<name>.md` beside the files and returns its path."""
    path = card_file(folder, entry.name)
    write_atomic(path, model_card(entry))
    return path
