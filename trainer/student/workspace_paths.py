"""Project paths as a student sees them: relative in training and in context, absolute for the tools of Claude Code.

A model should learn `src/app.py`, not the folder in which somebody's checkout happened to lie. `to_relative` is
applied to everything a student reads (prompts, calls, results); `to_absolute` to the calls it makes, before a
client runs them, because Claude Code's file tools want absolute paths.

Text cannot be turned back (which word of a sentence is a path?), and need not be: a shell command runs in the
project folder, where `cat src/app.py` and `cat /home/me/project/src/app.py` are the same. So `to_absolute`
touches exactly the arguments that hold one path (PATH_ARGUMENTS), and on those it undoes `to_relative`.
"""

from __future__ import annotations

import functools
import re
from typing import Any

PATH_ARGUMENTS = frozenset({"file_path", "filePath", "notebook_path", "path"})
"""Arguments of Claude Code's own tools (Read, Edit, Write, NotebookEdit, Grep, Glob, LS, LSP) that are one path."""

_ABSOLUTE = re.compile(r"[/~\\]|[A-Za-z]:[/\\]")


@functools.lru_cache(maxsize=256)
def _pattern(root: str) -> re.Pattern[str] | None:
    """Finds `root` as a whole path prefix: not inside a longer path, not as the beginning of a longer name."""
    bare = root.rstrip("/\\")
    if not _ABSOLUTE.match(bare) or bare.endswith(":"):
        return None
    separator = r"[/\\]" if "\\" in bare else "/"
    inside = rf"{separator}+(?P<rest>[^\s\"'`;&|<>(),:\]}}]?)"
    ends = r"(?![\w\-]|\.\w)(?P<dot>\.?)"
    return re.compile(rf"(?<![\w.~/\\@+%\-]){re.escape(bare)}(?:{inside}|{ends})")


def _shorter(match: re.Match[str]) -> str:
    rest = match["rest"]
    if rest is None:
        return "./." if match["dot"] else "."
    # an empty rest is the folder itself; `-x` would turn into an option and `~x` into somebody's home
    return f"./{rest}" if rest in ("", "-", "~") else rest


def to_relative(value: Any, root: str | None) -> Any:
    """Rewrites `<root>/x` to `x` and a bare `<root>` to `.` in every string of dicts and lists (keys stay).

    Args:
        value: a string, or dicts and lists that hold strings; other values are returned as they are.
        root: absolute project folder; None, "" and the file system's root leave everything as it is.
    """
    pattern = _pattern(root) if root else None
    return value if pattern is None else _rewrite(value, pattern)


def _rewrite(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(_shorter, value)
    if isinstance(value, dict):
        return {key: _rewrite(item, pattern) for key, item in value.items()}
    if isinstance(value, list):
        return [_rewrite(item, pattern) for item in value]
    return value


def absolute_path(path: str, root: str | None) -> str:
    """One path as seen from `root`; an absolute path, an empty one and `~/…` stay as they are."""
    if not root or not path or _ABSOLUTE.match(path) or _pattern(root) is None:
        return path
    base = root.rstrip("/\\")
    rest = path
    while rest.startswith("./"):
        rest = rest[2:].lstrip("/")
    if rest in ("", "."):
        return base
    separator = "\\" if "\\" in base else "/"
    return f"{base}{separator}{rest}"


def to_absolute(value: Any, root: str | None) -> Any:
    """Makes the path arguments of a call absolute: the inverse of `to_relative` on PATH_ARGUMENTS.

    Args:
        value: a call's arguments, or dicts and lists that hold such arguments at any depth. A bare string is
            text and comes back unchanged; `absolute_path` takes a single path.
        root: absolute project folder, as for `to_relative`.
    """
    if isinstance(value, dict):
        return {
            key: absolute_path(item, root)
            if key in PATH_ARGUMENTS and isinstance(item, str)
            else to_absolute(item, root)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [to_absolute(item, root) for item in value]
    return value
