"""The one place that imports llama.cpp: its log is collected, so that an error can quote llama.cpp's own words."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from functools import cache
from typing import Any

from trainer.errors import TrainerError

_LINES: deque[tuple[int, str]] = deque(maxlen=200)
_KEPT: list[Any] = []
_ERROR, _CONTINUED = 4, 5


@cache
def llama_library() -> Any:
    """The module `llama_cpp`, silent on stderr.

    Raises:
        TrainerError: it is not installed.
    """
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise TrainerError(
            f"llama.cpp cannot be loaded ({error}); install it with `python trainer/export/install_llama_cpp.py 0.3.36`"
        ) from None
    collector = llama_cpp.llama_log_callback(_collect)
    _KEPT.append(collector)  # ctypes keeps no reference to a callback
    llama_cpp.llama_log_set(collector, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def thread_count(wanted: int = 0) -> int:
    """Threads for llama.cpp: as many as are wanted; 0 takes OMP_NUM_THREADS, else all cores."""
    return wanted or int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def _collect(level: int, text: bytes, _: Any) -> None:
    line = text.decode("utf-8", "replace")
    if level == _CONTINUED and _LINES:
        previous_level, previous = _LINES[-1]
        _LINES[-1] = (previous_level, previous + line)
    else:
        _LINES.append((level, line))


def first_error() -> str:
    """What went wrong since `forget_log`, on one line: llama.cpp names the cause first, then who failed because of it.

    Banners of several lines are passed over. Empty where llama.cpp said nothing.
    """
    errors = (line.strip() for level, line in _LINES if level == _ERROR)
    return next((line for line in errors if line and "\n" not in line), "")


def forget_log() -> None:
    """Empties the collected log before a step whose errors are to be told apart from older ones."""
    _LINES.clear()
