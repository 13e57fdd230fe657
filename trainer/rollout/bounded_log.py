"""A log of lines that does not grow for ever: full files move aside, and the oldest of them goes.

    decisions.jsonl  decisions.jsonl.1  …  decisions.jsonl.N      from the newest to the oldest lines

Several processes may append to it. Each line is one write. Where a kill cuts one off after all (a kernel may end a
write at the border of a page), the next line begins anew, so that only the one that was being written is lost.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


class BoundedLog:
    """One log.

    Args:
        limit: size in bytes at which a file moves aside.
        kept: full files that stay; at least 1.
    """

    def __init__(self, path: Path, limit: int, kept: int) -> None:
        self._path = path
        self._limit = limit
        self._kept = kept

    def append(self, line: bytes) -> None:
        """Writes one line; `line` is without its end.

        Raises:
            OSError: it cannot be written.
        """
        handle = self._open()
        try:
            if os.fstat(handle).st_size >= self._limit:
                self._rotate()
                os.close(handle)
                handle = self._open()
            fcntl.flock(handle, fcntl.LOCK_EX)
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, b"\n" * torn + line + b"\n")
        finally:
            os.close(handle)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)

    def _rotate(self) -> None:
        """Moves every file one further, unless another process has just done it."""
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if not self._path.exists() or self._path.stat().st_size < self._limit:
                return
            files = [self._path, *(_aside(self._path, number) for number in range(1, self._kept + 1))]
            for source, target in reversed(list(itertools.pairwise(files))):
                with suppress(FileNotFoundError):
                    source.replace(target)
        finally:
            os.close(folder)


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a log that are still there, oldest first."""
    aside = [file for file in path.parent.glob(f"{path.name}.*") if file.suffix[1:].isdecimal()]
    aside.sort(key=lambda file: -int(file.suffix[1:]))  # a kill while files moved may have left a gap
    for file in (*aside, path):
        with suppress(FileNotFoundError):
            yield from file.read_bytes().splitlines()


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
