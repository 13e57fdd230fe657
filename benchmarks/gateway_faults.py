"""Sessions through the real gateway while its upstreams fail on purpose: who still gets an answer?

    python benchmarks/gateway_faults.py [--sessions N] [--share S] [--json]

Three tables from the kit of the tests (tests/trainer/rollout/fault_kit.py), over loopback:
- each fault in a fifth of the local server's replies: the teacher can answer, no session may fail;
- each fault in a fifth of the teacher's replies to its own sessions: nobody else can answer, each failed session has to
  be named by the gateway;
- both at once: only sessions that the gateway names may fail.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "trainer" / "rollout"))

from fault_kit import FAULTS, TEACHER_FAULTS, Result, Side, run_kit

WAYS: dict[str, tuple[Side, ...]] = {
    "local server": ("local",),
    "teacher": ("teacher",),
    "both": ("local", "teacher"),
}


def figures(result: Result) -> dict[str, Any]:
    """What is shown of a run."""
    return {
        "fault": result.fault,
        "sessions": result.sessions,
        "injected": dict(result.injected),
        "rescued": dict(result.rescued),
        "failed": len(result.failed),
        "named": dict(Counter(result.named[name] for name in result.failed if name in result.named)),
        "unnamed": len(result.failed - result.named.keys()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.2, help="probability of the fault at each reply")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for name, at in WAYS.items():
        if not options.json:
            print(f"\nfaults of the {name}" if name != "both" else "\nfaults of both at once", flush=True)
        for fault in FAULTS if at == ("local",) else TEACHER_FAULTS:
            with tempfile.TemporaryDirectory() as folder:
                run = run_kit(Path(folder), fault, at, sessions=options.sessions, share=options.share)
                line = figures(asyncio.run(run))
            found.setdefault(name, []).append(line)
            if not options.json:
                reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(line["rescued"].items()))
                named = ", ".join(f"{why} {n}" for why, n in sorted(line["named"].items()))
                met = sum(line["injected"].values())
                print(
                    f"  {fault:<17} met {met:>3}, sessions failed {line['failed']:>3} of {line['sessions']}"
                    f"{'; rescued by the teacher: ' + reasons if reasons else ''}"
                    f"{'; nobody could answer: ' + named if named else ''}"
                    f"{'; NOT NAMED: ' + str(line['unnamed']) if line['unnamed'] else ''}",
                    flush=True,
                )
    lost = sum(line["failed"] for line in found["local server"])
    unnamed = sum(line["unnamed"] for lines in found.values() for line in lines)
    if options.json:
        print(json.dumps(found))
    else:
        verdict = "PASS" if not lost and not unnamed else "MISS"
        print(f"\nfailed where the teacher could answer: {lost}; failed and not named: {unnamed} {verdict}")


if __name__ == "__main__":
    main()
