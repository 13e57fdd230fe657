"""models/registry.json: which models there are, where each comes from, and which one is current.

    {"schema_version": 1, "current": "llama-claude-bc-v1", "models": [entry …], "history": [event …]}

The file is replaced atomically under a lock, the state before the latest change stands beside it, and nothing is ever
taken out of `history`. A model that the doctor finds unfit is not registered; one whose gate did not pass is not
promoted, unless a person insists, which is recorded too.

A release changes files and registry together. It begins with one rename, of the folder that holds the judged files and
their entry; whoever opens the registry next finds that folder and ends what a killed release left undone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from claude_capture.claude_trace_schema import Record
from trainer.errors import TrainerError
from trainer.export.atomic_file import full_disk_told, locked, remove
from trainer.export.export_records import DoctorReport, ExportedFile, ExportReport, Provenance, now, sha256_of
from trainer.export.model_files import REFUSED, belongings
from trainer.records import GateReport
from trainer.run_folder import write_atomic

SCHEMA_VERSION = 1
Action = Literal["register", "promote", "rollback", "withdraw", "gc"]
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_RELEASE = "release"
"""Suffix of the folder of a release that is to be finished."""
_ENTRY = "entry.json"


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
    superseded: list[str] = Field(
        default_factory=list, description="Files of earlier exports under this name, of another quantisation"
    )
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
    """What `gc` removes because of one model."""

    model: str = Field(description="Its name")
    files: dict[str, int] = Field(description="Path relative to the registry's folder → bytes; folders as a whole")
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
        if any(self.folder.glob(f".*.{_RELEASE}")):
            with self._locked():
                pass  # a killed release is finished there; a living one has finished once the lock is ours
        return self._load()

    def _load(self) -> RegistryFile:
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

    def reserve(self, name: str, files: Sequence[Path]) -> None:
        """Makes sure that a name can be a model's, and that its files would not overwrite those of another model.

        Raises:
            TrainerError: they would, or the registry cannot be read.
        """
        check_name(name)
        for file in files:
            owner = self.entry_of(file)
            if owner is not None and owner.name != name:
                raise TrainerError(f"{file}: this is a file of {owner.name}; give {name!r} another name")

    def register(
        self, report: ExportReport, doctor: DoctorReport, provenance: Provenance, gate: GateReport | None = None
    ) -> ModelEntry:
        """Enters an export whose files are in place; a model of the same name is replaced, its history kept.

        Where that was the current model and the new files may not go into service, the one before is current again.

        Raises:
            TrainerError: the doctor found it unfit.
        """
        entry = new_entry(report, doctor, provenance, gate, self.folder)
        with self._changed() as registry:
            _enter(registry, entry)
        return entry

    def publish(self, entry: ModelEntry, staged: Path) -> None:
        """Moves the files of a release into place and enters it, like `register`; killed or not, both or neither.

        Args:
            staged: folder on the registry's file system that holds the files under their final names, and nothing else.

        Raises:
            TrainerError: the registry is damaged, and nothing was changed; or the disk is full: then whoever opens the
                registry next finishes.
        """
        write_atomic(staged / _ENTRY, entry.model_dump_json() + "\n")
        with self._locked():
            self._load()
            staged.rename(self.folder / f".{entry.name}.{_RELEASE}")
            self._finish_releases()

    def _finish_releases(self) -> None:
        """Ends what `publish` began; every step may have been done already."""
        for release in self.folder.glob(f".*.{_RELEASE}"):
            note = release / _ENTRY
            if note.exists():
                registry = self._load()
                entry = ModelEntry.model_validate_json(note.read_bytes())
                for file in release.iterdir():
                    if file != note:
                        file.replace(self.folder / file.name)
                if all(model.created_at != entry.created_at or model.files != entry.files for model in registry.models):
                    # earlier files of this name are gone: the state to return to names the new ones
                    before = self._load()
                    before.models = [entry if model.name == entry.name else model for model in before.models]
                    _enter(registry, entry)
                    self._write(registry, before)
                note.unlink()
            release.rmdir()

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
                event = Event(at=now(), action="promote", model=name, previous=registry.current, note=note)
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
            event = Event(at=now(), action="rollback", model=target, previous=registry.current)
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
        """Removes all that lies beside models that are no longer needed, and their files; their entries stay.

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
        with self._locked():
            registry = self._load()
            gone = self._superfluous(registry)
            unwanted = {row.model for row in gone} - set(self.kept(registry))
            if fresh := [model for model in registry.models if model.name in unwanted and model.collected_at is None]:
                for model in fresh:
                    model.collected_at = now()
                    registry.history.append(Event(at=now(), action="gc", model=model.name))
                self._write(registry)
            for row in gone:
                for file in row.files:
                    remove(self.folder / file)
        return gone

    def _superfluous(self, registry: RegistryFile) -> list[Collected]:
        """What `gc` removes: all that belongs to models that are not kept, and what was left behind by exports."""
        kept = self.kept(registry)
        stale, spared = {}, set()
        for model in registry.models:
            files, earlier = [self.folder / f.path for f in model.files], [self.folder / f for f in model.superseded]
            if model.name in kept:
                spared |= {path.resolve() for path in belongings(self.folder, model.name, files)}
                stale[model.name] = earlier
            else:
                stale[model.name] = belongings(self.folder, model.name, files + earlier)
        stale["(refused export)"] = [self.folder / REFUSED]
        rows = []
        for name, paths in stale.items():
            present = [path for path in dict.fromkeys(paths) if path.exists() and path.resolve() not in spared]
            files_and_sizes = {_relative(path, self.folder): _size(path) for path in present}
            if files_and_sizes:
                rows.append(Collected(model=name, files=files_and_sizes, bytes=sum(files_and_sizes.values())))
        return rows

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """No other process changes the folder meanwhile; what killed ones left behind is finished or cleared away.

        Raises:
            TrainerError: the disk is full; the registry is as it was.
        """
        with full_disk_told(self.path), locked(self.folder / ".registry.lock"):
            for file in (self.path, self.previous):
                for leftover in self.folder.glob(f".{file.name}.*.partial"):  # of a killed writer: the lock is ours
                    leftover.unlink(missing_ok=True)
            self._finish_releases()
            yield

    @contextmanager
    def _changed(self) -> Iterator[RegistryFile]:
        """The registry under the lock; written back when the block ends without an error."""
        with self._locked():
            registry = self._load()
            yield registry
            self._write(registry)

    def _write(self, registry: RegistryFile, before: RegistryFile | None = None) -> None:
        """Replaces the file.

        Args:
            before: the state to return to, where it is not the one in the file.
        """
        if self.path.exists():
            state = f"{before.model_dump_json(indent=1)}\n" if before is not None else self.path.read_bytes()
            write_atomic(self.previous, state)
        write_atomic(self.path, registry.model_dump_json(indent=1) + "\n")


