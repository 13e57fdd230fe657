"""Imports run one way: hooks → nothing; claude_capture → nothing of trainer; a stage → earlier stages only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ("errors", "config", "records", "run_folder", "processes", "loopback", "student")
"""Modules of the trainer that every stage may use; `student` is the chat format and the model, no stage."""
ORDER = ("dataset", "sft", "reward", "ppo", "baselines", "export", "deploy", "evaluate", "rollout", "serve")
REPORTERS = ("ppo", "baselines", "evaluate", "rollout", "export")
"""Stages that draw reports."""
WIRING = ("pipeline", "road_files", "student_versions", "previous_version", "cli", "command", "config_docs", "terminal")
WIRING += ("preflight", "preflight_hub", "preflight_memory", "preflight_command", "runs_command")
"""Modules at the top of trainer/ that know the stages, or show them."""


def imported_modules(file: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function, as a dotted name."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import; name the module in full"
            yield f"{node.module}"
            if node.module in ("trainer", "claude_capture"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def python_files(folder: str) -> list[Path]:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"no Python files under {folder}"
    return files


def trainer_parts(file: Path) -> set[str]:
    """The rooms and modules of trainer/ that a file imports: `ppo` for trainer.ppo.heldout."""
    names = (name.split(".") for name in imported_modules(file))
    return {parts[1] for parts in names if parts[0] == "trainer" and len(parts) > 1}


def test_hooks_import_only_the_standard_library() -> None:
    foreign = {
        (file.name, name)
        for file in python_files("hooks")
        for name in imported_modules(file)
        if name.split(".")[0] not in sys.stdlib_module_names
    }
    assert not foreign


def test_capture_never_imports_the_trainer() -> None:
    guilty = [
        f.name for f in python_files("claude_capture") if any(n.split(".")[0] == "trainer" for n in imported_modules(f))
    ]
    assert not guilty


def test_every_room_of_the_trainer_has_its_place() -> None:
    rooms = {folder.name for folder in (ROOT / "trainer").iterdir() if (folder / "__init__.py").is_file()}
    assert rooms == {*ORDER, "student", "report", "demo"}


@pytest.mark.parametrize("stage", ORDER)
def test_stage_imports_no_later_stage(stage: str) -> None:
    allowed = {*SHARED, *ORDER[: ORDER.index(stage) + 1], *(("report",) if stage in REPORTERS else ())}
    for file in python_files(f"trainer/{stage}"):
        extra = {"pipeline", "student_versions", "terminal"} if file.name == "command.py" else set()
        assert trainer_parts(file) <= allowed | extra, file


def test_student_and_report_import_no_stage() -> None:
    for room in ("student", "report"):
        for file in python_files(f"trainer/{room}"):
            assert trainer_parts(file) <= {*SHARED, room}, file


def test_shared_modules_import_no_room() -> None:
    for name in ("errors", "config", "records", "run_folder", "processes", "loopback", "terminal"):
        assert trainer_parts(ROOT / "trainer" / f"{name}.py") <= {"errors", "config", "records", "processes"}, name


def test_every_module_at_the_top_of_the_trainer_is_shared_or_wiring() -> None:
    modules = {file.stem for file in (ROOT / "trainer").glob("*.py")} - {"__init__"}
    assert modules <= {*SHARED, *WIRING}
