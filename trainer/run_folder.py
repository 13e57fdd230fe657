"""A run folder: the resolved config, the metrics, the versions and the outputs of one stage's run.

    runs/<stage>-<id>/config.toml  metrics.jsonl  versions.json  result.json  …

`result.json` is written last and atomically: a folder without it was interrupted and can be resumed. Of several
processes the main one writes, and the others read.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from trainer.processes import is_main_process

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers", "gguf", "llama_cpp_python", "numpy")


def write_atomic(path: Path, content: bytes | str, mode: int = 0o600) -> None:
    """Writes, syncs and renames, so that `path` holds the old bytes or the new ones, never a part of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def content_hash(*values: Any) -> str:
    """The first 12 hex digits of a SHA-256 over models, plain values and the bytes of files (given as Path)."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, Path):
            with value.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        else:
            plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
            digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
        digest.update(b"\x00")
    return digest.hexdigest()[:12]


def _toml(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Plain TOML of nested dicts, lists of dicts and scalars; None is left out, as TOML has no null."""
    scalars = {k: v for k, v in values.items() if v is not None and not _is_table(v)}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in scalars.items()]
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            lines += ["", f"[{name}]", *_toml(value, f"{name}.")]
        elif _is_table(value):
            for item in value:
                lines += ["", f"[[{name}]]", *_toml(item, f"{name}.")]
    return lines


def config_toml(config: BaseModel) -> str:
    """A config as TOML that `load_config` reads back as the same values."""
    return "\n".join(_toml(config.model_dump(mode="json"))) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


class RunFolder:
    """Opens `root/name`, creating it if needed; an existing folder is continued, not emptied."""

    def __init__(self, root: Path | str, name: str, config: BaseModel) -> None:
        self.path = Path(root) / name
        self.path.mkdir(parents=True, exist_ok=True)
        self._config = config
        if self.result is None:
            self._describe()

    def _describe(self) -> None:
        """Writes what the run is made with; what made a finished one is not overwritten by those who read it."""
        if not is_main_process():
            return
        write_atomic(self.path / "config.toml", config_toml(self._config), 0o644)
        versions = {"python": platform.python_version()}
        for package in PACKAGES:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        write_atomic(self.path / "versions.json", json.dumps(versions, indent=1) + "\n", 0o644)

    def log(self, **metrics: Any) -> None:
        """Appends one line to metrics.jsonl, stamped with `time` (s since the epoch)."""
        if not is_main_process():
            return
        line = json.dumps({"time": round(time.time(), 3), **metrics}) + "\n"
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line)

    def forget_after(self, name: str, last: int) -> None:
        """Drops metric lines whose `name` is above `last`: a run that goes on from there will write them again."""
        if not is_main_process():
            return
        kept = [row for row in self.metrics() if row.get(name, 0) <= last]
        write_atomic(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept), 0o644)

    def metrics(self) -> list[dict[str, Any]]:
        """All metric lines; a cut last line (a killed run) is skipped."""
        file = self.path / "metrics.jsonl"
        rows: list[dict[str, Any]] = []
        for line in file.read_text("utf-8").splitlines() if file.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows

    @property
    def result(self) -> dict[str, Any] | None:
        """What `finish` stored, or None for a run that has not ended."""
        file = self.path / "result.json"
        return json.loads(file.read_text("utf-8")) if file.exists() else None

    def output(self, name: str) -> Path:
        """Folder or file in this folder that the result names, e.g. `adapter`.

        It is stored relative to this folder, so that the folder can be moved; old results named it from the working
        directory, and its last part lies here all the same.

        Raises:
            KeyError: the run has not ended, or its result does not name it.
        """
        return self.path / Path((self.result or {})[name]).name

    def finish(self, **result: Any) -> None:
        """Marks the run as ended."""
        if not is_main_process():
            return
        self._describe()
        write_atomic(self.path / "result.json", json.dumps(result, indent=1) + "\n", 0o644)
