"""The figures of `trace_stats` for the terminal: bars for what is counted, shares for what is seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_BAR = 28
_ROWS = 8


def render_stats(figures: Mapping[str, Any]) -> Group:
    """All figures, one block each."""
    return Group(*_blocks(figures))


def goal_line(traces: int, goal: int) -> Text:
    """How far the recording has come, e.g. `traces ███████░░░░ 212 of 500`."""
    return Text.assemble(("traces  ", "bold"), (bar(traces, goal), "green"), f"  {traces} of {goal}")


def bar(value: int, whole: int) -> str:
    """A bar of fixed width that `value` fills in proportion to `whole`."""
    filled = min(_BAR, round(_BAR * value / whole)) if whole else 0
    return "█" * filled + "░" * (_BAR - filled)


def _blocks(figures: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield goal_line(figures["traces"], figures["goal"])
    tokens = figures["tokens"]
    yield Text(
        f"sessions {figures['sessions']} · tool calls {figures['calls']} · subagents {figures['subagents']} · "
        f"rewound {figures['rejected_continuations']} · tokens in {tokens['input']:,}, out {tokens['output']:,}"
    )
    yield Text(
        f"calls with reasoning {_percent(figures['calls_with_reasoning'])} · "
        f"seen by hooks and transcript {_percent(figures['reconciled'])}"
    )
    titles = {
        "kinds_of_work": "kinds of work",
        "workflow": "workflow",
        "depth": "exploration",
        "status": "status",
        "tools": "tools",
        "errors": "failures",
        "seen_by": "calls seen by",
        "reasoning": "reasoning of calls",
        "signals": "signals",
        "teacher": "teachers",
        "versions": "client versions",
        "redactions": "secrets replaced",
        "lines_skipped": "lines skipped",
    }
    for name, title in titles.items():
        if figures.get(name):
            yield Text("")
            yield Text(title, style="bold")
            yield _counts(figures[name])


def _counts(counts: Mapping[str, int]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(no_wrap=True, max_width=32)
    table.add_column(justify="right")
    table.add_column(style="cyan", no_wrap=True)
    most = max(counts.values(), default=0)
    rows = list(counts.items())
    for name, count in rows[:_ROWS]:
        table.add_row(f"  {name.replace('_', ' ')}", str(count), bar(count, most))
    if len(rows) > _ROWS:
        table.add_row(f"  … {len(rows) - _ROWS} more", str(sum(count for _, count in rows[_ROWS:])), "")
    return table


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
