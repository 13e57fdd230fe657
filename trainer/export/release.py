"""Export → doctor → model card → registry: the one way in which a trained student becomes a model to be served.

The files are made and examined in a folder of their own. A model of the same name that is in service stays whole until
the new one has passed, and takes over in one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from claude_capture.claude_trace_schema import Record
from trainer.config import DatasetConfig, ExportConfig
from trainer.export.atomic_file import remove, staging_folder
from trainer.export.checkpoint import Checkpoint
from trainer.export.doctor import examine
from trainer.export.export_records import DoctorReport, ExportReport, Progress, Provenance
from trainer.export.gguf_exporter import export_model
from trainer.export.llama_vocabulary import read_tokenizer
from trainer.export.model_card import write_model_card
from trainer.export.model_files import REFUSED, card_file, plain_file, quantized_file
from trainer.export.registry import ModelEntry, Registry, new_entry
from trainer.export.student_prompt import student_prompt_of
from trainer.export.trial import HeldOut, require_memory
from trainer.records import BCSample, GateReport
from trainer.run_folder import content_hash
from trainer.student.base_folder import base_folder


class ReleaseReport(Record):
    """What `claude-trainer export` reports."""

    export: ExportReport = Field(description="The files")
    doctor: DoctorReport = Field(description="Findings on the quantised file")
    entry: ModelEntry | None = Field(description="Registry entry; None where the doctor found the file unfit")
    card: str | None = Field(description="Path of the model card")

    def agreement(self, kind: str) -> float | None:
        """Argmax agreement of the `plain` or `quantized` file with what it was made from; None where not compared."""
        found = self.doctor.trial.parity.get(kind) if self.doctor.trial is not None else None
        return found["argmax_agreement"] if found is not None else None


def provenance_of(
    dataset: Path,
    samples: Sequence[BCSample],
    config: DatasetConfig,
    *,
    base_model: str,
    licence: str = "",
    parent: str | None = None,
) -> Provenance:
    """Teachers with their basis, the hash of the training set, and the prompt and tools that it taught.

    Args:
        dataset: the file that `samples` were read from.
        config: what it was built with.
    """
    teachers = {f"{sample.teacher.model} ({sample.basis})": None for sample in samples}
    return Provenance(
        base_model=base_model,
        licence=licence,
        teachers=list(teachers),
        dataset_hash=content_hash(dataset),
        parent=parent,
        student_prompt=student_prompt_of(samples, config).to_json(),
    )


def release(
    base: Path | str,
    adapter: Path | None,
    models: Path,
    name: str,
    config: ExportConfig,
    *,
    provenance: Provenance | None = None,
    gate: GateReport | None = None,
    heldout: HeldOut | None = None,
    progress: Progress | None = None,
) -> ReleaseReport:
    """Exports a student, examines the quantised file and registers the model if it is fit for service.

    Args:
        base: folder or hub id of the 16-bit base.
        adapter: folder that peft saved; None exports the base as it is.
        models: folder of the GGUF files and the registry.
        name: llama-claude-bc-v1, llama-claude-ppo-v2 …
        gate: verdict on the held-out prompts, where there is one.
        heldout: the prompts themselves; the doctor then compares logits and runs the gate again on the quantised file.

    Returns:
        Files that the doctor found unfit lie in `models/refused/` until the next release; a model of the same name that
        was there before is as it was.

    Raises:
        TrainerError: the export failed, the registry cannot be read, another model has a file of this name, or there
            is no memory for what the doctor does.
    """
    registry = Registry(models)
    registry.reserve(name, [plain_file(models, name), quantized_file(models, name, config.quantization)])
    origin = provenance or Provenance(base_model=str(base))
    if heldout is not None:
        require_memory(base_folder(base), heldout)
    refused = models / REFUSED
    with staging_folder(models / name) as staging:
        remove(refused)
        report = export_model(base, adapter, staging, name, config, provenance=origin, progress=progress)
        tokenizer = read_tokenizer(Path(report.base))
        if heldout is not None:
            heldout = replace(heldout, export=report, student=gate)
        doctor = examine(Path(report.quantized.path), tokenizer=tokenizer, heldout=heldout, progress=progress)
        report, doctor = _moved(report, doctor, models if doctor.healthy else refused)
        if not doctor.healthy:
            staging.rename(refused)
            return ReleaseReport(export=report, doctor=doctor, entry=None, card=None)
        if not origin.licence:  # as in the file
            origin = replace(origin, licence=Checkpoint(Path(report.base)).licence)
        entry = new_entry(report, doctor, origin, gate, models)
        write_model_card(entry, staging)
        registry.publish(entry, staging)
    return ReleaseReport(export=report, doctor=doctor, entry=entry, card=str(card_file(models, name)))


def _moved(report: ExportReport, doctor: DoctorReport, folder: Path) -> tuple[ExportReport, DoctorReport]:
    """Both reports with the paths that the files will have in `folder`, in what the doctor found, too."""
    made_in = str(Path(report.plain.path).parent)
    plain, quantized = (
        file.model_copy(update={"path": str(folder / Path(file.path).name)})
        for file in (report.plain, report.quantized)
    )
    report = report.model_copy(update={"plain": plain, "quantized": quantized})
    checks = [c.model_copy(update={"detail": c.detail.replace(made_in, str(folder))}) for c in doctor.checks]
    return report, doctor.model_copy(update={"path": quantized.path, "checks": checks})
