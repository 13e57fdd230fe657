"""What capture is doing: where the hooks stand, how much has come in, and whether it is paused."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from claude_capture.data_root import event_folders
from claude_capture.errors import CaptureError
from claude_capture.installer import SCOPES, settings_path
from claude_capture.settings_file import PROJECT_VARIABLE, Settings

PAUSE_FILE = "paused"


@dataclass(frozen=True)
class Installation:
    """Our hooks in one settings file."""

    scope: str
    settings: str
    events: list[str]
    hook: str
    data: str | None


@dataclass(frozen=True)
class CaptureStatus:
    """Figures of one data root."""

    data_root: str
    paused: bool
    installations: list[Installation]
    sessions: int
    event_bytes: int
    trace_bytes: int
    last_event: str | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return asdict(self)


def installations(project: Path) -> list[Installation]:
    """Where our hooks are registered: user scope, and project and local scope of `project`.

    Raises:
        CaptureError: a settings file cannot be read.
    """
    found = []
    for scope in SCOPES:
        path = settings_path(scope, project)
        registrations = Settings.read(path).registrations()
        if registrations:
            data = registrations[0].data
            resolved = data.replace(PROJECT_VARIABLE, str(project)) if data else None
            events = [registration.event for registration in registrations]
            found.append(Installation(scope, str(path), events, registrations[0].hook, resolved))
    return found


def capture_status(data_root: Path, project: Path) -> CaptureStatus:
    """Reads sizes and times only, no contents.

    Raises:
        CaptureError: a settings file or the data root cannot be read.
    """
    try:
        events = [file.stat() for folder in event_folders(data_root) for file in folder.glob("*.jsonl")]
        traces = [file.stat() for file in data_root.glob("traces/*.jsonl")]
    except OSError as error:
        raise CaptureError(f"cannot read the data root {data_root}: {error}") from error
    newest = max((event.st_mtime for event in events), default=None)
    return CaptureStatus(
        data_root=str(data_root),
        paused=is_paused(data_root),
        installations=installations(project),
        sessions=len(events),
        event_bytes=sum(event.st_size for event in events),
        trace_bytes=sum(trace.st_size for trace in traces),
        last_event=None if newest is None else datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds"),
    )


def is_paused(data_root: Path) -> bool:
    """True where hooks that write to this root do nothing."""
    return (data_root / PAUSE_FILE).exists()


def pause(data_root: Path) -> bool:
    """Makes every hook that writes to this root do nothing; False if it was paused already. Raises CaptureError."""
    if is_paused(data_root):
        return False
    try:
        data_root.mkdir(parents=True, exist_ok=True, mode=0o700)
        (data_root / PAUSE_FILE).touch(mode=0o600)
    except OSError as error:
        raise CaptureError(f"cannot pause: {error}; choose the folder with --data") from error
    return True


def resume(data_root: Path) -> bool:
    """Ends a pause; False if there was none. Raises CaptureError."""
    if not is_paused(data_root):
        return False
    try:
        (data_root / PAUSE_FILE).unlink()
    except OSError as error:
        raise CaptureError(f"cannot resume: {error}; remove the file by hand") from error
    return True
