"""Large files and folders under a final name only once they are whole: written beside it, synced, renamed.

Both are their owner's alone (0600, 0700): a model may repeat what it was trained on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import TrainerError

_LEFTOVER = re.compile(r"^\.(?P<name>.+)\.(?P<process>\d+)\.(?P<kind>partial|replaced)$")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_full(where: Path, reason: str) -> TrainerError:
    """The one line for a disk that cannot hold what is to be written."""
    return TrainerError(f"{where}: no room on the disk ({reason}); nothing was changed: free some space and run again")


@contextmanager
def full_disk_told(where: Path) -> Iterator[None]:
    """Turns the system's error for a full disk into that line.

    Raises:
        TrainerError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(where, error.strerror or "full") from None
        raise


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """No other process is in such a block for this file meanwhile; the lock goes with the process that holds it.

    Args:
        file: an empty file, made where it is missing.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove(path: Path) -> None:
    """A file or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Removes what killed processes left in a folder, whatever they were writing, and puts back what they had moved."""
    for path in folder.iterdir():
        leftover = _LEFTOVER.match(path.name)
        if leftover is None or _alive(int(leftover["process"])):
            continue
        final = folder / leftover["name"]
        if leftover["kind"] == "replaced" and not final.exists():
            path.rename(final)
        else:
            remove(path)


def _beside(final: Path, kind: str) -> Path:
    return final.with_name(f".{final.name}.{os.getpid()}.{kind}")


@contextmanager
def partial_file(final: Path) -> Iterator[Path]:
    """Yields a path to write to; on success the file gets its final name, on failure it is removed.

    What killed processes left behind in the folder is removed first.

    Raises:
        TrainerError: the disk is full.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _clear(final.parent)
    partial = _beside(final, "partial")
    try:
        with full_disk_told(final):
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            yield partial
            with partial.open("rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def staging_folder(final: Path) -> Iterator[Path]:
    """Yields an empty folder beside `final`, on its file system; what is left of it at the end is removed.

    What killed processes left behind there is removed first.

    Raises:
        TrainerError: the disk is full.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _clear(final.parent)
    staging = _beside(final, "partial")
    remove(staging)  # of a dead process that had our number
    try:
        with full_disk_told(final):
            staging.mkdir(0o700)
            yield staging
    finally:
        remove(staging)


@contextmanager
def partial_folder(final: Path) -> Iterator[Path]:
    """Yields an empty folder to write to; on success it takes the place of `final`, on failure it is removed.

    A folder that is replaced is moved aside first; if the process dies between the moves, the next run puts it back.

    Raises:
        TrainerError: the disk is full.
    """
    with staging_folder(final) as partial:
        yield partial
        for path in partial.iterdir():
            with path.open("rb+") as stream:
                os.fsync(stream.fileno())
        replaced = _beside(final, "replaced")
        if final.exists():
            final.rename(replaced)
        partial.rename(final)
        remove(replaced)
