"""A gateway between a scripted teacher and a scripted local server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from loopback_servers import House, Running, Script, Upstream

from trainer.config import Config, RolloutConfig
from trainer.rollout.controller import open_rollout
from trainer.rollout.gateway import Gateway


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Starts a house; `weight` percent of new sessions are the student's."""
    with ExitStack() as stack:

        def start(
            teacher: Script, local: Script, *, weight: float = 100, local_seconds: float = 60, **rollout: Any
        ) -> House:
            one, other = stack.enter_context(Upstream(teacher)), stack.enter_context(Upstream(local))
            urls = {"teacher_url": one.url, "local_url": other.url} | rollout
            config = Config(rollout=RolloutConfig(weights=[weight], **urls))
            state = open_rollout(tmp_path / "rollout", config.rollout)
            stack.callback(state.close)
            running = stack.enter_context(Running(Gateway(config, state, local_seconds=local_seconds).app()))
            return House(running.url, one, other, state, tmp_path / "rollout")

        yield start
