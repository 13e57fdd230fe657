"""Traces → `bc_dataset.jsonl`: what a student is to imitate, and nothing it may not or should not.

    trace file ─ chunks ─▶ prepared_traces   validate (else quarantine), judge, write the conversation, index it
                           selection         newest versions, duplicates, caps, splits, leak check, order
    selection ─ slices ──▶ sample_parts      tools, weights, windows: samples
                           here              parts → one file, with report, card and quarantine

Both passes run on as many processes as are wanted, in constant memory. The same traces and the same config give the
same bytes, whatever the number of processes, the size of the chunks and the order of the traces.

Parts live in a folder beside the output. A build that is interrupted leaves them, and the same command goes on with
them; one that is done removes them. The dataset file is replaced last, in one rename: a build that fails leaves the
earlier one as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import json
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import claude_capture
import trainer
from claude_capture.claude_trace_schema import Trace
from claude_capture.file_lock import locked
from trainer.config import Config
from trainer.dataset.card import dataset_card
from trainer.dataset.chunk_tasks import WorkerLost, line_ranges, run_tasks
from trainer.dataset.dataset_report import DatasetReport, SplitFacts, TeacherFacts
from trainer.dataset.prepared_traces import ReadTask, read_chunk
from trainer.dataset.sample_parts import PartCounts, WriteTask, counts_of, write_slice
from trainer.dataset.selection import Counted, Index, Selection, select
from trainer.dataset.splits import SPLITS
from trainer.dataset.teacher_rights import basis_for, declaration_for
from trainer.dataset.windows import CountTokens, estimate_tokens
from trainer.errors import TrainerError
from trainer.run_folder import content_hash, write_atomic

QUARANTINE = "quarantine.jsonl"
CARD = "README.md"
REPORT = "report.json"
CHUNK_BYTES = 8 << 20

Progress = Callable[[str, int, int], None]
"""Called with the pass ("read" or "write"), the parts that are done, and the parts there are."""


def build_dataset(
    traces: Path | Iterable[Trace | dict[str, Any] | str],
    config: Config,
    output: Path,
    *,
    count_tokens: CountTokens = estimate_tokens,
    workers: int = 1,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress | None = None,
) -> DatasetReport:
    """Builds the dataset at `output`, with its card, report and quarantine beside it.

    Args:
        traces: the trace file (a later line of the same trace_id supersedes an earlier one), or records, which are
            written to such a file first. What is no trace is set aside with the reason.
        config: sections `dataset`, `teachers` and `engine`.
        output: the JSONL file, e.g. `<data>/datasets/bc_dataset.jsonl`.
        count_tokens: measures windows; the default needs no tokenizer (`windows.count_with` makes one that does).
        workers: most processes that work at the same time.
        chunk_bytes: size of a part; the result does not depend on it.

    Returns:
        The counts, also stored as report.json.

    Raises:
        TrainerError: nothing is left to learn from (with the reasons), or the leak check failed. Earlier files
            are untouched then.
    """
    output.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = output.with_name(f".{output.name}.parts")
    folder.mkdir(exist_ok=True, mode=0o700)
    with locked(folder / "lock"):
        folder.mkdir(exist_ok=True, mode=0o700)  # where another build of the same file has just removed it
        try:
            report = _built(traces, config, output, folder, count_tokens, workers, chunk_bytes, progress)
        except WorkerLost:
            raise
        except TrainerError:  # the same parts would end the same way
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)  # what another process holds open stays, and is used again
    return report


def _built(
    traces: Path | Iterable[Trace | dict[str, Any] | str],
    config: Config,
    output: Path,
    folder: Path,
    count_tokens: CountTokens,
    workers: int,
    chunk_bytes: int,
    progress: Progress | None,
) -> DatasetReport:
    """`build_dataset` with its parts in `folder`."""
    tell: Progress = (lambda *_: None) if progress is None else progress
    source = traces if isinstance(traces, Path) else _spooled(traces, folder / "records.jsonl")
    key = content_hash(config.dataset, [item.model_dump() for item in config.teachers], _code_version())

    ranges = line_ranges(source, chunk_bytes)
    file = source.stat().st_ino if ranges else 0
    reads = [ReadTask(source, start, end, folder, config, key) for start, end in ranges]
    parts = run_tasks(read_chunk, reads, workers, partial(tell, "read"), config.engine)
    if ranges and source.stat().st_ino != file:
        raise TrainerError(f"{source} was replaced while it was read; run the same command again")

    digests = folder / "digests"
    selection, counted = select(Index(parts), config.dataset, digests)
    if selection is None:
        raise TrainerError(_nothing_left(counted, parts))
    slices = list(selection.chosen.slices(chunk_bytes))
    prepared = tuple(part.with_suffix(".prepared") for part in parts)
    counting = hashlib.sha256(pickle.dumps(count_tokens)).hexdigest()
    key = content_hash(key, counting, [file.name for file in prepared])  # these decide on the catalogue, too
    writes = [
        WriteTask(cut, selection.catalogue, prepared, digests, config.dataset, count_tokens, folder, key)
        for cut in slices
    ]
    made = run_tasks(write_slice, writes, workers, partial(tell, "write"), config.engine)

    counts = [counts_of(part) for part in made]
    if too_long := sum(len(part.too_long) for part in counts):
        counted.left_out["too_long"] = too_long
    samples = _sum(part.samples for part in counts)
    if not samples:
        raise TrainerError(_nothing_left(counted, parts))
    if not samples["train"]:
        raise TrainerError(
            f"all {samples.total()} samples fall into the test split; narrow dataset.test_projects "
            f"({', '.join(config.dataset.test_projects) or 'empty'}) or record sessions in other projects"
        )
    sha256 = _joined([part.with_suffix(".samples") for part in made], folder / output.name)
    report = _report(selection, [len(cut) for cut in slices], counts, counted, config, output, sha256)
    _write_quarantine(parts, output.with_name(QUARANTINE), folder)
    os.replace(folder / output.name, output)
    write_atomic(output.with_name(REPORT), json.dumps(report.model_dump(mode="json"), indent=1) + "\n")
    write_atomic(output.with_name(CARD), dataset_card(report))
    return report


def _spooled(records: Iterable[Trace | dict[str, Any] | str], file: Path) -> Path:
    """Records as a trace file."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        for record in records:
            plain = record.model_dump() if isinstance(record, Trace) else record
            stream.write((plain.replace("\n", " ") if isinstance(plain, str) else json.dumps(plain)) + "\n")
    return file


