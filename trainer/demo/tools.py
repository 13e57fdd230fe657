"""The four tools of the demo world, run for real in a workspace folder, with Claude Code's own texts.

Texts, argument names and structured results follow Claude Code 2.1.330; `tests/e2e/test_demo_tools_as_claude_code.py`
holds them against the real one. Four liberties: a successful Edit leaves out the remark about the file's state; Bash is
/bin/sh and finds only the programs of `PROGRAMS` (a student that samples its commands must not meet `rm` or `curl`),
with `sqlite3` always served by the shim; files that match a search come sorted by name, not by age; and what is wrong
with a pattern is said in Python's words.
"""

from __future__ import annotations

import atexit
import difflib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.demo import sqlite3_shim
from trainer.demo.sqlite3_shim import Finished
from trainer.ppo.tool_errors import invalid_call

PROGRAMS = "awk basename cat cut diff dirname expr find grep head ls nl pwd sed sort stat tail test tr uniq wc"
TIMEOUT = 10.0
"""Seconds that a Bash command may run."""
MAX_OUTPUT = 30_000
"""Characters of a Bash output that are kept, as in Claude Code."""
_PLAIN_SQLITE = re.compile(r'sqlite3 (-line )?(\w+\.db) "([^"$`\\!]+)"')


def _schema(name: str, required: dict[str, str], optional: dict[str, str] | None = None) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in {**required, **(optional or {})}.items()}
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TOOLS = [
    _schema("Bash", {"command": "string"}),
    _schema("Edit", {"file_path": "string", "old_string": "string", "new_string": "string"}),
    _schema("Grep", {"pattern": "string"}, {"path": "string", "output_mode": "string"}),
    _schema("Read", {"file_path": "string"}),
]
"""Short schemas in the OpenAI function format, in the order and form in which a dataset of recorded sessions has them;
without descriptions, which a student of this size would only have to read."""


@dataclass(frozen=True)
class ToolResult:
    """What a call gave back."""

    text: str
    """What the model sees."""
    is_error: bool = False
    validation: bool = False
    """True where the call was refused before it ran: Claude Code fires no Pre/PostToolUse hook for it."""
    structured: dict[str, Any] | None = None
    """`toolUseResult` of the session file and `tool_response` of the hook; None on failure."""


_MODES = ("content", "files_with_matches", "count")
_UNKNOWN_MODE = "InputValidationError: " + json.dumps(
    [
        {
            "code": "invalid_value",
            "values": list(_MODES),
            "path": ["output_mode"],
            "message": "Invalid option: expected one of " + "|".join(f'"{mode}"' for mode in _MODES),
        }
    ],
    indent=2,
)
_REJECTED = "Search failed — ripgrep rejected the pattern, glob, or file type without searching:"
_MAY_FIND_NOTHING = (["grep"], ["find"], ["diff"], ["test"], ["["])
"""Exit code 1 of these is an answer, not a failure."""


class _Refused(Exception):
    """The call fails; `validation` as in ToolResult."""

    def __init__(self, message: str, validation: bool = False) -> None:
        super().__init__(message)
        self.validation = validation


