"""Both command lines keep their promises: help everywhere and at once, exit 2 for misuse, 1 and one line for errors."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "data" / "samples" / "v1"
BIN = Path(sys.executable).parent
HEAVY = {
    "claude_capture": {"torch", "transformers", "pydantic", "matplotlib", "numpy", "rich", "orjson", "watchdog"},
    "trainer": {"torch", "transformers", "matplotlib", "numpy", "trl", "peft", "datasets", "llama_cpp", "starlette"},
}
"""What --help of a package must not import."""
LEAVES = {
    "claude_capture": """install uninstall status doctor pause resume import watch
        traces+list traces+show traces+stats traces+validate traces+forget""",
    "trainer": """demo train dataset+build dataset+audit dataset+export sft ppo mine gate baselines reward+score
        export doctor serve deploy rollback blind-test+create blind-test+serve blind-test+report
        rollout+serve rollout+status rollout+advance rollout+abort""",
}
"""Every command of the design; a group and its subcommand are joined by `+`."""
WALK = """
import contextlib, importlib, io, json, sys
import click
module = importlib.import_module(sys.argv[1] + ".cli")

def ended(arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            module.main(arguments)
            status = 0
        except SystemExit as left:
            status = left.code or 0
    return status, out.getvalue() + err.getvalue()

found = {}
def walk(command, path):
    context = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            walk(command.get_command(context, name), [*path, name])
    found["+".join(path)] = {"help": ended([*path, "--help"]), "misuse": ended([*path, "--no-such-option"])}

root = ended(["--help"])
after_root = sorted(sys.modules)
walk(module.cli, [])
print(json.dumps({"root": root, "after_root": after_root, "modules": sorted(sys.modules), "found": found}))
"""


def run(*arguments: str | Path, folder: Path, file_limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command of ours in a home of its own; `file_limit` is the longest file in bytes, as on a full disk.

    No bytecode is written: under the limit Python would leave cut .pyc files behind, which break every later run.
    """
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    command = [str(BIN / str(arguments[0])), *map(str, arguments[1:])]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, preexec_fn=limit, check=False
    )


@pytest.fixture(scope="module", params=["claude_capture", "trainer"])
def walked(request: pytest.FixtureRequest) -> tuple[str, dict]:
    """(package, what a fresh interpreter saw on its way through all commands)."""
    ended = subprocess.run(
        [sys.executable, "-c", WALK, request.param], capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return request.param, json.loads(ended.stdout)


def test_every_command_of_the_design_is_there(walked: tuple[str, dict]) -> None:
    package, seen = walked
    assert set(LEAVES[package].split()) <= set(seen["found"])


def test_every_command_has_help(walked: tuple[str, dict]) -> None:
    for command, ended in walked[1]["found"].items():
        status, text = ended["help"]
        assert status == 0, command
        assert "Usage:" in text, command
        assert "--help" in text, command


def test_unknown_options_end_in_status_2(walked: tuple[str, dict]) -> None:
    for command, ended in walked[1]["found"].items():
        status, text = ended["misuse"]
        assert status == 2, command
        assert "--no-such-option" in text, command


def test_help_imports_nothing_heavy(walked: tuple[str, dict]) -> None:
    package, seen = walked
    assert seen["root"][0] == 0
    assert not HEAVY[package] & set(seen["after_root"])
    assert not (HEAVY[package] - {"rich", "orjson"}) & set(seen["modules"]), "by the help of a subcommand"


def one_line(ended: subprocess.CompletedProcess[str], program: str) -> str:
    """The one line on stderr that a known error ends in."""
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout.strip() == ""
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith(f"{program}: ")
    return lines[0]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "no such config"),
        ("[sft]\nlearning_rat = 1\n", "unknown key 'sft.learning_rat'; did you mean 'sft.learning_rate'?"),
    ],
)
def test_config_that_cannot_be_used_is_one_line(config: str | None, said: str, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "my.toml").write_text(config)
    line = one_line(run("claude-trainer", "train", "--config", "my.toml", folder=tmp_path), "claude-trainer")
    assert "my.toml" in line
    assert said in line
    assert not (tmp_path / "runs").exists()


