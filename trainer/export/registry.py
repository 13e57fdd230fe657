"""models/registry.json: which models there are, where each comes from, and which one is current.

    {"schema_version": 1, "current": "llama-claude-bc-v1", "models": [entry …], "history": [event …]}

The file is replaced atomically under a lock, the state before the latest change stands beside it, and nothing is ever
taken out of `history`. A model that the doctor finds unfit is not registered; one whose gate did not pass is not
promoted, unless a person insists, which is recorded too.
"""

from __future__ import annotations

import errno
import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from claude_capture.claude_trace_schema import Record
from trainer.errors import TrainerError
from trainer.export.export_records import DoctorReport, ExportedFile, ExportReport, Provenance, sha256_of
from trainer.records import GateReport
from trainer.run_folder import write_atomic

SCHEMA_VERSION = 1
Action = Literal["register", "promote", "rollback", "withdraw", "gc"]
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


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
    base: str = Field(default="", description="Folder of the 16-bit base that was exported")
    adapter: str | None = Field(default=None, description="Folder of the adapter that was merged into it")
    gate: GateReport | None = Field(default=None, description="Verdict on the held-out prompts")
    doctor: DoctorReport = Field(description="The doctor's findings on the quantised file")
    collected_at: str | None = Field(default=None, description="When `models gc` removed its files, ISO 8601 UTC")

    @property
    def quantized(self) -> ExportedFile:
        """The file that is put into service."""
        return self.files[-1]

    def as_export(self, folder: Path) -> ExportReport:
        """What was exported, with paths that start at the registry's folder."""
        plain, quantized = (f.model_copy(update={"path": str(folder / f.path)}) for f in self.files)
        return ExportReport(
            name=self.name,
            base=self.base,
            adapter=self.adapter,
            merged=0,
            tensors=0,
            plain=plain,
            quantized=quantized,
        )

    @property
    def obstacles(self) -> list[str]:
        """Why it may not go into service; empty for a model whose gate and doctor both passed."""
        found = [f"the doctor found {finding}" for finding in self.doctor.failures()[:1]]
        if self.gate is None:
            found.append("it was not gated")
        elif not self.gate.passed:
            found.append(f"it has the gate verdict {self.gate.verdict}")
        return found


class Event(Record):
    """One line of the history."""

    at: str = Field(description="ISO 8601 UTC")
    action: Action = Field(description="register, promote, rollback, withdraw or gc")
    model: str = Field(description="Model that was registered, became current, ceased to be it or lost its files")
    previous: str | None = Field(default=None, description="Model that was current before")
    note: str = Field(default="", description="Why, where a rule was overruled")


