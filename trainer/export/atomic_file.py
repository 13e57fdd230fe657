"""Large files under a final name only once they are whole: written beside it, synced, renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _alive(process: str) -> bool:
    if not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def partial_file(final: Path) -> Iterator[Path]:
    """Yields a path to write to; on success the file gets its final name, on failure it is removed.

    What a killed process left behind for the same name is removed first.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    for leftover in final.parent.glob(f".{final.name}.*.partial"):
        if not _alive(leftover.name.removesuffix(".partial").rpartition(".")[2]):
            leftover.unlink(missing_ok=True)
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)
