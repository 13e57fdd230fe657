"""With every fault in a fifth of the requests, no session fails where another could answer; the rest has a name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fault_kit import FAULTS, TEACHER_FAULTS, run_kit

SESSIONS = 12


@pytest.mark.parametrize("fault", FAULTS)
def test_no_session_fails_when_the_local_server_does(tmp_path: Path, fault: str) -> None:
    result = asyncio.run(run_kit(tmp_path, fault, ("local",), sessions=SESSIONS, share=0.3))
    assert result.injected["local"] > 0
    assert sum(result.rescued.values()) >= result.injected["local"]
    assert (result.failed, result.named) == (set(), {})
    if fault in ("stall", "slow_bytes"):
        assert result.pings > 0


@pytest.mark.parametrize("fault", TEACHER_FAULTS)
def test_what_nobody_else_can_answer_is_counted_and_named(tmp_path: Path, fault: str) -> None:
    result = asyncio.run(run_kit(tmp_path, fault, ("teacher",), sessions=SESSIONS, share=0.3))
    assert result.failed
    assert set(result.named) == result.failed
    assert result.injected["local"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_two_hundred_sessions_with_both_sides_failing(tmp_path: Path, fault: str) -> None:
    alone = asyncio.run(run_kit(tmp_path / "alone", fault, ("local",)))
    assert (alone.failed, alone.named) == (set(), {})
    if fault in TEACHER_FAULTS:
        both = asyncio.run(run_kit(tmp_path / "both", fault, ("local", "teacher")))
        assert set(both.named) == both.failed
