"""Sessions fall where the weight says, stay there, and the decision outlives the process."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from trainer.rollout.rollout_state import RolloutState
from trainer.rollout.session_pinning import BUCKETS, bucket, side_at

WEIGHTS = (0, 5, 20, 50, 80, 100)


def sessions(count: int) -> list[str]:
    draw = random.Random(11)
    return [str(uuid.UUID(int=draw.getrandbits(128), version=4)) for _ in range(count)]


@pytest.mark.parametrize("weight", [5, 20, 50, 80])
def test_share_of_twenty_thousand_sessions_is_within_its_binomial_interval(weight: float) -> None:
    local = sum(side_at(weight, bucket("salt", session)) == "student" for session in sessions(20_000))
    low, high = binom.interval(0.999, 20_000, weight / 100)
    assert low <= local <= high


def test_two_salts_choose_independently() -> None:
    both = sum(bucket("a", name) < BUCKETS / 2 and bucket("b", name) < BUCKETS / 2 for name in sessions(20_000))
    low, high = binom.interval(0.999, 20_000, 0.25)
    assert low <= both <= high


@given(st.text(max_size=60), st.text(max_size=60))
def test_widening_never_removes_a_member(salt: str, session: str) -> None:
    place = bucket(salt, session)
    assert 0 <= place < BUCKETS
    sides = [side_at(weight, place) for weight in WEIGHTS]
    assert sides == sorted(sides, reverse=True)  # teacher … teacher student … student
    assert (sides[0], sides[-1]) == ("teacher", "student")


def test_a_session_keeps_its_side_when_the_stage_widens(tmp_path: Path) -> None:
    state = RolloutState(tmp_path, "salt", 5)
    before = {name: state.pins.pin(name, 5, 1) for name in sessions(300)}
    after = {name: state.pins.pin(name, 80, 2) for name in sessions(300)}
    state.close()
    assert all(pin.new for pin in before.values())
    assert not any(pin.new for pin in after.values())
    assert {name: pin.side for name, pin in before.items()} == {name: pin.side for name, pin in after.items()}
    assert {pin.side for pin in before.values()} == {"student", "teacher"}


def test_pins_survive_kill_minus_nine(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from trainer.rollout.rollout_state import RolloutState\n"
        "state = RolloutState(Path(sys.argv[1]), 'salt', 50)\n"
        "for n in range(100_000): print(n, state.pins.pin(f's{n}', 50, 1).side, flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    seen += [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.stdout.close()
    process.wait()
    state = RolloutState(tmp_path, "salt", 50)
    for line in seen:
        number, side = line.split()
        pin = state.pins.pin(f"s{number}", 0, 9)
        assert (pin.side, pin.new) == (side, False)
    state.close()
