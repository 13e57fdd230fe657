"""How soon a student that fails is rolled back, and how often one that does not fail is: by the real controller.

    python benchmarks/rollout_rollback.py [--simulations N] [--horizon N] [--json]

Each simulation is a rollout of its own, with its state in SQLite: stage 5 %, request after request through
`Controller.observe`, as the gateway calls it, until the controller has left the stage or the horizon is reached. The
horizon is what a stage is taken to see in its week: 2,000 requests of the student's sessions (40 sessions of 50).

Beside it stands what Wald's approximation expects of one run of the test, which ends at the lower bound where ours
starts again. `late` is a student that fails in 1 % of 1,000 requests and in 10 % after that; its figure counts from
there. `clustered` fails in 1 % of requests, three in a row at a time: of those in one session only the first counts.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.config import Config, RolloutConfig
from trainer.rollout.controller import Controller, open_rollout
from trainer.rollout.rollout_state import AnsweredRequest
from trainer.rollout.sequential_test import ERROR, ROLL_BACK

LATE = 1000
"""Requests before the late student becomes bad."""


def steady(share: float, draw: random.Random) -> Iterator[bool]:
    """Failures that have nothing to do with each other."""
    while True:
        yield draw.random() < share


def late(draw: random.Random) -> Iterator[bool]:
    """Good, then bad."""
    for _ in range(LATE):
        yield draw.random() < 0.01
    yield from steady(0.10, draw)


def clustered(draw: random.Random) -> Iterator[bool]:
    """1 % failures, three in a row at a time."""
    while True:
        bad = draw.random() < 0.01 / (3 - 2 * 0.01)
        yield from [True] * 3 if bad else [False]


def requests_to_rollback(folder: Path, failures: Iterator[bool], horizon: int) -> int | None:
    """Plays one rollout; None where the student is still in service at the horizon."""
    config = Config(rollout=RolloutConfig())
    state = open_rollout(folder, config.rollout)
    controller = Controller(state, config)
    visit = controller.advance(who="benchmark", force="simulation")
    found = None
    for number in range(1, horizon + 1):
        by = ("teacher", "unknown_tool") if next(failures) else ("student", "")
        controller.observe(AnsweredRequest(visit.id, f"s{number // 50}", "student", *by))  # type: ignore[arg-type]
        if state.current().weight == 0:
            found = number
            break
    state.close()
    return found


def wald(share: float) -> float | None:
    """Expected requests of one run of the test at a true share of failures; known at p0 and p1."""
    good, bad = RolloutConfig().good_failures, RolloutConfig().max_failures
    if share not in (good, bad):
        return None
    drift = share * math.log(bad / good) + (1 - share) * math.log((1 - bad) / (1 - good))
    rolled_back = ERROR if share == good else 1 - ERROR
    return (2 * rolled_back - 1) * ROLL_BACK / drift


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--horizon", type=int, default=2000, help="requests of the student's sessions in a stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    students = {
        "1 %": lambda draw: steady(0.01, draw),
        "2 %": lambda draw: steady(0.02, draw),
        "5 %": lambda draw: steady(0.05, draw),
        "10 %": lambda draw: steady(0.10, draw),
        "late": late,
        "clustered": clustered,
    }
    rows: dict[str, dict[str, Any]] = {}
    if not options.json:
        print(f"{options.simulations} rollouts each, {options.horizon} requests at most\n")
        print(f"{'fails in':<10}{'rolled back':>12}{'median':>9}{'90 %':>8}{'Wald':>8}   requests to the rollback")
    for name, student in students.items():
        took: list[float] = []
        for number in range(options.simulations):
            with tempfile.TemporaryDirectory() as folder:
                failures = student(random.Random(f"{options.seed} {name} {number}"))
                end = options.horizon + LATE if name == "late" else options.horizon
                found = requests_to_rollback(Path(folder), failures, end)
            took.append(math.inf if found is None else found - (LATE if name == "late" else 0))
        row = {
            "rolled_back": sum(map(math.isfinite, took)) / len(took),
            "median": _finite(statistics.median(took)),
            "p90": _finite(sorted(took)[math.ceil(0.9 * len(took)) - 1]),
            "wald": wald(float(name.split()[0]) / 100) if name[0].isdigit() else None,
        }
        rows[name] = row
        if not options.json:
            numbers = [f"{row[key]:,.0f}" if row[key] is not None else "–" for key in ("median", "p90", "wald")]
            print(f"{name:<10}{row['rolled_back']:>11.1%} {numbers[0]:>9}{numbers[1]:>8}{numbers[2]:>8}", flush=True)
    fast = rows["5 %"]["median"] is not None and rows["5 %"]["median"] < 200
    calm = 1 - rows["1 %"]["rolled_back"] >= 0.95
    if options.json:
        print(json.dumps({"horizon": options.horizon, "simulations": options.simulations, "students": rows}))
    else:
        print(f"\n5 %: rolled back in a median of fewer than 200 requests {'PASS' if fast else 'MISS'}")
        print(f"1 %: still in service in at least 95 % of the rollouts {'PASS' if calm else 'MISS'}")
    sys.exit(0 if fast and calm else 1)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    main()
