"""When has PPO gone astray? Named limits, and what happens when one is exceeded.

    kl         nats per episode from the reference                              > runaway_kl
    length     written tokens per episode, over those at the start              > runaway_length
    malformed  share of episodes with a malformed call, less that at the start  > runaway_malformed
    gap        (reward - reward at the start) / 2 - (outcome check - outcome check at the start)  > runaway_gap
    nothing    no episode could be scored, or no gradient step was a number

An update measures the student that it starts from. `runaway_patience` updates in a row above the same limit send PPO
back to the best student so far, with half the learning rate; after `runaway_returns` such returns the next one ends
the run. One update alone proves little (16 episodes are noisy), and waiting longer only trains the wrong way.

The outcome check (outcome_check.py) is no part of the reward: where the reward rises and the outcome does not, the
student has learned to please the reward. "At the start" is the mean over the updates in which the policy did not move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trainer.config import PpoConfig

AT_START = ("written_tokens", "malformed", "reward", "outcome_check")


@dataclass(frozen=True)
class Watch:
    """What the rule remembers from update to update."""

    start: dict[str, float] = field(default_factory=dict)
    """Means of `AT_START`, and `updates`: how many they were taken over."""
    streaks: dict[str, int] = field(default_factory=dict)
    """Updates in a row above each limit that is exceeded now."""
    returns: int = 0
    stopped_because: str = ""


def watch_update(watch: Watch, metrics: Mapping[str, Any], config: PpoConfig, update: int) -> tuple[Watch, str]:
    """Looks at one update.

    Args:
        metrics: the update's metric line; a figure may be missing.
        update: its number, from 1.

    Returns:
        What to remember, and why PPO must go back to the best student (empty: it need not).
    """
    if update <= max(1, config.value_warmup):
        watch = replace(watch, start=_with(watch.start, metrics))
    found = _exceeded(metrics, watch.start, config)
    streaks = {name: watch.streaks.get(name, 0) + 1 for name in found}
    worst = next((name for name in found if streaks[name] >= config.runaway_patience), None)
    if worst is None:
        return replace(watch, streaks=streaks), ""
    reason = f"{found[worst]}, {streaks[worst]} updates in a row"
    if watch.returns < config.runaway_returns:
        return replace(watch, streaks={}, returns=watch.returns + 1), reason
    stopped = f"update {update}: {reason}; ended after {watch.returns} returns to the best student"
    return replace(watch, streaks={}, stopped_because=stopped), reason


def _with(start: Mapping[str, float], metrics: Mapping[str, Any]) -> dict[str, float]:
    """Running means, this update included."""
    if any(metrics.get(name) is None for name in AT_START[:-1]):
        return dict(start)
    count = start.get("updates", 0.0)
    means = {
        name: (start.get(name, 0.0) * count + metrics[name]) / (count + 1)
        for name in AT_START
        if metrics.get(name) is not None
    }
    return {**start, **means, "updates": count + 1}


def _exceeded(metrics: Mapping[str, Any], start: Mapping[str, float], config: PpoConfig) -> dict[str, str]:
    """Every limit that is exceeded, in words."""
    found: dict[str, str] = {}

    def check(name: str, value: float | None, limit: float, words: str) -> None:
        if value is not None and not value <= limit:
            key = f"ppo.runaway_{name}"
            found[name] = f"{words.format(value)}, limit {limit:g} ({key})"

    def grown(name: str) -> float | None:
        value = metrics.get(name)
        return value - start[name] if value is not None and name in start else None

    if metrics.get("learned") is False:
        found["nothing"] = "nothing could be learned"
    check("kl", metrics.get("kl"), config.runaway_kl, "KL {:.1f} nats per episode")
    if start.get("written_tokens") and (length := metrics.get("written_tokens")) is not None:
        grown_by = length / start["written_tokens"]
        check("length", grown_by, config.runaway_length, "episodes {:.1f} times as long as at first")
    check("malformed", grown("malformed"), config.runaway_malformed, "{:+.0%} malformed episodes")
    reward, outcome = grown("reward"), grown("outcome_check")
    if reward is not None and outcome is not None:
        check("gap", reward / 2 - outcome, config.runaway_gap, "reward {:.2f} ahead of the outcome checks")
    return found
