"""Which pairs a blind test shows, and on which side the teacher stands.

Which pairs is decided by the seed alone, so that a test can be made again. Who stands where is decided by a secret that
only the sealed key holds: seed and traces are known to many.
"""

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


def choose_pairs(
    teachers: Mapping[str, Trace], students: Mapping[str, Trace], count: int, seed: int, secret: str
) -> list[Pair]:
    """Draws up to `count` pairs of the same trace_id, by workflow type in proportion to what is there.

    The teacher stands on side 1 in exactly half of them (of an odd number: in one more or one less), and within each
    type in half, give or take one.

    Args:
        seed: decides which pairs are drawn.
        secret: decides the sides.
    """
    draw, sides = random.Random(f"pairs:{seed}"), random.Random(f"sides:{secret}")
    strata: dict[str, list[str]] = defaultdict(list)
    for trace_id in sorted(teachers.keys() & students.keys()):
        strata[teachers[trace_id].reasoning_signals.workflow_type].append(trace_id)
    shares = proportional({name: len(ids) for name, ids in strata.items()}, count)
    pairs: list[Pair] = []
    next_side: Side = sides.choice((1, 2))
    for name in sorted(strata):
        drawn = draw.sample(strata[name], shares[name])
        dealt: list[Side] = []
        for _ in drawn:
            dealt.append(next_side)
            next_side = 2 if next_side == 1 else 1
        sides.shuffle(dealt)
        for trace_id, side in zip(drawn, dealt, strict=True):
            teacher, student = teachers[trace_id], students[trace_id]
            pairs.append(Pair(*((teacher, student) if side == 1 else (student, teacher)), side, name))
    return pairs


def choose_controls(teachers: Sequence[Trace], count: int, seed: int, secret: str) -> list[Pair]:
    """Draws up to `count` pairs of two teacher traces of the same prompt, each trace once.

    Repeats in the same project come first; where they do not suffice, repeats of a prompt in two projects (with
    different facts in the answers, but both the teacher's work).
    """
    draw, sides = random.Random(f"controls:{seed}"), random.Random(f"control sides:{secret}")
    left = sorted(teachers, key=lambda trace: trace.trace_id)
    chosen: list[Pair] = []
    for same_project in (True, False):
        groups: dict[tuple[str, str], list[Trace]] = defaultdict(list)
        for trace in left:
            groups[" ".join(trace.user_prompt.split()), project_of(trace) if same_project else ""].append(trace)
        repeats: list[tuple[Trace, Trace]] = []
        for key in sorted(groups):
            group = draw.sample(groups[key], len(groups[key]))
            repeats += zip(group[::2], group[1::2], strict=False)
        for pair in draw.sample(repeats, min(count - len(chosen), len(repeats))):
            first, second = sides.sample(pair, 2)
            chosen.append(Pair(first, second, None, first.reasoning_signals.workflow_type))
        used = {trace.trace_id for pair in chosen for trace in pair[:2]}
        left = [trace for trace in left if trace.trace_id not in used]
    return chosen


def project_of(trace: Trace) -> str:
    """The folder that the trace worked in."""
    return trace.context.project_dir or trace.context.cwd or ""


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
