"""What an alignment figure is worth: its prompt-blind floor and its teacher-against-teacher ceiling.

The floor is what the best *constant* policy earns, one that makes the calls of a single trace whatever the prompt
is: of the given references, the one that aligns best with all others, judged on those others. The ceiling is how
well two teacher runs of the same prompt align, where prompts were run more than once.
"""

from __future__ import annotations

from collections.abc import Sequence

from claude_capture.claude_trace_schema import Trace
from trainer.reward.behaviour import Behaviour
from trainer.reward.tool_alignment import Alignment

CANDIDATES = 40
"""Constant policies tried for the floor, spread evenly over the references."""
JUDGES = 200
"""References that a constant policy is judged on."""


def _spread(items: list[Behaviour], count: int) -> list[Behaviour]:
    if len(items) <= count:
        return items
    return [items[index * len(items) // count] for index in range(count)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def blind_floor(references: Sequence[Trace]) -> float | None:
    """Mean tool-use similarity, in [0, 1], of the best constant policy; None for fewer than two prompts with calls."""
    views = [Behaviour(trace) for trace in references if trace.tool_calls]
    if len(views) < 2:
        return None
    judges = _spread(views, JUDGES)
    return max(
        _mean([Alignment(one, other).similarity for other in judges if other is not one])
        for one in _spread(views, CANDIDATES)
    )


def teacher_ceiling(groups: Sequence[Sequence[Trace]]) -> float | None:
    """Mean tool-use similarity, in [0, 1], of each teacher run against the best of the other runs of its prompt.

    None where no prompt was run twice.
    """
    best: list[float] = []
    for group in groups:
        views = [Behaviour(trace) for trace in group]
        if len(views) > 1:
            best += [max(Alignment(one, other).similarity for other in views if other is not one) for one in views]
    return _mean(best) if best else None