def new_entry(
    report: ExportReport, doctor: DoctorReport, provenance: Provenance, gate: GateReport | None, folder: Path
) -> ModelEntry:
    """What a registry in `folder` says of an export.

    Raises:
        TrainerError: the doctor found it unfit.
    """
    check_name(report.name)
    if not doctor.healthy:
        raise TrainerError(f"{report.name} is not registered: the doctor found {doctor.failures()[0]}")
    files = [
        file.model_copy(update={"path": _relative(Path(file.path), folder)})
        for file in (report.plain, report.quantized)
    ]
    return ModelEntry(
        name=report.name,
        created_at=now(),
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


def _enter(registry: RegistryFile, entry: ModelEntry) -> None:
    """A model of the same name is replaced; where it was current and may not go into service now, it is withdrawn."""
    earlier = [model for model in registry.models if model.name == entry.name]
    present = {file.path for file in entry.files}
    before = dict.fromkeys(path for m in earlier for path in (*m.superseded, *(file.path for file in m.files)))
    entry.superseded = [path for path in before if path not in present]
    registry.models = [model for model in registry.models if model not in earlier] + [entry]
    registry.history.append(Event(at=now(), action="register", model=entry.name))
    if registry.current == entry.name and entry.obstacles:
        previous = _previous(registry)
        registry.history.append(
            Event(at=now(), action="withdraw", model=entry.name, previous=entry.name, note=entry.obstacles[0])
        )
        registry.current = previous


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


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


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
