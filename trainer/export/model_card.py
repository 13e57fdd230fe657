"""The model card that stands beside a GGUF, in the form that the Hugging Face hub reads."""

from __future__ import annotations

import json
from pathlib import Path

from trainer.export.registry import ModelEntry
from trainer.run_folder import write_atomic


def _front_matter(entry: ModelEntry) -> list[str]:
    lines = ["---", "library_name: gguf", "pipeline_tag: text-generation"]
    if entry.licence:
        lines.append(f"license: {json.dumps(entry.licence)}")
    if entry.base_model:
        lines.append(f"base_model: {json.dumps(entry.base_model)}")
    return [*lines, "tags: [claude-capture, tool-use, behavioural-cloning]", "---"]


def _gate_lines(entry: ModelEntry) -> list[str]:
    if entry.gate is None:
        return ["Not gated: how well it works is not known."]
    lines = [f"Verdict **{entry.gate.verdict}** on {entry.gate.n} held-out prompts.", ""]
    return lines + [f"- {reason}" for reason in entry.gate.reasons]


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
    path = folder / f"{entry.name}.md"
    write_atomic(path, model_card(entry), 0o644)
    return path
