"""PPO while it runs: a table that moves on a terminal, one line per update elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from rich.table import Table

Metrics = Mapping[str, Any]
SHOWN = 8
"""Newest updates in the table."""
TITLES = {
    "constraints": "constraints",
    "tool_use": "tools",
    "self_correction": "correction",
    "outcome": "outcome",
    "depth": "depth",
}


class Screen(Protocol):
    """Where a stage shows how far it is; see trainer/terminal.py."""

    def progress(self, done: float, total: float, note: str = "", below: Any = None, line: str = "") -> None: ...


def live_view(screen: Screen, clock: Callable[[], float] = time.monotonic) -> Callable[[int, int, Metrics], None]:
    """The callback for `train_ppo`: called with (update, updates, metrics) after each update.

    Args:
        clock: seconds that only ever grow.
    """
    rows: list[tuple[int, Metrics]] = []
    times = [clock()]

    def show(update: int, updates: int, metrics: Metrics) -> None:
        rows.append((update, metrics))
        times.append(clock())
        recent = times[-SHOWN:]
        left = (updates - update) * (recent[-1] - recent[0]) / (len(recent) - 1)
        note = f"reward {_number(metrics.get('reward'), '.3f')}, {_duration(left)} left"
        line = f"{update}/{updates}  {update_line(metrics)}  {_duration(left)} left"
        screen.progress(update, updates, note, below=update_table(rows[-SHOWN:]), line=line)

    return show


def update_line(metrics: Metrics) -> str:
    """One update in words and figures."""
    parts = ", ".join(
        f"{TITLES.get(name, name)} {value:.2f}"
        for name, value in (metrics.get("components") or {}).items()
        if value is not None
    )
    words = [f"reward {_number(metrics.get('reward'), '.3f')}" + (f" ({parts})" if parts else "")]
    words += [f"KL {_number(metrics.get('kl'), '.2f')}", f"{_number(metrics.get('written_tokens'), '.0f')} tokens"]
    words += [f"{_number(metrics.get('malformed'), '.0%')} malformed"]
    words += [f"{_number(metrics.get('tokens_per_second'), '.0f')} tokens/s"]
    return "  ".join(words + _events(metrics))


def update_table(rows: Sequence[tuple[int, Metrics]]) -> Table:
    """The newest updates, the last one at the bottom."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("update", "reward", *TITLES.values(), "KL", "tokens", "malformed", "tokens/s"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for update, metrics in rows:
        components = metrics.get("components") or {}
        table.add_row(
            str(update),
            _number(metrics.get("reward"), ".3f"),
            *(_number(components.get(name), ".2f") for name in TITLES),
            _number(metrics.get("kl"), ".2f"),
            _number(metrics.get("written_tokens"), ".0f"),
            _number(metrics.get("malformed"), ".0%"),
            _number(metrics.get("tokens_per_second"), ".0f"),
            "; ".join(_events(metrics)),
        )
    return table


def _events(metrics: Metrics) -> list[str]:
    """What was out of the ordinary, and the score on the validation prompts."""
    events = []
    if validation := metrics.get("validation"):
        events.append(f"validation {validation['reward']:.3f}")
    if runaway := metrics.get("runaway"):
        events.append(f"{runaway['reason']}: back to update {runaway['returned_to']}")
    if dropped := metrics.get("dropped"):
        events.append(f"{sum(dropped.values())} episodes dropped")
    if skipped := metrics.get("skipped_minibatches"):
        events.append(f"{skipped} minibatches skipped")
    if metrics.get("reliable") is False:
        events.append("over 30 % of the calls patched")
    return events


def _number(value: float | None, style: str) -> str:
    return "–" if value is None else format(value, style)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
