"""What the closed loop runs beside Claude Code: the demo's student, our servers, and the programs on its PATH."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainer.config import Config, RolloutConfig, load_config
from trainer.demo import sqlite3_shim
from trainer.demo.session_recorder import default_hook
from trainer.errors import TrainerError
from trainer.export.registry import Registry
from trainer.run_folder import config_toml, write_atomic

_START_SECONDS = 120.0


def plugin_folder() -> Path:
    """The folder to give Claude Code as `--plugin-dir`.

    Raises:
        TrainerError: the plugin is not there.
    """
    folder = default_hook().parents[1]
    if not (folder / ".claude-plugin" / "plugin.json").is_file():
        raise TrainerError(f"{folder} holds no plugin; run this in a checkout of the repository")
    return folder


def exported_student(demo: Path) -> tuple[Config, str, Path]:
    """Config, name and GGUF of the student of `make demo`.

    Raises:
        TrainerError: there is none.
    """
    try:
        config = load_config(demo / "config.toml")
        registry = Registry(demo / "models")
        file = registry.read()
        name = file.current or file.models[-1].name
        gguf = registry.folder / registry.get(name).quantized.path
    except (TrainerError, IndexError):
        gguf = demo / "models"
    if not gguf.is_file():
        raise TrainerError(f"{demo}: no exported student of the demo; run `make demo` first (or name it with --folder)")
    return config, name, gguf


@contextmanager
def service(arguments: Sequence[str], log: Path) -> Iterator[str]:
    """Runs a server of ours; gives its base URL.

    Raises:
        TrainerError: it did not start; its last words.
    """
    with (
        log.open("w+") as said,
        subprocess.Popen(
            [sys.executable, "-m", "trainer.cli", *arguments], stdout=subprocess.PIPE, stderr=said, text=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            name, _, url = process.stdout.readline().strip().partition("=")
            if name != "ANTHROPIC_BASE_URL":
                process.wait(_START_SECONDS)
                last = (log.read_text("utf-8").strip().splitlines() or [f"see {log}"])[-1]
                raise TrainerError(f"`claude-trainer {' '.join(arguments[:2])}` did not start: {last}")
            yield url
        finally:
            process.terminate()


def write_rollout_config(path: Path, weights: Sequence[float], gguf: Path, *, teacher: str, local: str) -> None:
    """Writes the config of a rollout whose stages are entered by hand.

    Args:
        weights: its stages, in percent.
        gguf: the student, served at the base URL `local`.
    """
    rollout = RolloutConfig(
        weights=list(weights),
        days_per_stage=0,
        min_sessions=1,
        rollback=False,  # what the student gets wrong is to be seen, not mended
        teacher_url=teacher,
        local_url=local,
        student=str(gguf),
    )
    write_atomic(path, config_toml(Config(models=str(gguf.parent), rollout=rollout)), 0o644)


def programs(folder: Path) -> str:
    """A PATH on which Claude Code finds a sqlite3 that prints as the student has seen it, and our import."""
    folder.mkdir()
    shim = folder / "sqlite3"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{sqlite3_shim.__file__}" "$@"\n', "utf-8")
    shim.chmod(0o755)
    importer = folder / "claude-capture"
    importer.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m claude_capture.cli "$@"\n', "utf-8")
    importer.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"