def test_doctor_refuses_what_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "notagguf").write_text("hello")
    line = one_line(run("claude-trainer", "doctor", "notagguf", folder=tmp_path), "claude-trainer")
    assert "notagguf: not a GGUF" in line


def with_traces(folder: Path) -> Path:
    """A data root that holds the sample traces, and a dataset of earlier."""
    data = folder / "data"
    for name, text in (
        ("traces/traces.jsonl", (SAMPLES / "traces.jsonl").read_bytes()),
        ("datasets/bc_dataset.jsonl", b"{}\n"),
    ):
        (data / name).parent.mkdir(parents=True)
        (data / name).write_bytes(text)
    return data


def test_no_samples_after_the_rights_rule_names_what_to_add(tmp_path: Path) -> None:
    data = with_traces(tmp_path)
    line = one_line(run("claude-trainer", "dataset", "build", "--data", data, folder=tmp_path), "claude-trainer")
    assert "[[teachers]]" in line
    assert 'match = "scripted-teacher-1"' in line
    assert (data / "datasets" / "bc_dataset.jsonl").read_bytes() == b"{}\n"


def test_full_disk_leaves_the_earlier_dataset(tmp_path: Path) -> None:
    data = with_traces(tmp_path)
    config = ROOT / "configs" / "tiny.toml"
    ended = run(
        "claude-trainer", "dataset", "build", "--data", data, "--config", config, folder=tmp_path, file_limit=4096
    )
    one_line(ended, "claude-trainer")
    assert (data / "datasets" / "bc_dataset.jsonl").read_bytes() == b"{}\n"


def test_full_disk_leaves_the_earlier_traces(tmp_path: Path) -> None:
    data = with_traces(tmp_path)
    before = (SAMPLES / "traces.jsonl").read_bytes().splitlines(keepends=True)[0]
    (data / "traces" / "traces.jsonl").write_bytes(before)
    ended = run(
        "claude-capture", "import", SAMPLES / "sessions", "--data", data, folder=tmp_path, file_limit=len(before) + 100
    )
    line = one_line(ended, "claude-capture")
    assert "traces.jsonl" in line
    assert (data / "traces" / "traces.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("foreign.json", '{"a": 1}\n', "not a Claude Code session"),
        ("array.jsonl", '[{"a": 1}]\n', "a JSON array"),
        ("gone.jsonl", None, "no such file or folder"),
    ],
)
def test_foreign_and_missing_files_are_not_imported(name: str, text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    line = one_line(run("claude-capture", "import", name, "--data", "data", folder=tmp_path), "claude-capture")
    assert name in line
    assert said in line
    assert not (tmp_path / "data" / "traces" / "traces.jsonl").exists()


def test_torn_transcript_is_imported_as_far_as_it_goes_and_counted(tmp_path: Path) -> None:
    whole = next(iter(sorted((SAMPLES / "sessions").glob("*.jsonl")))).read_bytes()
    (tmp_path / "torn.jsonl").write_bytes(whole[: len(whole) // 2])
    ended = run("claude-capture", "import", "torn.jsonl", "--data", "data", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "1 new trace," in ended.stdout
    assert "lines set aside: 1 cut last line" in ended.stdout


def test_unknown_trace_says_where_the_ids_are(tmp_path: Path) -> None:
    ended = run("claude-capture", "traces", "show", "zzz", "--data", with_traces(tmp_path), folder=tmp_path)
    assert "`claude-capture traces list`" in one_line(ended, "claude-capture")


def test_scores_of_foreign_records_name_the_line(tmp_path: Path) -> None:
    (tmp_path / "foreign.jsonl").write_text('{"a": 1}\n')
    files = ("--teacher", SAMPLES / "traces.jsonl", "--student", "foreign.jsonl")
    ended = run("claude-trainer", "reward", "score", *files, folder=tmp_path)
    assert "foreign.jsonl:1: not a Trace" in one_line(ended, "claude-trainer")
