"""How fast sessions are imported, beside `orjson.loads` over the same lines in the same run.

    python benchmarks/import_speed.py [FOLDER] [--copies N] [--json]

FOLDER defaults to the shared third-party transcripts where they are (CLAUDE_CAPTURE_SHARED_DATA), else to our own
recordings. With --copies the corpus is read as N projects of their own, for memory over size.
All times are CPU seconds of one process; MB are 10^6 bytes of session files.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from claude_capture.ingest import import_sessions
from claude_capture.session_sources import find_files
from claude_capture.transcripts import ReadStats, read_records

ROOT = Path(__file__).resolve().parents[1]


def corpus() -> Path:
    """The folder of transcripts to read by default."""
    shared = Path(os.environ.get("CLAUDE_CAPTURE_SHARED_DATA") or ROOT.parent / "shared" / "data") / "transcripts"
    return shared if shared.is_dir() else ROOT / "tests" / "fixtures" / "claude-code-2.1.330" / "projects"


def multiply(folder: Path, copies: int, into: Path) -> Path:
    """The corpus N times, each copy with session ids and years of its own, so that no copy is taken for a fork."""
    for number in range(copies):
        prefix = f"{number:02d}".encode()
        for file in folder.rglob("*.jsonl"):
            target = into / f"project-{number}" / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            data = file.read_bytes()
            data = re.sub(rb'("sessionId": ?")', rb"\g<1>" + prefix, data)
            target.write_bytes(re.sub(rb'("timestamp": ?")20\d\d', rb"\g<1>%d" % (2030 + number), data))
    return into


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of the fastest of three runs."""
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def parse_all(files: list[Path]) -> None:
    """The floor: every line through orjson.loads and nothing else."""
    for file in files:
        with file.open("rb") as stream:
            for line in stream:
                try:
                    orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue


def read_all(files: list[Path]) -> None:
    """Our reader alone: records, drift and damage counted."""
    stats = ReadStats()
    for file in files:
        for _ in read_records(file, stats):
            pass


def measure(folder: Path) -> dict[str, float | int]:
    """All figures for one corpus."""
    files = [source.path for source in find_files([folder])]
    size = sum(file.stat().st_size for file in files)
    floor, reader = cpu_seconds(lambda: parse_all(files)), cpu_seconds(lambda: read_all(files))
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        start = time.process_time()
        report = import_sessions([folder], data)
        first = time.process_time() - start
        start = time.process_time()
        import_sessions([folder], data)
        second = time.process_time() - start
    return {
        "files": len(files),
        "mb": size / 1e6,
        "traces": report.traces.new,
        "calls": report.calls,
        "orjson_mb_per_s": size / 1e6 / floor,
        "reader_mb_per_s": size / 1e6 / reader,
        "import_mb_per_s": size / 1e6 / first,
        "import_seconds": first,
        "reimport_seconds": second,
        "reimport_times_faster": first / second,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=corpus())
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = multiply(options.folder, options.copies, Path(name)) if options.copies > 1 else options.folder
        figures = measure(folder)
    if options.json:
        print(json.dumps(figures))
        return
    print(
        f"{figures['files']} files, {figures['mb']:.1f} MB → {figures['traces']} traces, {figures['calls']} tool calls"
    )
    print(f"orjson.loads over the lines   {figures['orjson_mb_per_s']:8.1f} MB/s")
    print(f"reader                        {figures['reader_mb_per_s']:8.1f} MB/s")
    print(f"whole import                  {figures['import_mb_per_s']:8.1f} MB/s  (redaction and signals included)")
    print(f"re-import, nothing changed    {figures['reimport_times_faster']:8.0f} × faster")
    print(f"peak memory                   {figures['peak_mb']:8.0f} MB")


if __name__ == "__main__":
    main()
