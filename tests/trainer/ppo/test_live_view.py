"""What a person sees while PPO runs."""

from __future__ import annotations

import io
import itertools
from typing import Any

from rich.console import Console

from trainer.ppo.live_view import live_view
from trainer.terminal import Stages

ROW: dict[str, Any] = {
    "reward": 0.4321,
    "components": {"constraints": None, "tool_use": 0.875, "self_correction": None, "outcome": 0.25, "depth": 1.0},
    "kl": 1.234,
    "written_tokens": 124.4,
    "malformed": 0.0625,
    "tokens_per_second": 1167.6,
}
ODD: dict[str, Any] = {
    "dropped": {"reward": 2, "environment": 1},
    "skipped_minibatches": 4,
    "reliable": False,
    "runaway": {"reason": "KL 41.0 nats per episode, limit 20 (ppo.runaway_kl)", "returned_to": 10},
}


def shown(terminal: bool, *updates: dict[str, Any]) -> str:
    """What is on the screen after these updates, of 20, each of which took a minute."""
    out = io.StringIO()
    stages = Stages(Console(file=out, force_terminal=terminal, width=150, color_system=None))
    clock = map(float, itertools.count(0, 60))
    with stages.stage("ppo") as stage:
        show = live_view(stage, lambda: next(clock))
        for number, metrics in enumerate(updates, 1):
            show(number, 20, metrics)
        if stage._bar is not None:
            stage._bar.refresh()
    return out.getvalue()


def test_without_a_terminal_each_update_is_one_line() -> None:
    lines = shown(False, ROW, {**ROW, "validation": {"reward": 0.5}}, ODD).splitlines()
    assert lines[0] == (
        "ppo  1/20  reward 0.432 (tools 0.88, outcome 0.25, depth 1.00)  KL 1.23  124 tokens  6% malformed  "
        "1168 tokens/s  19:00 left"
    )
    assert lines[1].endswith("1168 tokens/s  validation 0.500  18:00 left")
    assert lines[2] == (
        "ppo  3/20  reward –  KL –  – tokens  – malformed  – tokens/s  "
        "KL 41.0 nats per episode, limit 20 (ppo.runaway_kl): back to update 10  3 episodes dropped  "
        "4 minibatches skipped  over 30 % of the calls patched  17:00 left"
    )
    assert len(lines) == 4  # and the stage's own


def test_terminal_shows_a_bar_and_a_table_of_the_newest_updates() -> None:
    text = shown(True, *[{**ROW, "reward": number / 100} for number in range(12)])
    last = text[text.rindex("update ") :]
    for title in ("reward", "constraints", "tools", "correction", "outcome", "depth", "KL", "malformed", "tokens/s"):
        assert title in last
    assert "0.110" in last
    assert "0.040" in last
    assert "0.030" not in last  # the eight newest
    assert "reward 0.110, 8:00 left" in text
