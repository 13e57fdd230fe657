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
from trainer.export.student_prompt import StudentPrompt
from trainer.rollout.controller import Controller, open_rollout
from trainer.rollout.gateway import Gateway
from trainer.rollout.local_student import Student


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Starts a house; `weight` percent of new sessions are the student's."""
    with ExitStack() as stack:

        def start(
            teacher: Script,
            local: Script,
            *,
            weight: float = 100,
            prompt: StudentPrompt | None = None,
            token: str = "",
            **rollout: Any,
        ) -> House:
            one, other = stack.enter_context(Upstream(teacher)), stack.enter_context(Upstream(local))
            keys = {"teacher_url": one.url, "local_url": other.url, "local_seconds": 60} | rollout
            config = Config(models=str(tmp_path), rollout=RolloutConfig(weights=[weight], **keys))
            state = open_rollout(tmp_path / "rollout", config.rollout)
            stack.callback(state.close)
            Controller(state, config).admit(who="test", force="test")
            student = Student("cc-claude-agent", "llama-claude-ppo-v1", prompt or StudentPrompt(config.dataset))
            running = stack.enter_context(Running(Gateway(config, state, student=student, token=token)))
            return House(running.url, one, other, state, tmp_path / "rollout")

        yield start