@functools.cache
def _program_folder() -> str:
    """A folder for PATH with the allowed programs and the sqlite3 shim; one per process, removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="demo-bin-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for program in PROGRAMS.split():
        if found := shutil.which(program):
            (folder / program).symlink_to(found)
    shim = folder / "sqlite3"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{sqlite3_shim.__file__}" "$@"\n', "utf-8")
    shim.chmod(0o755)
    return str(folder)


def run_shell(command: str, folder: Path, timeout: float = TIMEOUT) -> Finished:
    """Runs a command line in /bin/sh with `folder` as working directory and home.

    A command that is nothing but one `sqlite3` query runs in this process: same function, same bytes, 50 times faster.
    Status 143 means that the time was up and the process group was ended.
    """
    if plain := _PLAIN_SQLITE.fullmatch(command):
        return sqlite3_shim.run([*(["-line"] if plain[1] else []), plain[2], plain[3]], str(folder))
    environment = {"PATH": _program_folder(), "HOME": str(folder), "LC_ALL": "C.UTF-8", "PWD": str(folder)}
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
        status = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        stderr, status = stderr + f"\nCommand timed out after {timeout:g}s".encode(), 143
    return Finished(stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace"), status)


class WorkspaceTools:
    """Runs calls in one workspace folder. Paths may be relative or absolute; outside the folder nothing exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._run: dict[str, Callable[[dict[str, str]], ToolResult]] = {
            "Read": self._read,
            "Grep": self._grep,
            "Bash": self._bash,
            "Edit": self._edit,
        }

    def run(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        """Runs one call; every failure is a result with `is_error`, never an exception."""
        if invalid := invalid_call(name, arguments, TOOLS):
            return ToolResult(invalid, is_error=True, validation=True)
        try:
            return self._run[name](arguments)
        except _Refused as refusal:
            message = str(refusal)
            text = f"<tool_use_error>{message}</tool_use_error>" if refusal.validation else message
            return ToolResult(text, is_error=True, validation=refusal.validation)

    def _inside(self, path: str) -> Path | None:
        """The file or folder that a path names, or None where it is outside or missing."""
        try:
            resolved = (self.folder / path).resolve()
            return resolved if resolved.is_relative_to(self.folder) and resolved.exists() else None
        except (OSError, ValueError):
            return None

    def _text_file(self, path: str, validation: bool) -> tuple[Path, str]:
        file = self._inside(path)
        if file is None:
            note = f"File does not exist. Note: your current working directory is {self.folder}."
            raise _Refused(note, validation)
        if file.is_dir():
            if validation:
                raise _Refused("Error calling tool (Edit): EISDIR: illegal operation on a directory, read", True)
            raise _Refused(f"EISDIR: illegal operation on a directory, read '{file}'")
        try:
            return file, file.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            suffix = file.suffix or "this"
            raise _Refused(
                f"This tool cannot read binary files. The file appears to be a binary {suffix} file. Use a skill for "
                "this file type if one is available, or a shell command or script that can read the format.",
                True,
            ) from None

    def _read(self, arguments: dict[str, str]) -> ToolResult:
        path = arguments["file_path"]
        _, content = self._text_file(path, validation=False)
        lines = content.split("\n")
        numbered = "\n".join(f"{number}\t{line}" for number, line in enumerate(lines, 1))
        file = {"filePath": path, "content": content, "numLines": len(lines), "startLine": 1, "totalLines": len(lines)}
        return ToolResult(numbered, structured={"type": "text", "file": file})

    def _candidates(self, path: str) -> Iterator[tuple[str, Path]]:
        """Relative name and path of each file below `path`, sorted by name."""
        start = self._inside(path)
        if start is None:
            raise _Refused(f"Path does not exist: {path}. Note: your current working directory is {self.folder}.")
        files = [start] if start.is_file() else sorted(p for p in start.rglob("*") if p.is_file())
        yield from ((file.relative_to(self.folder).as_posix(), file) for file in files)

    def _grep(self, arguments: dict[str, str]) -> ToolResult:
        mode = arguments.get("output_mode", "files_with_matches")
        if mode not in _MODES:
            raise _Refused(_UNKNOWN_MODE, validation=True)
        try:
            pattern = re.compile(arguments["pattern"])
        except re.error as error:
            raise _Refused(f"{_REJECTED}\nrg: regex parse error: {error}") from None
        hits: list[tuple[str, int, str]] = []
        path = arguments.get("path", ".")
        one_file = (self.folder / path).is_file()
        for name, file in self._candidates(path):
            data = file.read_bytes()
            if b"\0" in data:
                continue
            lines = data.decode("utf-8", "replace").split("\n")
            hits += [(name, number, line) for number, line in enumerate(lines, 1) if pattern.search(line)]
        names = list(dict.fromkeys(name for name, _, _ in hits))
        if mode == "content":
            content = "\n".join(
                f"{number}:{line}" if one_file else f"{name}:{number}:{line}" for name, number, line in hits
            )
            found = {"mode": mode, "numFiles": 0, "filenames": [], "content": content, "numLines": len(hits)}
            return ToolResult(content or "No matches found", structured=found)
        if mode == "count":
            content = "\n".join(f"{name}:{sum(hit[0] == name for hit in hits)}" for name in names)
            counts = {
                "mode": mode,
                "numFiles": len(names),
                "filenames": [],
                "content": content,
                "numMatches": len(hits),
            }
            total = f"Found {_number(len(hits), 'total occurrence')} across {_number(len(names), 'file')}."
            return ToolResult(f"{content or 'No matches found'}\n\n{total}", structured=counts)
        listing = f"Found {_number(len(names), 'file')}\n" + "\n".join(names)
        return ToolResult(
            listing if names else "No files found",
            structured={"mode": mode, "numFiles": len(names), "filenames": names},
        )

    def _bash(self, arguments: dict[str, str]) -> ToolResult:
        if "\0" in arguments["command"]:
            raise _Refused("InputValidationError: Bash failed: the command holds a NUL byte", validation=True)
        finished = run_shell(arguments["command"], self.folder)
        stdout, stderr = (re.sub(r"\A(\s*\n)+", "", text).rstrip()[:MAX_OUTPUT] for text in finished[:2])
        both = "\n".join(text for text in (stdout, stderr) if text)
        commands = [part.strip() for part in re.split(r";|&&|\|\|", arguments["command"])]
        last = commands[-1].rpartition("|")[2].split()[:1]
        if finished.status > 1 or (finished.status == 1 and last not in _MAY_FIND_NOTHING):
            raise _Refused(f"Exit code {finished.status}" + (f"\n{both}" if both else ""))
        flags = {"interrupted": False, "isImage": False, "noOutputExpected": False}
        return ToolResult(
            both or "(Bash completed with no output)", structured={"stdout": stdout, "stderr": stderr, **flags}
        )

    def _edit(self, arguments: dict[str, str]) -> ToolResult:
        path, old, new = (arguments[key] for key in ("file_path", "old_string", "new_string"))
        file, content = self._text_file(path, validation=True)
        if old == new:
            raise _Refused("No changes to make: old_string and new_string are exactly the same.", validation=True)
        if not old:
            raise _Refused("Cannot create new file - file already exists.", validation=True)
        count = content.count(old)
        if count == 0:
            raise _Refused(f"String to replace not found in file.\nString: {old}", validation=True)
        if count > 1:
            message = (
                f"Found {count} matches of the string to replace, but replace_all is false. To replace all "
                "occurrences, set replace_all to true. To replace only one occurrence, please provide more context "
                f"to uniquely identify the instance.\nString: {old}"
            )
            raise _Refused(message, validation=True)
        file.write_text(content.replace(old, new), "utf-8")
        changed = {
            "filePath": path,
            "oldString": old,
            "newString": new,
            "originalFile": content,
            "structuredPatch": _patch(content, content.replace(old, new)),
            "userModified": False,
            "replaceAll": False,
        }
        return ToolResult(f"The file {path} has been updated successfully.", structured=changed)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _patch(before: str, after: str) -> list[dict[str, Any]]:
    """One hunk over the whole (short) file, as Claude Code's `structuredPatch`."""
    old, new = before.splitlines(), after.splitlines()
    lines = [line for line in difflib.ndiff(old, new) if not line.startswith("?")]
    marked = [line[0] + line[2:] for line in lines]
    return [{"oldStart": 1, "oldLines": len(old), "newStart": 1, "newLines": len(new), "lines": marked}]
