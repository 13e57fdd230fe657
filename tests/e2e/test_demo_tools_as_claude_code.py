"""The tools of the demo world against those of the real Claude Code: the same calls, the same bytes.

But for the remark about the file's state behind a successful Edit, which the demo leaves out.
What a student of the demo learns holds in the real CLI only if the world answers as the CLI does.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from claude_code_cli import ClaudeCode
from scripted_messages_api import Call, Turn, scripted_api

from trainer.demo import sqlite3_shim
from trainer.demo.tools import WorkspaceTools
from trainer.demo.workspace import WorkspaceSpec, draw_workspace
from trainer.student.workspace_paths import to_absolute, to_relative

pytestmark = [pytest.mark.claude, pytest.mark.timeout(300)]

ToolCall = tuple[str, dict[str, str]]
REMARK = re.compile(r"(?<=has been updated successfully\.) \(.*\)\Z", re.S)


def read(path: str) -> ToolCall:
    return "Read", {"file_path": path}


def grep(pattern: str, **options: str) -> ToolCall:
    return "Grep", {"pattern": pattern, **options}


def bash(command: str) -> ToolCall:
    return "Bash", {"command": command}


def edit(path: str, old: str, new: str) -> ToolCall:
    return "Edit", {"file_path": path, "old_string": old, "new_string": new}


def looking(workspace: WorkspaceSpec) -> list[ToolCall]:
    """Everything but edits."""
    setting = next(iter(workspace.settings))
    constant = next(iter(next(iter(workspace.constants.values()))))
    sql = f"FROM transformers WHERE id={workspace.transformers[0].id}"
    return [
        *(read(path) for path in ("schema.py", setting, "nope.env", "src", "", "grid.db")),
        *(grep(constant, **options) for options in ({}, {"output_mode": "content"}, {"output_mode": "count"})),
        *(grep("SELECT", path="queries.py", output_mode=mode) for mode in ("content", "count", "files_with_matches")),
        *(grep("NOPE", output_mode=mode) for mode in ("content", "count", "files_with_matches", "lines")),
        grep("=", path="src", output_mode="content"),
        grep("=", path="nope.py"),
        bash(f'sqlite3 -line grid.db "SELECT name, rated_kva, status {sql}"'),
        bash(f'sqlite3 grid.db "SELECT feeder_id {sql}"'),
        *(bash(f'sqlite3 grid.db "SELECT {what}"') for what in ("nix FROM feeders", "id FROM feeders WHERE id=999")),
        bash(f"grep = {setting}"),
        *(bash(f"{command} nope") for command in ("cat", "ls", "test -f", "wc -l", "grep x")),
        *(bash(f"{before}grep nope schema.py{after}") for before in ("", "ls; ") for after in ("", " || false", "|wc")),
        bash("diff schema.py queries.py"),
        bash("cat schema.py | grep nope"),
        bash("true"),
        bash("false"),
        ("Read", {}),
        ("Read", {"path": "x"}),
        ("Nope", {"path": "x"}),
    ]


def editing(workspace: WorkspaceSpec) -> list[ToolCall]:
    """Edits of files that were read in one way or another, or not at all."""
    sources = list(workspace.constants)
    (path, settings), *_ = workspace.settings.items()
    ((key, value), *_) = settings.items()
    return [
        edit(path, f"{key}={value + 1}", f"{key}=11"),
        edit(path, f"{key}={value}", f"{key}=11"),
        edit(path, f"{key}=11", f"{key}=12"),
        edit(path, f"{key}=11", f"{key}=12"),
        read(path),
        edit(path, f"{key}=12", f"{key}=13"),
        edit(path, f"{key}=13", f"{key}=14"),
        bash(f"grep {key} {path}"),
        bash(f"cat {sources[0]}; true"),
        edit(sources[0], " = ", "="),
        bash(f"head -n 1 {sources[1]}; cat {sources[1]} | head -1; grep = {sources[1]}"),
        grep("=", path=sources[1], output_mode="content"),
        edit(sources[1], " = ", "="),
        bash(f"cat {sources[2]} >&2; false"),
        edit(sources[2], " = ", "="),
        bash(f"sed -n 1,2p {sources[3]} && head {sources[3]}"),
        edit(sources[3], " = ", "="),
        read("queries.py"),
        bash('echo "#" >> queries.py'),
        edit("queries.py", "BY_ID", "ID"),
        edit("queries.py", "ID", "BY"),
        edit("queries.py", "FEEDER", "F"),
        edit("schema.py", "name", "title"),
        edit("schema.py", "name", "name"),
        edit("schema.py", "", "x"),
        edit("nope.py", "a", "b"),
        edit("src", "a", "b"),
    ]


@pytest.mark.parametrize("calls_of", [looking, editing])
def test_the_demo_answers_as_claude_code_does(claude_binary: Path, tmp_path: Path, calls_of: Any) -> None:
    workspace = draw_workspace(random.Random(3))
    calls: Sequence[ToolCall] = calls_of(workspace)
    shim = tmp_path / "bin" / "sqlite3"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{sqlite3_shim.__file__}" "$@"\n')
    shim.chmod(0o755)
    project = str(tmp_path / "claude" / "project")
    turns = [
        Turn(calls=(Call(f"toolu_{number}", name, to_absolute(arguments, project)),))
        for number, (name, arguments) in enumerate(calls)
    ]
    with scripted_api({"calls": [*turns, Turn(text="Done.")]}) as url:
        claude = ClaudeCode(claude_binary, tmp_path / "claude", url, {"PATH": f"{shim.parent}:{os.environ['PATH']}"})
        workspace.materialise(claude.project)
        options = ("--tools", "Bash,Edit,Grep,Read", "--output-format", "stream-json", "--verbose")
        done = claude.prompt("[[script:calls]] go", *options)
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    results = [
        block
        for message in messages
        if message["type"] == "user"
        for block in message["message"]["content"]
        if isinstance(block, dict) and block["type"] == "tool_result"
    ]
    assert len(results) == len(calls)
    folder = workspace.materialise(tmp_path / "demo")
    tools = WorkspaceTools(folder)
    for (name, arguments), real in zip(calls, results, strict=True):
        ours = tools.run(name, arguments)
        answer = (to_relative(ours.text, str(folder)), ours.is_error)
        real_text = REMARK.sub("", to_relative(real["content"], project))
        assert answer == (real_text, bool(real.get("is_error"))), (name, arguments)
