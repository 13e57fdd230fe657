"""Deletes traces for good: out of the trace file, out of the recorded events, and out of later imports."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from claude_capture.errors import CaptureError
from claude_capture.ingest import FORGOTTEN_FILE, event_files
from claude_capture.trace_storage import TraceStore


def forget_traces(data_root: Path, trace_ids: set[str], sessions: Iterable[str] = ()) -> int:
    """Removes the traces, and the event files of `sessions`; the number of traces removed.

    The ids are noted first, so that an import that runs in between brings nothing back.

    Raises:
        CaptureError: a file cannot be written or removed; the traces are then all there or all gone.
    """
    file = data_root / FORGOTTEN_FILE
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, "".join(f"{trace_id}\n" for trace_id in sorted(trace_ids)).encode())
        finally:
            os.close(handle)
    except OSError as error:
        raise CaptureError(f"{file}: cannot be written ({error.strerror or error}); nothing was forgotten") from error
    removed = TraceStore.of(data_root).remove(trace_ids)
    for session in sessions:
        for events in event_files(data_root, session):
            try:
                events.unlink(missing_ok=True)
            except OSError as error:
                raise CaptureError(f"{events}: cannot be removed ({error.strerror or error})") from error
    return removed
