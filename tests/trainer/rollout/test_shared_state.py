"""Several connections and processes on one state: each sees what the others decided."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trainer.config import Config, RolloutConfig
from trainer.rollout import session_pinning
from trainer.rollout.controller import Controller, open_rollout

STAGES = RolloutConfig(weights=[5, 20, 50, 80])
WIDEN = """
import sys
from pathlib import Path
from trainer.config import RolloutConfig
from trainer.rollout.controller import open_rollout
from trainer.rollout.rollout_state import Decision
state = open_rollout(Path(sys.argv[1]), RolloutConfig(weights=[5, 20, 50, 80]))
visit = state.current()
state.enter(float(sys.argv[2]), Decision("force", "kim", "test", {}), after=visit.id)
state.close()
"""


def test_a_gateway_that_has_judged_a_stage_still_sees_what_other_processes_decide(tmp_path: Path) -> None:
    """A second connection of the gateway's, closed, once cut the first one off from every later decision."""
    gateway = open_rollout(tmp_path / "rollout", STAGES)
    open_rollout(tmp_path / "rollout", STAGES).close()  # as the watch of the stage does
    for weight in (20, 50, 80):
        subprocess.run([sys.executable, "-c", WIDEN, str(tmp_path / "rollout"), str(weight)], check=True)
        assert gateway.current().weight == weight
        gateway.pins.pin(f"session at {weight}", weight, gateway.current().id)
    gateway.close()
    again = open_rollout(tmp_path / "rollout", STAGES)
    assert all(again.pins.find(f"session at {weight}") for weight in (20, 50, 80)), "pins outlive the process"
    again.close()


def test_an_abort_while_a_session_is_pinned_takes_that_session_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(rollout=RolloutConfig(weights=[100]))
    gateway, terminal = (open_rollout(tmp_path / "rollout", config.rollout) for _ in range(2))
    abort = threading.Thread(target=lambda: Controller(terminal, config).abort(who="kim"))

    def bucket(*_: str) -> int:
        """The hash; the abort comes after the look at the stage and before the pin."""
        abort.start()
        abort.join(0.3)  # it has to wait for the transaction; without one it would be done
        return 0

    monkeypatch.setattr(session_pinning, "bucket", bucket)
    assert gateway.place("s")[1] == "student"
    abort.join(30)
    assert gateway.place("s")[1] == "teacher"
    assert gateway.current().weight == 0
    gateway.close()
    terminal.close()