class RegistryFile(Record):
    """The whole file."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this schema")
    current: str | None = Field(default=None, description="Model in service")
    models: list[ModelEntry] = Field(default_factory=list, description="In order of registration; a name once")
    history: list[Event] = Field(default_factory=list, description="Everything that happened, oldest first")


class Collected(Record):
    """A model whose files `gc` removes."""

    model: str = Field(description="Its name")
    files: list[str] = Field(description="Paths relative to the registry's folder")
    bytes: int = Field(description="Disk space they take")


class Registry:
    """The registry of one models folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "registry.json"
        self.previous = folder / "registry.previous.json"

    def read(self) -> RegistryFile:
        """The file as it is now; an empty registry where there is none.

        Raises:
            TrainerError: it cannot be understood.
        """
        if not self.path.exists():
            return RegistryFile()
        try:
            found = RegistryFile.model_validate(json.loads(self.path.read_text("utf-8")))
        except (ValueError, ValidationError) as error:
            reason = str(error).split("\n")[0]
            mend = "move it away, and the next export starts a new one"
            if self.previous.exists():
                mend = f"`cp {self.previous} {self.path}` returns to the state before the last change"
            raise TrainerError(f"{self.path}: not a model registry ({reason}); {mend}") from None
        if found.schema_version > SCHEMA_VERSION:
            raise TrainerError(
                f"{self.path}: schema {found.schema_version}, newer than {SCHEMA_VERSION}; update claude-capture"
            )
        return found

    def entries(self) -> list[ModelEntry]:
        """Every model, in order of registration."""
        return self.read().models

    def get(self, name: str) -> ModelEntry:
        """One model.

        Raises:
            TrainerError: no such model, with those that there are.
        """
        return _find(self.read(), name, self.path)

    def entry_of(self, gguf: Path) -> ModelEntry | None:
        """The model that a file belongs to, by its path; None where it is not registered here."""
        wanted = gguf.resolve()
        for entry in self.entries():
            if any((self.folder / file.path).resolve() == wanted for file in entry.files):
                return entry
        return None

    def register(
        self, report: ExportReport, doctor: DoctorReport, provenance: Provenance, gate: GateReport | None = None
    ) -> ModelEntry:
        """Enters an export; a model of the same name is replaced, its history kept.

        Where that was the current model and the new files may not go into service, the one before is current again.

        Raises:
            TrainerError: the doctor found it unfit.
        """
        check_name(report.name)
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
            base=report.base,
            adapter=report.adapter,
            gate=gate,
            doctor=doctor,
        )
        with self._changed() as registry:
            registry.models = [model for model in registry.models if model.name != entry.name] + [entry]
            registry.history.append(Event(at=_now(), action="register", model=entry.name))
            if registry.current == entry.name and entry.obstacles:
                before = _previous(registry)
                registry.history.append(
                    Event(at=_now(), action="withdraw", model=entry.name, previous=entry.name, note=entry.obstacles[0])
                )
                registry.current = before
        return entry

    def verify(self, name: str) -> ModelEntry:
        """Compares a model's files with their digests.

        Raises:
            TrainerError: a file is missing or was changed.
        """
        entry = self.get(name)
        if entry.collected_at is not None:
            raise TrainerError(
                f"{self.path}: `models gc` removed the files of {name} on {entry.collected_at}; export it again"
            )
        for file in entry.files:
            path = self.folder / file.path
            if not path.exists():
                raise TrainerError(f"{path}: missing; export {name} again")
            if path.stat().st_size != file.bytes or sha256_of(path) != file.sha256:
                raise TrainerError(f"{path}: changed since it was registered (digest differs); export {name} again")
        return entry

    def promote(self, name: str, *, force: str = "") -> ModelEntry:
        """Makes a model the current one.

        Args:
            force: reason for promoting a model whose gate or doctor did not pass; kept in the history.

        Raises:
            TrainerError: unknown, changed on disk, or its gate or doctor did not pass.
        """
        verified = self.verify(name)
        with self._changed() as registry:
            entry = _find(registry, name, self.path)
            if entry.files != verified.files:
                raise TrainerError(f"{self.path}: {name} was exported again just now; promote it once that is done")
            if entry.obstacles and not force:
                raise TrainerError(
                    f"{name} is not promoted: {'; '.join(entry.obstacles)}; "
                    "see `claude-trainer gate` and `claude-trainer doctor`, or give a reason with --force"
                )
            if registry.current != name:
                note = force if entry.obstacles else ""
                event = Event(at=_now(), action="promote", model=name, previous=registry.current, note=note)
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
        entry = self.verify(target)
        with self._changed() as registry:
            if _previous(registry) != target:
                raise TrainerError(f"{self.path}: another model was promoted just now; look at it and try again")
            event = Event(at=_now(), action="rollback", model=target, previous=registry.current)
            registry.history.append(event)
            registry.current = target
        return entry

    def kept(self, registry: RegistryFile | None = None) -> dict[str, str]:
        """Models that `gc` leaves alone, with the reason: current, previous, their parents, and the newest."""
        registry = registry or self.read()
        by_name = {model.name: model for model in registry.models}
        kept: dict[str, str] = {}
        for name, why in ((registry.current, "current"), (_previous(registry), "previous")):
            if name is not None:
                kept.setdefault(name, why)
        for name in list(kept):
            parent = by_name[name].parent if name in by_name else None
            if parent is not None:
                kept.setdefault(parent, f"parent of {name}")
        if registry.models:
            kept.setdefault(registry.models[-1].name, "newest")
        return kept

    def gc(self, *, dry_run: bool = False) -> list[Collected]:
        """Removes the files of models that are no longer needed; their entries and cards stay.

        The registry is written first: a run that is killed between the two is finished by the next one.

        Returns:
            What was removed, or with `dry_run` what would be.

        Raises:
            TrainerError: no model is current, so that nothing could be kept for a reason.
        """
        found = self.read()
        if found.models and found.current is None:
            raise TrainerError(f"{self.path}: no model is current, gc would spare only the newest; promote one first")
        if dry_run:
            return self._superfluous(found)
        with self._changed() as registry:
            gone = self._superfluous(registry)
            for model in registry.models:
                if model.name in {row.model for row in gone} and model.collected_at is None:
                    model.collected_at = _now()
                    registry.history.append(Event(at=_now(), action="gc", model=model.name))
        for row in gone:
            for file in row.files:
                (self.folder / file).unlink(missing_ok=True)
        return gone

    def _superfluous(self, registry: RegistryFile) -> list[Collected]:
        kept = self.kept(registry)
        needed = {(self.folder / file.path).resolve() for m in registry.models if m.name in kept for file in m.files}
        rows = []
        for model in registry.models:
            paths = [(file.path, self.folder / file.path) for file in model.files]
            left = [(name, path) for name, path in paths if path.exists() and path.resolve() not in needed]
            if model.name not in kept and left:
                size = sum(path.stat().st_size for _, path in left)
                rows.append(Collected(model=model.name, files=[name for name, _ in left], bytes=size))
        return rows

    @contextmanager
    def _changed(self) -> Iterator[RegistryFile]:
        """The registry under a lock; written back when the block ends without an error.

        Raises:
            TrainerError: the disk is full; the registry is as it was.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with (self.folder / ".registry.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for leftover in self.folder.glob(".registry*.partial"):  # of a killed writer: the lock is ours
                    leftover.unlink(missing_ok=True)
                registry = self.read()
                yield registry
                if self.path.exists():
                    write_atomic(self.previous, self.path.read_bytes(), 0o644)
                write_atomic(self.path, registry.model_dump_json(indent=1) + "\n", 0o644)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise TrainerError(
                f"{self.path}: no space left on the disk; it is as it was: free some, try again"
            ) from None


def check_name(name: str) -> None:
    """A model's name is the name of its files.

    Raises:
        TrainerError: it cannot be.
    """
    if not _NAME.fullmatch(name):
        raise TrainerError(f"{name!r} is no model name; take letters, digits, dots and dashes: llama-claude-ppo-v2")


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
    """Undoes promotions like a stack: each rollback, and each withdrawal, takes one promotion back."""
    stack: list[str | None] = [None]
    for event in registry.history:
        if event.action == "promote":
            stack.append(event.model)
        elif event.action in ("rollback", "withdraw"):
            stack.pop()
    return stack[-2] if len(stack) > 2 else None
