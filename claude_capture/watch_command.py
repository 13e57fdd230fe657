"""`claude-capture watch`: imports whenever a session file or an event file changes, and shows how it goes."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Group

    from claude_capture.import_report import ImportReport

_DEBOUNCE = 1.0
"""Seconds of quiet before an import; Claude Code writes a record at a time."""
_RATE_WINDOW = 300.0


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Data root; default: see `claude-capture status`.")
def watch(paths: tuple[Path, ...], data: Path | None) -> None:
    """Watch session files (default: Claude Code's own folder) and hook events; Ctrl-C ends it."""
    from claude_capture.data_root import resolve_data_root
    from claude_capture.session_sources import projects_folder

    root = resolve_data_root(data)
    events = root / "events"
    events.mkdir(mode=0o700, parents=True, exist_ok=True)
    sources = list(paths) or [projects_folder()]
    changed = threading.Event()
    observer = _observe([*sources, events], changed)
    view = _View(root)
    try:
        _loop(list(paths) or None, root, changed, view)
    except KeyboardInterrupt:
        click.echo("watch ended", err=True)
    finally:
        observer.stop()
        observer.join()


def _observe(folders: list[Path], changed: threading.Event) -> Any:
    """Starts watching the folders that exist; any change of a *.jsonl file sets `changed`."""
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers import Observer

    class Handler(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            if event.event_type in ("created", "modified", "moved") and str(event.src_path).endswith(".jsonl"):
                changed.set()

    observer = Observer()
    for folder in folders:
        if folder.is_dir():
            observer.schedule(Handler(), str(folder), recursive=True)
        elif folder.is_file():
            observer.schedule(Handler(), str(folder.parent))
    observer.start()
    return observer


def _loop(paths: list[Path] | None, root: Path, changed: threading.Event, view: _View) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    view.take(*_import(paths, root))
    if not console.is_terminal:
        click.echo(view.line())
        while True:
            _wait(changed)
            view.take(*_import(paths, root))
            click.echo(view.line())
    with Live(view.panel(), console=console, refresh_per_second=2) as live:
        while True:
            if changed.wait(1.0):
                _wait(changed)
                view.take(*_import(paths, root))
            live.update(view.panel())


def _wait(changed: threading.Event) -> None:
    """Returns after a change, once nothing has changed for a moment."""
    while not changed.wait(1.0):
        pass
    while changed.is_set():
        changed.clear()
        time.sleep(_DEBOUNCE)


def _import(paths: list[Path] | None, root: Path) -> tuple[ImportReport | None, str | None]:
    from claude_capture.errors import CaptureError
    from claude_capture.ingest import import_sessions

    try:
        return import_sessions(paths, root), None
    except (CaptureError, OSError) as error:
        return None, str(error)


class _View:
    """What the watcher has seen so far."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._error: str | None = None
        self._report: ImportReport | None = None
        self._figures: dict[str, Any] | None = None
        self._calls: deque[tuple[float, int]] = deque()

    def take(self, report: ImportReport | None, error: str | None) -> None:
        """Adds the outcome of an import."""
        from claude_capture.trace_stats import summarise
        from claude_capture.trace_storage import TraceStore

        self._error = error
        self._report = report or self._report
        if self._figures is None or (report is not None and (report.traces.new or report.traces.updated)):
            self._figures = summarise(TraceStore.of(self._root).iterate())
            self._calls.append((time.monotonic(), self._figures["calls"]))

    def calls_per_minute(self) -> float:
        """Tool calls that came in per minute over the last five minutes."""
        now = time.monotonic()
        while len(self._calls) > 1 and now - self._calls[1][0] > _RATE_WINDOW:
            self._calls.popleft()
        if len(self._calls) < 2:
            return 0.0
        (start, before), (_, after) = self._calls[0], self._calls[-1]
        return (after - before) / max(now - start, 1.0) * 60

    def line(self) -> str:
        """One line, for a log."""
        figures = self._figures or {"traces": 0, "calls": 0, "sessions": 0}
        traces = self._report.traces if self._report is not None else None
        news = f" (+{traces.new} new, {traces.updated} updated)" if traces is not None else ""
        failed = f"; last error: {self._error}" if self._error else ""
        return f"{figures['traces']} traces{news}, {figures['calls']} calls, {figures['sessions']} sessions{failed}"

    def panel(self) -> Group:
        """The live view."""
        from rich.console import Group
        from rich.text import Text

        from claude_capture.stats_view import bar, goal_line

        figures = self._figures or {}
        traces, goal = figures.get("traces", 0), figures.get("goal", 0)
        work = figures.get("kinds_of_work", {})
        most = max(work.values(), default=0)
        seen = figures.get("seen_by", {})
        lines = [
            goal_line(traces, goal),
            Text(
                f"{figures.get('sessions', 0)} sessions · {figures.get('calls', 0)} calls · "
                f"{self.calls_per_minute():.1f} calls/min"
            ),
            *(Text(f"  {kind:<18}{bar(count, most)}  {count}") for kind, count in work.items()),
            Text(
                " · ".join(f"{seen.get(name, 0)} seen by {name}" for name in ("both", "hook", "transcript")),
                style="dim",
            ),
        ]
        if self._error:
            lines.append(Text(f"✗ last error: {self._error}", style="red"))
        lines.append(Text("Ctrl-C ends it", style="dim"))
        return Group(*lines)
