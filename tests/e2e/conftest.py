"""Fixtures that drive real programs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def claude_binary() -> Path:
    """The real Claude Code; without it the test is skipped, or fails where CLAUDE_CAPTURE_REQUIRE_CLI=1."""
    from claude_code_cli import Unavailable, find_or_install

    try:
        return find_or_install()
    except Unavailable as reason:
        if os.environ.get("CLAUDE_CAPTURE_REQUIRE_CLI") == "1":
            pytest.fail(str(reason))
        pytest.skip(str(reason))
