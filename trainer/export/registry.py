"""models/registry.json: which models there are, where each comes from, and which one is current.

    {"schema_version": 1, "current": "llama-claude-bc-v1", "models": [entry …], "history": [event …]}

The file is replaced atomically under a lock, and nothing is ever taken out of `history`. A model that the doctor finds
unfit is not registered; one whose gate did not pass is not promoted, unless a person insists, which is recorded too.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from claude_capture.claude_trace_schema import Record
from trainer.errors import TrainerError
from trainer.export.doctor import DoctorReport
from trainer.export.export_records import ExportedFile, ExportReport, Provenance, sha256_of
from trainer.records import GateReport
from trainer.run_folder import write_atomic

SCHEMA_VERSION = 1
Action = Literal["register", "promote", "rollback"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class ModelEntry(Record):
    """One exported model."""

    name: str = Field(description="llama-claude-bc-v1, llama-claude-ppo-v2 …")
    created_at: str = Field(description="ISO 8601 UTC")
    parent: str | None = Field(default=None, description="Model that this one continues")
    base_model: str = Field(default="", description="Hub id or folder of the base")
    licence: str = Field(default="", description="Licence of the base")
    teachers: list[str] = Field(default_factory=list, description="Whom it learned from")
    dataset_hash: str = Field(default="", description="Hash of the training set")
    files: list[ExportedFile] = Field(description="GGUF files with digests; paths relative to the registry's folder")
    gate: GateReport | None = Field(default=None, description="Verdict on the held-out prompts")
    doctor: DoctorReport = Field(description="The doctor's findings on the quantised file")

    @property
    def quantized(self) -> ExportedFile:
        """The file that is put into service."""
        return self.files[-1]


class Event(Record):
    """One line of the history."""

    at: str = Field(description="ISO 8601 UTC")
    action: Action = Field(description="register, promote or rollback")
    model: str = Field(description="Model that became current or was registered")
    previous: str | None = Field(default=None, description="Model that was current before")
    note: str = Field(default="", description="Why, where a rule was overruled")


class RegistryFile(Record):
    """The whole file."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this schema")
    current: str | None = Field(default=None, description="Model in service")
    models: list[ModelEntry] = Field(default_factory=list, description="In order of registration; a name once")
    history: list[Event] = Field(default_factory=list, description="Everything that happened, oldest first")


class Registry:
    """The registry of one models folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "registry.json"

    def read(self) -> RegistryFile:
        """The file as it is now; an empty registry where there is none.

        Raises:
            TrainerError: it cannot be understood.
        """
        if not self.path.exists():
            return RegistryFile()
        try:
            return RegistryFile.model_validate(json.loads(self.path.read_text("utf-8")))
        except (ValueError, ValidationError) as error:
            reason = str(error).split("\n")[0]
            raise TrainerError(f"{self.path}: not a model registry ({reason}); restore it or move it away") from None

    def list(self) -> list[ModelEntry]:
        """Every model, in order of registration."""
        return self.read().models

    def get(self, name: str) -> ModelEntry:
        """One model.

        Raises:
            TrainerError: no such model, with those that there are.
        """
        return _find(self.read(), name, self.path)

    def register(
        self, report: ExportReport, doctor: DoctorReport, provenance: Provenance, gate: GateReport | None = None
    ) -> ModelEntry:
        """Enters an export; a model of the same name is replaced, its history kept.

        Raises:
            TrainerError: the doctor found it unfit.
        """
        if not doctor.healthy:
            raise TrainerError(f"{report.name} is not registered: the doctor found {doctor.failures()[0]}")
        files = [
            file.model_copy(update={"path": _relative(Path(file.path), self.folder)})
            for file in (report.plain, report.quantized)
        ]
        entry = ModelEntry(
            name=report.name,
            created_at=_now(),
            parent=provenance.parent,
            base_model=provenance.base_model,
            licence=provenance.licence,
            teachers=provenance.teachers,
            dataset_hash=provenance.dataset_hash,
            files=files,
            gate=gate,
            doctor=doctor,
        )
        with self._changed() as registry:
            registry.models = [model for model in registry.models if model.name != entry.name] + [entry]
            registry.history.append(Event(at=_now(), action="register", model=entry.name))
        return entry

    def verify(self, name: str) -> None:
        """Compares a model's files with their digests.

        Raises:
            TrainerError: a file is missing or was changed.
        """
        for file in self.get(name).files:
            path = self.folder / file.path
            if not path.exists():
                raise TrainerError(f"{path}: missing; export {name} again")
            if sha256_of(path) != file.sha256:
                raise TrainerError(f"{path}: changed since it was registered (digest differs); export {name} again")

    def promote(self, name: str, *, force: str = "") -> ModelEntry:
        """Makes a model the current one.

        Args:
            force: reason for promoting a model whose gate did not pass; kept in the history.

        Raises:
            TrainerError: unknown, changed on disk, or its gate did not pass.
        """
        self.verify(name)
        with self._changed() as registry:
            entry = _find(registry, name, self.path)
            if not force and (entry.gate is None or not entry.gate.passed):
                verdict = "was not gated" if entry.gate is None else f"has the gate verdict {entry.gate.verdict}"
                raise TrainerError(f"{name} is not promoted: it {verdict}; run `claude-trainer gate`, or force it")
            if registry.current != name:
                event = Event(at=_now(), action="promote", model=name, previous=registry.current, note=force)
                registry.history.append(event)
                registry.current = name
        return entry

    def rollback(self) -> ModelEntry:
        """Makes the model current that was current before the latest promotion still in force.

        Raises:
            TrainerError: there is none, or it was changed on disk.
        """
        target = _previous(self.read())
        if target is None:
            raise TrainerError(f"{self.path}: no earlier model to return to")
        self.verify(target)
        with self._changed() as registry:
            event = Event(at=_now(), action="rollback", model=target, previous=registry.current)
            registry.history.append(event)
            registry.current = target
        return self.get(target)

    @contextmanager
    def _changed(self) -> Iterator[RegistryFile]:
        """The registry under a lock; written back when the block ends without an error."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".registry.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            registry = self.read()
            yield registry
            write_atomic(self.path, registry.model_dump_json(indent=1) + "\n", 0o644)


def _relative(path: Path, folder: Path) -> str:
    try:
        return str(path.resolve().relative_to(folder.resolve()))
    except ValueError:
        return str(path.resolve())


def _find(registry: RegistryFile, name: str, path: Path) -> ModelEntry:
    for model in registry.models:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in registry.models) or "none"
    raise TrainerError(f"{path}: no model {name!r}; registered: {known}")


def _previous(registry: RegistryFile) -> str | None:
    """Undoes promotions like a stack: each rollback takes one promotion back."""
    stack: list[str | None] = [None]
    for event in registry.history:
        if event.action == "promote":
            stack.append(event.model)
        elif event.action == "rollback":
            stack.pop()
    return stack[-2] if len(stack) > 2 else None
