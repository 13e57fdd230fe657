"""One base for all tests of SFT."""

from __future__ import annotations

import pytest

from tests.trainer.student.tiny_bases import tiny_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_base(tmp_path_factory.mktemp("bases"))
