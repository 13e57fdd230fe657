"""A plain GGUF → a quantised one, by llama.cpp itself: the `gguf` package cannot write K-quants."""

from __future__ import annotations

import difflib
import os
import threading
from pathlib import Path

from trainer.errors import TrainerError
from trainer.export.atomic_file import disk_full
from trainer.export.export_records import Progress
from trainer.export.llama_library import first_error, forget_log, llama_library, thread_count

_PREFIX = "LLAMA_FTYPE_MOSTLY_"


def quantization_types() -> dict[str, int]:
    """Every type that this llama.cpp can write: lower-case name, e.g. 'q4_k_m' → its file type number."""
    library = llama_library()
    return {
        name.removeprefix(_PREFIX).lower(): getattr(library, name) for name in dir(library) if name.startswith(_PREFIX)
    }


def quantization_number(name: str) -> int:
    """The file type number of a name as llama.cpp writes it, in any case.

    Raises:
        TrainerError: unknown, with the nearest known name.
    """
    known = quantization_types()
    if name.lower() not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0)
        raise TrainerError(
            f"unknown quantisation {name!r}; did you mean {near[0]!r}? known: {', '.join(sorted(known))}"
        )
    return known[name.lower()]


def quantize(source: Path, target: Path, name: str, *, threads: int = 0, progress: Progress | None = None) -> None:
    """Quantises an f16, bf16 or f32 GGUF; `target` is written directly (the caller gives a temporary name).

    Args:
        threads: 0 takes OMP_NUM_THREADS, else all cores.
        progress: called twice a second with the bytes written so far; the total is that of `source`.

    Raises:
        TrainerError: unknown type, full disk, or llama.cpp refuses (with its own words).
    """
    library = llama_library()
    parameters = library.llama_model_quantize_default_params()
    parameters.ftype = quantization_number(name)
    parameters.nthread = thread_count(threads)
    forget_log()
    outcome: list[int] = []
    worker = threading.Thread(
        target=lambda: outcome.append(
            library.llama_model_quantize(os.fsencode(source), os.fsencode(target), library.ctypes.byref(parameters))
        )
    )
    worker.start()
    total = source.stat().st_size
    while worker.is_alive():
        worker.join(0.5)
        if progress is not None and target.exists():
            progress("quantising", min(target.stat().st_size, total), total)
    if outcome != [0] and "iostream error" in first_error():  # all that llama.cpp says of a failed write
        raise disk_full(target.parent, "llama.cpp could not write the whole quantised file")
    if outcome != [0] or not target.exists():
        raise TrainerError(f"{source}: llama.cpp cannot quantise it to {name}: {first_error() or 'no reason given'}")
