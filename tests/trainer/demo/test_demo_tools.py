"""The demo's tools answer as Claude Code 2.1.330 does, in success and in failure."""

from __future__ import annotations

import random
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.dataset.tool_schemas import short_schema
from trainer.demo.session_file import api_tools
from trainer.demo.tools import TOOLS, ToolResult, WorkspaceTools, run_shell
from trainer.demo.workspace import draw_workspace

QUERIES = [
    'sqlite3 grid.db "SELECT * FROM transformers"',
    'sqlite3 -line grid.db "SELECT * FROM transformers WHERE rated_kva>200"',
    'sqlite3 -line grid.db "SELECT name, status FROM feeders"',
    "sqlite3 grid.db \"SELECT COUNT(*) FROM transformers WHERE status='active'\"",
    'sqlite3 grid.db "SELECT NULL, voltage_kv FROM feeders ORDER BY id"',
    'sqlite3 grid.db ".schema transformers"',
    "sqlite3 grid.db \"SELECT 1; SELECT 'a;b'\"",
    'sqlite3 grid.db "SELECT * FROM transformers WHERE id=99"',
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    workspace = draw_workspace(random.Random(5)).materialise(tmp_path / "work")
    (workspace / "twice.txt").write_text("a: 1\na: 1\nb: 2\n")
    return workspace


def call(folder: Path, name: str, **arguments: Any) -> ToolResult:
    return WorkspaceTools(folder).run(name, arguments)


def test_read_numbers_lines_as_claude_code_does(folder: Path) -> None:
    assert call(folder, "Read", file_path="twice.txt").text == "1\ta: 1\n2\ta: 1\n3\tb: 2\n4\t"
    assert call(folder, "Read", file_path=str(folder / "twice.txt")).text.startswith("1\ta: 1")


def test_read_of_a_missing_file_fails_without_validation_mark(folder: Path) -> None:
    result = call(folder, "Read", file_path="nope.txt")
    assert result.text == f"File does not exist. Note: your current working directory is {folder}."
    assert (result.is_error, result.validation) == (True, False)


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/../../x", "link", "a\0b"])
def test_nothing_outside_the_workspace_can_be_read_or_edited(folder: Path, path: str) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    assert call(folder, "Read", file_path=path).text.startswith("File does not exist.")
    edit = call(folder, "Edit", file_path=path, old_string="root", new_string="x")
    assert edit.text.startswith("<tool_use_error>File does not exist.")


def test_read_of_a_folder_and_of_a_database_are_refused(folder: Path) -> None:
    assert call(folder, "Read", file_path="config").text.startswith("EISDIR")
    assert "cannot read binary files" in call(folder, "Read", file_path="grid.db").text


def test_grep_gives_files_or_lines_or_counts(folder: Path) -> None:
    assert call(folder, "Grep", pattern="^a: 1").text == "Found 1 file\ntwice.txt"
    assert call(folder, "Grep", pattern="^a: 1", output_mode="content").text == "twice.txt:1:a: 1\ntwice.txt:2:a: 1"
    assert call(folder, "Grep", pattern="^a: 1", output_mode="content", path="twice.txt").text == "1:a: 1\n2:a: 1"
    total = "\n\nFound 2 total occurrences across 1 file."
    assert call(folder, "Grep", pattern="^a: 1", output_mode="count", path="twice.txt").text == "twice.txt:2" + total
    assert call(folder, "Grep", pattern="no such").text == "No files found"
    assert call(folder, "Grep", pattern="no such", output_mode="content").text == "No matches found"
    assert call(folder, "Grep", pattern="(").is_error
    assert call(folder, "Grep", pattern="a", path="missing").is_error
    assert call(folder, "Grep", pattern="a", output_mode="lines").is_error


def test_edit_replaces_what_stands_there_exactly_once(folder: Path) -> None:
    result = call(folder, "Edit", file_path="twice.txt", old_string="b: 2", new_string="b: 3")
    assert result.text == "The file twice.txt has been updated successfully."
    assert (folder / "twice.txt").read_text() == "a: 1\na: 1\nb: 3\n"
    assert result.structured is not None
    (hunk,) = result.structured["structuredPatch"]
    assert hunk["lines"] == [" a: 1", " a: 1", "-b: 2", "+b: 3"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("c: 9", "c: 1", "<tool_use_error>String to replace not found in file.\nString: c: 9</tool_use_error>"),
        ("a: 1", "a: 2", "<tool_use_error>Found 2 matches of the string to replace, but replace_all is false."),
        ("b: 2", "b: 2", "<tool_use_error>No changes to make: old_string and new_string are exactly the same."),
        ("", "x", "<tool_use_error>Cannot create new file - file already exists.</tool_use_error>"),
    ],
)
def test_an_edit_that_is_refused_changes_nothing(folder: Path, old: str, new: str, message: str) -> None:
    before = (folder / "twice.txt").read_bytes()
    result = call(folder, "Edit", file_path="twice.txt", old_string=old, new_string=new)
    assert result.text.startswith(message)
    assert (result.is_error, result.validation) == (True, True)
    assert (folder / "twice.txt").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Write", {}, "Error: No such tool available: Write"),
        (
            "Read",
            {},
            "InputValidationError: Read failed due to the following issue:\nThe required parameter `file_path`",
        ),
        ("Read", {"file_path": "a", "x": "b"}, "An unexpected parameter `x` was provided"),
        ("Bash", {"command": 3}, "expected as `string` but provided as `integer`"),
    ],
)
def test_wrong_calls_get_claude_codes_answer(folder: Path, name: str, arguments: dict[str, Any], message: str) -> None:
    result = WorkspaceTools(folder).run(name, arguments)
    assert message in result.text
    assert result.text.startswith("<tool_use_error>")
    assert result.validation


