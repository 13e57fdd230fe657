"""What one event costs: our hook beside `sh -c 'cat >> file'`, in the same run, taking turns.

    python benchmarks/hook_overhead.py [--repeats N] [--claude]

`--claude` also times the real Claude Code over 20 tool calls without hooks, with `cat` and with ours.
Target: at most 2.0 × the floor for 1 KB and 100 KB.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
HOOK = REPOSITORY / "hooks" / "capture_hook.sh"
SIZES = {"1 KB": 1_000, "100 KB": 100_000, "1 MB": 1_000_000}
CALLS = 20


def payload(size: int) -> bytes:
    """An event of about `size` bytes as Claude Code sends it: one line."""
    event = {"session_id": "a3dcee5e-4571-4426-893f-0afddb0de497", "hook_event_name": "PostToolUse", "output": ""}
    event["output"] = "line of some output\n" * ((size - len(json.dumps(event))) // 21)
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def fire(command: list[str], sent: bytes) -> None:
    """Runs one hook on one event."""
    subprocess.run(command, input=sent, check=True, env={"PATH": "/usr/bin:/bin"})


def in_turns(ways: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each way; they take turns, so that the machine's moods fall on all alike."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 2):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            if turn >= 2:
                taken[name].append((time.perf_counter() - started) * 1000)
    return taken


def table(title: str, taken: dict[str, list[float]], floor: str) -> None:
    """Prints medians and minima, and both as multiples of the floor's."""
    print(f"\n{title}\n{'':34}{'median ms':>10}{'min ms':>8}{'× median':>10}{'× min':>7}")
    for name, values in taken.items():
        middle, least = statistics.median(values), min(values)
        ratios = middle / statistics.median(taken[floor]), least / min(taken[floor])
        print(f"{name:34}{middle:10.2f}{least:8.2f}{ratios[0]:10.2f}{ratios[1]:7.2f}")


def standalone(repeats: int) -> None:
    """One process per event, as Claude Code starts them: with a shell, and without one (exec form)."""
    with tempfile.TemporaryDirectory() as folder:
        data, file = Path(folder) / "data", Path(folder) / "events"
        shell = f"{shlex.quote(str(HOOK))} {shlex.quote(str(data))}"
        python = [sys.executable, "-I", "-S", str(HOOK.with_suffix(".py")), str(data)]
        commands = {
            "sh -c 'cat >> file' (floor)": ["sh", "-c", f"cat >> {shlex.quote(str(file))}"],
            "hook, exec form (installed)": [str(HOOK), str(data)],
            "hook, shell form (this repo)": ["sh", "-c", shell],
            "hook, Python fallback": python,
        }
        for name, size in SIZES.items():
            sent = payload(size)
            ways = {key: partial(fire, command, sent) for key, command in commands.items()}
            table(f"one event of {name}", in_turns(ways, repeats), "sh -c 'cat >> file' (floor)")
            for written in (file, *data.glob("events/*.jsonl")):
                written.write_bytes(b"")


def in_claude_code(repeats: int) -> None:
    """A whole session of CALLS sequential Reads in the real CLI against a scripted API."""
    sys.path.insert(0, str(REPOSITORY / "tests" / "e2e"))
    from claude_code_cli import ClaudeCode, find_or_install
    from scripted_messages_api import Call, Turn, scripted_api

    from claude_capture.settings_file import EVENTS

    def settings(command: str | None) -> str:
        hooks = [{"hooks": [{"type": "command", "command": command, "timeout": 10}]}]
        return json.dumps({"hooks": dict.fromkeys(EVENTS, hooks)} if command else {})

    with tempfile.TemporaryDirectory() as folder:
        claude = ClaudeCode(find_or_install(), Path(folder))
        readme = claude.project / "README.md"
        readme.write_text("# Toy\n")
        turns = [
            Turn(text="Next.", calls=(Call(f"toolu_{n}", "Read", {"file_path": str(readme)}),)) for n in range(CALLS)
        ]
        commands = {
            "no hooks": None,
            "cat >> file (floor)": f"cat >> {folder}/events",
            "our hook": f"{shlex.quote(str(HOOK))} {folder}/data",
        }
        with scripted_api({"reads": [*turns, Turn(text="Done.")]}) as claude.base_url:
            ways = {
                name: (
                    lambda command=command: claude.prompt("[[script:reads]]", "--settings", settings(command)) and None
                )
                for name, command in commands.items()
            }
            taken = in_turns(ways, repeats)
    table(f"the real Claude Code, {CALLS} Reads, all twelve events", taken, "no hooks")
    least = {name: min(values) for name, values in taken.items()}
    added = {name: (least[name] - least["no hooks"]) / CALLS for name in list(commands)[1:]}
    print("added per call, from the minima: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in added.items()))


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--claude", action="store_true")
    arguments = parser.parse_args()
    standalone(arguments.repeats)
    if arguments.claude:
        in_claude_code(max(3, arguments.repeats // 10))


if __name__ == "__main__":
    main()