def _code_version() -> str:
    """Digest of our source files: parts that other code has made are not taken for our own."""
    roots = (Path(package.__file__ or "").parent for package in (claude_capture, trainer))
    files = sorted(file for root in roots for file in root.rglob("*") if file.suffix in (".py", ".jinja"))
    return content_hash(*files)


def _joined(parts: Sequence[Path], target: Path) -> str:
    """Writes the parts into one file, syncs it, and returns its SHA-256."""
    digest = hashlib.sha256()
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        for part in parts:
            with part.open("rb") as source:
                while block := source.read(1 << 20):
                    digest.update(block)
                    stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def _quarantined(parts: Sequence[Path]) -> Iterator[str]:
    """The lines of all quarantine parts, sorted as the parts are."""
    with contextlib.ExitStack() as stack:
        files = [file for part in parts if (file := part.with_suffix(".quarantine")).exists()]
        yield from heapq.merge(*(stack.enter_context(file.open(encoding="utf-8")) for file in files))


def _write_quarantine(parts: Sequence[Path], target: Path, folder: Path) -> None:
    """Replaces the quarantine file, or removes it where nothing was set aside."""
    with open(os.open(folder / QUARANTINE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.writelines(_quarantined(parts))
        size = stream.tell()
    if size:
        os.replace(folder / QUARANTINE, target)
    else:
        target.unlink(missing_ok=True)


def _nothing_left(counted: Counted, parts: Sequence[Path]) -> str:
    """One line that says why there is nothing to learn from, and what to add to the config."""
    if not counted.read:
        return "no traces to build from; record sessions (claude-capture install) or import them first"
    reasons = [f"{count} {reason}" for reason, count in sorted(counted.left_out.items())]
    if counted.quarantined:
        first = json.loads(next(_quarantined(parts)))["reason"]
        reasons.append(f"{counted.quarantined} invalid (first: {first})")
    if counted.undeclared:
        names = ", ".join(f"{model}: {count}" for model, count in sorted(counted.undeclared.items()))
        reasons.append(f"{counted.undeclared.total()} by teachers that are not declared ({names})")
    text = f"none of {counted.read} traces can be learned from: {'; '.join(reasons)}"
    if counted.undeclared:
        most = min(counted.undeclared, key=lambda model: (-counted.undeclared[model], model))
        line = declaration_for(most).replace("\n", " ⏎ ")
        text += f". Where the teacher's terms allow it, add to the config: {line}"
    return text


def _sum(counters: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def _report(
    selection: Selection,
    slices: Sequence[int],
    counts: Sequence[PartCounts],
    counted: Counted,
    config: Config,
    output: Path,
    sha256: str,
) -> DatasetReport:
    used = np.ones(len(selection.chosen), bool)
    start = 0
    for size, part in zip(slices, counts, strict=True):
        used[[start + place for place in part.too_long]] = False
        start += size
    samples = _sum(part.samples for part in counts)
    kinds = _sum(part.kinds for part in counts)
    totals = _sum(part.totals for part in counts)
    by_split = {name: used & (selection.chosen.split == number) for number, name in enumerate(SPLITS)}
    teachers = _counted(selection.teacher.filter(used))
    return DatasetReport(
        path=str(output),
        sha256=sha256[:12],
        traces=counted.read,
        used=int(used.sum()),
        samples=samples.total(),
        splits={
            name: SplitFacts(
                samples=samples[name],
                traces=int(rows.sum()),
                families=pc.count_distinct(selection.family.filter(rows)).as_py(),
            )
            for name, rows in by_split.items()
        },
        left_out=dict(sorted(counted.left_out.items())),
        undeclared=dict(sorted(counted.undeclared.items())),
        quarantined=counted.quarantined,
        teachers=[
            TeacherFacts(model=model, traces=count, basis=basis_for(model, config.teachers) or "")
            for model, count in teachers.items()
        ],
        tool_calls=totals["tool_calls"],
        turns=kinds.total() - kinds["mistake"] - totals["too_long_turns"],
        masked_turns=kinds["mistake"],
        recovery_turns=kinds["recovery"],
        too_long_turns=totals["too_long_turns"],
        windowed=totals["windowed"],
        results_cut=totals["results_cut"],
        redactions=dict(sorted(_sum(part.redactions for part in counts).items())),
        tied_families=selection.tied_families,
        repeated_prompts=selection.leaks.repeated_prompts,
        repeated_first_calls=selection.leaks.repeated_first_calls,
        workflows=_counted(selection.workflow.filter(used)),
    )


def _counted(column: pa.Array) -> dict[str, int]:
    """How often each value occurs, in order of the values."""
    return dict(sorted((item["values"], item["counts"]) for item in column.value_counts().to_pylist()))
