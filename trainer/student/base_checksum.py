"""Which weights a run began with: a SHA-256 over the base's files, kept in the run folder.

Hashing 16 GB takes a minute, so digests are remembered beside the tiny bases by path, size and time of change.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from trainer.errors import TrainerError
from trainer.run_folder import write_atomic
from trainer.student.base_folder import LAYOUT, base_folder
from trainer.student.base_model import cache_folder

FILE = "base.json"


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
