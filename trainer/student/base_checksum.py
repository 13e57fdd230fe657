"""Which weights a run began with: a SHA-256 over the base's files, kept in the run folder.

Hashing 16 GB takes a minute, so digests are remembered beside the tiny bases by path, size and time of change.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from trainer.errors import TrainerError
from trainer.run_folder import write_atomic
from trainer.student.base_model import LAYOUT, cache_folder

FILE = "base.json"
PATTERNS = ("config.json", "tokenizer.json", "tokenizer_config.json", "*.safetensors", "*.safetensors.index.json")


def base_folder(base: str) -> Path:
    """The folder of a base: itself, or what the hub's cache holds of it after a download.

    Raises:
        TrainerError: the cache does not hold it, and it cannot be fetched.
    """
    if Path(base).is_dir():
        return Path(base)
    try:
        cached = Path(snapshot_download(base, allow_patterns=list(PATTERNS), local_files_only=True))
        if not lacking_files(cached):  # it may hold the tokenizer alone, or some of the shards
            return cached
    except LocalEntryNotFoundError:
        pass
    try:
        fetched = Path(snapshot_download(base, allow_patterns=list(PATTERNS)))
    except (OSError, ValueError) as error:
        first = str(error).split("\n")[0]
        raise TrainerError(
            f"{base}: cannot be fetched ({first}); give base_model a local folder with {LAYOUT}"
        ) from None
    if lacking := lacking_files(fetched):  # the hub did not answer, and its cache was taken as it is
        raise TrainerError(
            f"{base}: the hub's cache lacks {', '.join(lacking)}; connect this machine, or give base_model a local "
            f"folder with {LAYOUT}"
        )
    return fetched


def lacking_files(folder: Path) -> list[str]:
    """Which files of a base a folder lacks; shards are looked up in their index."""
    lacking = [name for name in ("config.json", "tokenizer.json") if not (folder / name).exists()]
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        return lacking + [name for name in shards if not (folder / name).exists()]
    return lacking + ([] if list(folder.glob("*.safetensors")) else ["model*.safetensors"])


def base_checksum(base: str) -> str:
    """SHA-256 over name and digest of every weights file, in order of name; hex.

    Raises:
        TrainerError: there are no safetensors.
    """
    files = sorted(base_folder(base).glob("*.safetensors"))
    if not files:
        raise TrainerError(f"{base}: no *.safetensors there; a base folder holds {LAYOUT}")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\x00{_digest(file)}\x00".encode())
    return digest.hexdigest()


def _digest(file: Path) -> str:
    place, facts = file.resolve(), file.stat()
    notes = cache_folder() / "checksums" / f"{hashlib.sha256(str(place).encode()).hexdigest()[:24]}.json"
    known = {"path": str(place), "size": facts.st_size, "changed": facts.st_mtime_ns}
    try:
        noted = json.loads(notes.read_text("utf-8"))
        if {key: noted[key] for key in known} == known:
            return str(noted["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    with place.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    write_atomic(notes, json.dumps(known | {"sha256": found}) + "\n")
    return found


def claim_base(run: Path, base: str) -> str:
    """Notes the base's checksum in a run folder, or compares it with the one that is noted there; returns it.

    Raises:
        TrainerError: the run began with other weights.
    """
    found, file = base_checksum(base), run / FILE
    if file.exists():
        noted = json.loads(file.read_text("utf-8"))
        if noted["sha256"] != found:
            raise TrainerError(
                f"{run}: this run began on a base with checksum {noted['sha256'][:12]} ({noted['base']}), and "
                f"{base} has {found[:12]}; bring that base back, or delete the folder to start over"
            )
    else:
        write_atomic(file, json.dumps({"base": base, "sha256": found}, indent=1) + "\n", 0o644)
    return found
