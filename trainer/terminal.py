"""What a person sees while stages run: one progress bar a stage, and a table of all of them at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from trainer.processes import is_main_process


@dataclass
class Stage:
    """One stage's line: what went in, what came out, how long it took (s)."""

    name: str
    went_in: str = ""
    came_out: str = ""
    seconds: float = 0.0
    _bar: Bar | None = field(default=None, repr=False)
    _console: Console | None = field(default=None, repr=False)

    def progress(
        self, done: float, total: float, note: str = "", below: RenderableType | None = None, line: str = ""
    ) -> None:
        """Moves the bar on a terminal.

        Args:
            note: stands behind the bar, e.g. the current loss.
            below: stands under the bar until the next call.
            line: printed where there is no terminal; nothing is if it is empty.
        """
        if self._bar is not None:
            self._bar.below = below
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, note=note)
        elif line and self._console is not None:
            self._console.print(f"{self.name}  {line}", highlight=False, markup=False, soft_wrap=True)


class Bar(Progress):
    """A progress bar that may have something under it."""

    below: RenderableType | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then what is under it."""
        yield from super().get_renderables()
        if self.below is not None:
            yield self.below


class Stages:
    """Runs stages one after the other and remembers their lines."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, quiet=not is_main_process())
        self.done: list[Stage] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """A progress bar while the stage runs (on a terminal), one line with its outcome afterwards."""
        stage, began = Stage(name, _console=self.console), time.monotonic()
        if self.console.is_terminal:
            columns = (TextColumn("[bold]{task.description:<14}"), BarColumn(24), TextColumn("{task.fields[note]}"))
            with Bar(*columns, TimeElapsedColumn(), console=self.console, transient=True) as bar:
                bar.add_task(name, total=None, note="")
                stage._bar = bar
                yield stage
            stage._bar = None
        else:
            yield stage
        stage.seconds = time.monotonic() - began
        self.done.append(stage)
        self.console.print(f"[bold]{name:<14}[/] {stage.came_out}  [dim]{stage.seconds:.0f} s[/]", highlight=False)

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time per stage."""
        return {stage.name: round(stage.seconds, 1) for stage in self.done}

    def table(self) -> Table:
        """All stages: name, what went in, what came out, seconds."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("stage", "in", "out"):
            table.add_column(heading, overflow="fold")
        table.add_column("s", justify="right")
        for stage in self.done:
            table.add_row(stage.name, stage.went_in, stage.came_out, f"{stage.seconds:.0f}")
        table.add_row("total", "", "", f"{sum(s.seconds for s in self.done):.0f}", style="bold")
        return table
