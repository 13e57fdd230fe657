"""What an export is told and what it reports; light, so that nothing here needs torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from claude_capture.claude_trace_schema import Record
from trainer.records import GateReport

METADATA_PREFIX = "claude_capture."
Progress = Callable[[str, int, int], None]
"""Called with (what is being done, bytes done, bytes in all)."""


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from; written into the GGUF, the registry and the model card."""

    base_model: str = ""
    licence: str = ""
    """Licence of the base, as an SPDX id or a name."""
    teachers: list[str] = field(default_factory=list)
    """Model ids of the teachers, with the basis of learning from them where it is known."""
    dataset_hash: str = ""
    parent: str | None = None
    """Registry name of the model that this one continues."""
    student_prompt: str = ""
    """What it was trained to read first, as `student_prompt.StudentPrompt.to_json` writes it."""


class ExportedFile(Record):
    """One GGUF."""

    path: str = Field(description="Where it lies")
    type: str = Field(description="Type of its matrices, as llama.cpp names it, e.g. f16 or q4_k_m")
    bytes: int = Field(description="Size")
    sha256: str = Field(description="Digest of the file, 64 hex digits")
    seconds: float = Field(description="Time taken to make it")


class ExportReport(Record):
    """What an export made."""

    name: str = Field(description="Model name, e.g. llama-claude-bc-v1")
    base: str = Field(description="Folder of the 16-bit base")
    adapter: str | None = Field(description="Folder of the adapter, None where the base was exported as it is")
    merged: int = Field(description="Weights that the adapter changed")
    tensors: int = Field(description="Tensors in the plain GGUF")
    plain: ExportedFile = Field(description="f16 or bf16 file")
    quantized: ExportedFile = Field(description="Quantised file")


Status = Literal["passed", "failed", "warning", "not run"]


class Check(Record):
    """One finding of the doctor."""

    name: str = Field(description="What was looked at")
    status: Status = Field(
        description="passed, failed, warning (works, but worth knowing), or not run (it lacked what it needs)"
    )
    detail: str = Field(description="What was found")
    advice: str = Field(default="", description="What to do about it; empty where it passed")


def not_run(name: str, why: str) -> Check:
    """A check that lacked what it needs: it neither passed nor failed."""
    return Check(name=name, status="not run", detail=why)


TRIAL_CHECKS = ("logits_plain", "logits_quantized", "context", "behaviour")
"""The doctor's checks that need the user's held-out prompts, in order."""


class WorkflowScore(Record):
    """What the file earned on the held-out prompts of one kind of work."""

    n: int = Field(description="Prompts")
    reward: float = Field(description="Mean total, in [-1, 1]")
    exact_sequences: float = Field(description="Share with the teacher's calls, arguments and order, in [0, 1]")


class Trial(Record):
    """The file at work on the user's held-out prompts, in llama.cpp."""

    gate: GateReport | None = Field(default=None, description="The gate's verdict on what the file did")
    workflows: dict[str, WorkflowScore] = Field(default_factory=dict, description="By workflow type")
    parity: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="`plain` (16-bit file against transformers) and `quantized` (against the 16-bit file): "
        "argmax_agreement, max_logit_diff, kl, tokens",
    )


class DoctorReport(Record):
    """All findings on one file."""

    path: str = Field(description="The GGUF")
    healthy: bool = Field(description="True where no check failed")
    checks: list[Check] = Field(description="In the order they were made")
    trial: Trial | None = Field(default=None, description="Figures of the held-out prompts, where they were asked")

    def failures(self) -> list[str]:
        """`name: detail` of every failed check."""
        return [f"{check.name}: {check.detail}" for check in self.checks if check.status == "failed"]


def now() -> str:
    """This moment, as the registry and the log of deployments write it: ISO 8601 UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """The hex digest of a file."""
    digest = hashlib.sha256()
    total, done = path.stat().st_size, 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress("hashing", done, total)
    return digest.hexdigest()
