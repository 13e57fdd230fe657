"""Work in chunks: where a file of lines may be cut, and who works the chunks off: this process, several, or Ray.

A task is a picklable function of one picklable item, the items are independent, and results come back in the order
of the items: whoever calls `run_tasks` cannot see who did the work.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from trainer.config import EngineConfig
from trainer.errors import TrainerError

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerLost(TrainerError):
    """A process was ended from outside; the same work may succeed the next time."""


MOST_CHUNKS = 512
"""Bounds the number of part files that are open at once, whatever the size of the input."""


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def line_ranges(path: Path, chunk_bytes: int) -> list[tuple[int, int]]:
    """Byte ranges of about `chunk_bytes` that cover the file and end where a line ends; none for no file."""
    if not path.exists():
        return []
    size = path.stat().st_size
    step = max(chunk_bytes, -(-size // MOST_CHUNKS))
    ranges: list[tuple[int, int]] = []
    start = 0
    with path.open("rb") as stream:
        while start < size:
            stream.seek(min(start + step, size))
            stream.readline()
            end = min(stream.tell(), size)
            ranges.append((start, end))
            start = end
    return ranges


def run_tasks(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    engine: EngineConfig | None = None,
) -> list[Result]:
    """`[task(item) for item in items]`, on up to `workers` processes, or on a Ray cluster.

    Args:
        task: a module-level function, or a `functools.partial` of one.
        workers: with 1, or a single item, everything happens in this process. On Ray, most tasks at the same time.
        progress: called with (items done, items) after each.
        engine: which of the two; None is processes of this machine.

    Raises:
        WorkerLost: a process was ended (out of memory, killed). And whatever the task raises.
        TrainerError: Ray is not installed or does not answer.
    """

    def collected(results: Iterator[Result]) -> list[Result]:
        done: list[Result] = []
        for result in results:
            done.append(result)
            if progress is not None:
                progress(len(done), len(items))
        return done

    if engine is not None and engine.name == "ray":
        from trainer.dataset.ray_tasks import ray_tasks

        return collected(ray_tasks(task, items, workers, engine.ray_address))
    if min(workers, len(items)) <= 1:
        return collected(map(task, items))
    try:
        context = multiprocessing.get_context("spawn")  # the caller may have threads, which a fork does not survive
        with ProcessPoolExecutor(min(workers, len(items)), context, initializer=_end_with_parent) as pool:
            return collected(pool.map(task, items))
    except BrokenProcessPool:
        raise WorkerLost(
            "a worker process was ended from outside (out of memory?); run the same command again: finished parts "
            "are kept, and fewer --workers need less memory"
        ) from None


def _end_with_parent() -> None:
    """Lets this worker end when the process that started it is killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
