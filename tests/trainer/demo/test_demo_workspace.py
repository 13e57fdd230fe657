"""Workspaces: drawn from a seed, the same bytes each time, and watched for changes."""

from __future__ import annotations

import itertools
import random
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.demo.workspace import TRANSFORMER_IDS, draw_workspace


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_seed_materialises_to_the_same_bytes_twice(tmp_path: Path) -> None:
    first = draw_workspace(random.Random(7)).materialise(tmp_path / "a")
    second = draw_workspace(random.Random(7)).materialise(tmp_path / "b")
    other = draw_workspace(random.Random(8)).materialise(tmp_path / "c")
    assert folder_bytes(first) == folder_bytes(second) != folder_bytes(other)


def test_the_database_holds_the_rows_of_the_specification(tmp_path: Path) -> None:
    workspace = draw_workspace(random.Random(1))
    connection = sqlite3.connect(workspace.materialise(tmp_path) / "grid.db")
    assert tuple(connection.execute("SELECT * FROM transformers")) == workspace.transformers
    assert tuple(connection.execute("SELECT * FROM feeders")) == workspace.feeders
    connection.close()


@given(st.integers(0, 10_000), st.lists(st.sampled_from(TRANSFORMER_IDS), unique=True, max_size=4))
def test_tasks_find_what_they_rely_on(seed: int, ids: list[int]) -> None:
    workspace = draw_workspace(random.Random(seed), ids)
    rows = workspace.transformers
    assert len({row.id for row in rows}) == 12
    assert set(ids) <= {row.id for row in rows}
    assert len({row.name for row in rows}) == 12
    for feeder in workspace.feeders:
        assert sum(row.feeder_id == feeder.id for row in rows) == 3
    numbers = [str(value) for row in rows for value in row] + [
        line for text in workspace.files.values() for line in text
    ]
    assert not any(a == b and a.isdigit() for text in numbers for a, b in itertools.pairwise(text))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: None, []),
        (lambda folder: (folder / "schema.py").write_text("x"), ["schema.py"]),
        (lambda folder: (folder / "new.txt").write_text("x"), ["new.txt"]),
        (lambda folder: (folder / "grid.db").unlink(), ["grid.db"]),
    ],
)
def test_changed_added_and_removed_files_are_named(tmp_path: Path, change: object, expected: list[str]) -> None:
    workspace = draw_workspace(random.Random(3))
    folder = workspace.materialise(tmp_path)
    assert callable(change)
    change(folder)
    assert workspace.files_changed(folder) == expected
