"""May this model go into service? What the registry says of it, or a person's reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.config import DeployConfig
from trainer.errors import TrainerError
from trainer.export.export_records import ExportedFile
from trainer.export.gguf_file import GgufFile
from trainer.export.registry import ModelEntry, Registry


@dataclass(frozen=True)
class Candidate:
    """A file that may be deployed."""

    path: Path
    entry: ModelEntry | None = None
    """What the registry knows of it."""
    file: ExportedFile | None = None
    """The file in that entry; its digest is what has to arrive at a server."""
    forced: str = ""
    """Why it is deployed although gate or doctor did not pass; kept in the log."""


def admit(model: str | None, models: Path, *, force: str = "") -> Candidate:
    """Finds a model and looks up its verdicts.

    Args:
        model: a registered name or the path of a GGUF; None takes the registry's current model.
        models: folder of the registry; for a path, a registry beside the file comes first.
        force: reason for deploying what did not pass.

    Raises:
        TrainerError: unknown, removed, of another size than registered, or not passed and not forced.
    """
    if model is not None and (model.endswith(".gguf") or Path(model).is_file()):
        path = Path(model)
        if not path.is_file():
            raise TrainerError(f"{path}: no such file")
        registry = Registry(path.parent) if (path.parent / "registry.json").exists() else Registry(models)
        entry = registry.entry_of(path)
    else:
        registry = Registry(models)
        name = model or registry.read().current
        if name is None:
            raise TrainerError(f"{registry.path}: no model is current; name a GGUF file or a registered model")
        entry = registry.get(name)
        path = registry.folder / entry.quantized.path
    if entry is None:
        obstacles = [f"{registry.path} does not know it: no gate and no doctor vouches for it"]
    else:
        obstacles = entry.obstacles
        if entry.collected_at is not None:
            raise TrainerError(f"{path}: `models gc` removed it on {entry.collected_at}; export {entry.name} again")
    if obstacles and not force:
        raise TrainerError(
            f"{path} is not deployed: {'; '.join(obstacles)}; see `claude-trainer models list`, "
            "or give a reason with --force"
        )
    forced = force if obstacles else ""
    if entry is None:
        return Candidate(path, forced=forced)
    file = next(f for f in entry.files if (registry.folder / f.path).resolve() == path.resolve())
    if not path.exists():
        raise TrainerError(f"{path}: missing; export {entry.name} again")
    if path.stat().st_size != file.bytes:
        raise changed(path)
    return Candidate(path, entry, file, forced)


def context_window(file: GgufFile, config: DeployConfig) -> int:
    """Tokens of a conversation in service: what the config wants, at most what the file was made for."""
    return min(config.num_ctx, int(file.get("llama.context_length") or config.num_ctx))


def changed(path: Path) -> TrainerError:
    """A file that is not the one that was examined."""
    return TrainerError(f"{path}: changed since it was registered (digest differs); export it again")
