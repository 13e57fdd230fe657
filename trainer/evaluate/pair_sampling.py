"""Which pairs a blind test shows, and on which side the teacher stands."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from claude_capture.claude_trace_schema import Trace

Side = Literal[1, 2]


class Pair(NamedTuple):
    """Two traces in the order in which they are shown."""

    first: Trace
    second: Trace
    teacher_side: Side | None
    """Where the teacher stands; None for a control, in which both are the teacher's."""
    workflow_type: str


def choose_pairs(teachers: Mapping[str, Trace], students: Mapping[str, Trace], count: int, seed: int) -> list[Pair]:
    """Draws up to `count` pairs of the same trace_id, by workflow type in proportion to what is there.

    Within each type the teacher stands as often on the one side as on the other, give or take one, and so it does
    over all: sides are dealt in turn, not tossed.
    """
    draw = random.Random(f"pairs:{seed}")
    strata: dict[str, list[str]] = defaultdict(list)
    for trace_id in sorted(teachers.keys() & students.keys()):
        strata[teachers[trace_id].reasoning_signals.workflow_type].append(trace_id)
    shares = proportional({name: len(ids) for name, ids in strata.items()}, count)
    pairs: list[Pair] = []
    side: Side = draw.choice((1, 2))
    for name in sorted(strata):
        for trace_id in draw.sample(strata[name], shares[name]):
            teacher, student = teachers[trace_id], students[trace_id]
            shown = (teacher, student) if side == 1 else (student, teacher)
            pairs.append(Pair(*shown, side, name))
            side = 2 if side == 1 else 1
    return pairs


def choose_controls(teachers: Sequence[Trace], count: int, seed: int) -> list[Pair]:
    """Draws up to `count` pairs of two teacher traces of the same prompt in the same project, each trace once."""
    draw = random.Random(f"controls:{seed}")
    groups: dict[tuple[str, str], list[Trace]] = defaultdict(list)
    for trace in teachers:
        project = trace.context.project_dir or trace.context.cwd or ""
        groups[" ".join(trace.user_prompt.split()), project].append(trace)
    repeats: list[Pair] = []
    for key in sorted(groups):
        group = sorted(groups[key], key=lambda trace: trace.trace_id)
        draw.shuffle(group)
        for first, second in zip(group[::2], group[1::2], strict=False):
            repeats.append(Pair(first, second, None, first.reasoning_signals.workflow_type))
    return draw.sample(repeats, min(count, len(repeats)))


def proportional(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Shares `count` among groups in proportion to their sizes (largest remainder), never more than a group has."""
    total = sum(sizes.values())
    if total <= count:
        return dict(sizes)
    exact = {name: size * count / total for name, size in sizes.items()}
    shares = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: (shares[name] - exact[name], name))
    for name in by_remainder[: count - sum(shares.values())]:
        shares[name] += 1
    return shares
