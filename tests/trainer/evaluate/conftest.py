"""A created test of eight pairs; raters go home after each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from blind_test_traces import student_of, trace
from served_blind_test import Rater

from trainer.config import EvaluateConfig
from trainer.evaluate.blind_test_folder import create_test


@pytest.fixture
def blind_test(tmp_path: Path) -> Path:
    """Folder of a test with eight pairs and no controls."""
    teachers = {item.trace_id: item for item in (trace(number) for number in range(8))}
    students = {name: student_of(item) for name, item in teachers.items()}
    create_test(tmp_path / "test", teachers, students, EvaluateConfig(pairs=8, controls=0, seed=3))
    return tmp_path / "test"


@pytest.fixture(autouse=True)
def raters_go_home() -> Iterator[None]:
    """Closes the connections of all raters of the test."""
    yield
    while Rater.opened:
        Rater.opened.pop().close()
