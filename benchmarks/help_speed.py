"""How long `--help` of both command lines takes, beside a Python that does nothing and one that imports click.

    python benchmarks/help_speed.py [--repeats 10] [--json]

Medians of wall and of CPU seconds, the commands taking turns so that a busy moment hits all of them. Targets, in wall
seconds on an idle machine: `claude-capture --help` under 0.3, `claude-trainer --help` under 0.5. On a busy one the CPU
seconds say more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import click'": [sys.executable, "-c", "import click"],
    "claude-capture --help": [str(BIN / "claude-capture"), "--help"],
    "claude-trainer --help": [str(BIN / "claude-trainer"), "--help"],
}
TARGETS = {"claude-capture --help": 0.3, "claude-trainer --help": 0.5}


def measure(repeats: int) -> dict[str, tuple[float, float]]:
    """Median (wall, CPU) seconds of each command; one unmeasured round first, for bytecode and file cache."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for turn in range(repeats + 1):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"{name}: exit status {process.returncode}")
            if turn:
                seconds[name].append((time.perf_counter() - began, usage.ru_utime + usage.ru_stime))
    return {
        name: (statistics.median(wall for wall, _ in runs), statistics.median(cpu for _, cpu in runs))
        for name, runs in seconds.items()
    }


def main() -> None:
    """Prints a line per command, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="measured runs of each command")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    medians = measure(options.repeats)
    if options.json:
        rows = {name: {"wall": wall, "cpu": cpu, "target": TARGETS.get(name)} for name, (wall, cpu) in medians.items()}
        print(json.dumps({"repeats": options.repeats, "median_seconds": rows}))
        return
    print(f"{'median of ' + str(options.repeats):26} {'wall s':>7} {'CPU s':>7}")
    for name, (wall, cpu) in medians.items():
        target = f"   target {TARGETS[name]}" if name in TARGETS else ""
        print(f"{name:26} {wall:7.3f} {cpu:7.3f}{target}")


if __name__ == "__main__":
    main()