def test_bash_reports_exit_code_stdout_and_stderr(folder: Path) -> None:
    assert call(folder, "Bash", command="echo out; echo err >&2; exit 3").text == "Exit code 3\nout\nerr"
    assert call(folder, "Bash", command="grep b: twice.txt").text == "b: 2"
    for command in ("grep zzz twice.txt", "ls; cat twice.txt | grep zzz", "test -f zzz"):
        assert not call(folder, "Bash", command=command).is_error, "nothing found is an answer"
    assert call(folder, "Bash", command="grep zzz twice.txt").text == "(Bash completed with no output)"
    assert call(folder, "Bash", command="grep zzz twice.txt || false").text == "Exit code 1"
    assert call(folder, "Bash", command="true").text == "(Bash completed with no output)"
    assert call(folder, "Bash", command="echo a; echo b >&2").text == "a\nb"
    assert call(folder, "Bash", command="pwd").text == str(folder)
    assert call(folder, "Bash", command="echo a\0b").is_error


def test_bash_finds_only_harmless_programs(folder: Path) -> None:
    for command in ("rm schema.py", "curl localhost", "python3 -c 1"):
        assert call(folder, "Bash", command=command).text.startswith("Exit code 127")
    assert (folder / "schema.py").exists()


def test_a_command_that_hangs_is_ended_with_its_children(folder: Path) -> None:
    started = time.monotonic()
    finished = run_shell("while :; do :; done & echo begun; wait", folder, timeout=0.4)
    assert time.monotonic() - started < 5
    assert finished.status == 143
    assert finished.stdout == "begun\n"
    assert "timed out" in finished.stderr


@pytest.mark.parametrize(
    "command", [*QUERIES, 'sqlite3 grid.db "SELECT nothing FROM feeders"', 'sqlite3 grid.db "SELEC"']
)
def test_the_fast_path_equals_the_shim_on_path(folder: Path, command: str) -> None:
    quick, slow = call(folder, "Bash", command=command), call(folder, "Bash", command=f" {command}")
    assert quick.text == slow.text
    assert quick.structured == slow.structured


def test_the_shim_serves_every_other_way_to_call_it(folder: Path) -> None:
    assert call(folder, "Bash", command="sqlite3 grid.db .tables | sort").text == "feeders\ntransformers"
    header = call(folder, "Bash", command="sqlite3 -header grid.db 'SELECT id, name FROM feeders' | head -n 1")
    assert header.text == "id|name"
    assert "unknown option: -json" in call(folder, "Bash", command="sqlite3 -json grid.db 'SELECT 1'").text
    assert call(folder, "Bash", command="sqlite3 grid.db").text.startswith("Exit code 1\nUsage:")
    update = "sqlite3 grid.db \"UPDATE feeders SET status='x'\""
    assert call(folder, "Bash", command=update).text == "(Bash completed with no output)"
    assert call(folder, "Bash", command='sqlite3 grid.db "SELECT DISTINCT status FROM feeders"').text == "x"


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="this machine has no sqlite3 command to compare with")
@pytest.mark.parametrize("command", QUERIES)
def test_the_shim_prints_what_the_sqlite3_command_prints(folder: Path, command: str) -> None:
    real = subprocess.run(shlex.split(command), cwd=folder, capture_output=True, text=True, check=True)
    assert [line.strip() for line in run_shell(command, folder).stdout.splitlines()] == [
        line.strip() for line in real.stdout.splitlines()
    ]


def test_tools_are_listed_as_a_dataset_of_recorded_sessions_lists_them() -> None:
    assert [short_schema(tool) for tool in api_tools()] == TOOLS
    names = [tool["function"]["name"] for tool in TOOLS]
    assert names == sorted(names)


@settings(max_examples=60)
@given(
    name=st.sampled_from(["Read", "Grep", "Edit", "Nope"]),
    arguments=st.dictionaries(
        st.sampled_from(["file_path", "pattern", "path", "old_string", "new_string", "output_mode"]),
        st.one_of(st.text(max_size=12), st.sampled_from(["schema.py", ".", "config", "content"]), st.integers()),
    ),
)
def test_no_call_raises_and_every_refusal_says_so(name: str, arguments: dict[str, Any]) -> None:
    workspace = draw_workspace(random.Random(5))
    with tempfile.TemporaryDirectory() as folder:
        result = WorkspaceTools(workspace.materialise(Path(folder))).run(name, arguments)
        assert result.text
        assert result.is_error == (result.structured is None)
        if name != "Edit" or result.is_error:
            assert workspace.files_changed(Path(folder)) == []
