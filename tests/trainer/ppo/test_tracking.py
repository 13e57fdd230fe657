"""Metrics in TensorBoard, for real, and one line where a tracker's package is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.ppo.micro import LetterReward
from trainer.config import Config, TrackingConfig
from trainer.errors import TrainerError
from trainer.ppo.ppo_trainer import train_ppo
from trainer.ppo.tracking import flat
from trainer.run_folder import RunFolder
from trainer.student.episodes import Case

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def test_metrics_are_flattened_to_numbers() -> None:
    line = {"kl": 1.5, "kl_stop": True, "components": {"tool_use": 0.5, "depth": None}, "why": "text", "rows": [1]}
    assert flat(line) == {"kl": 1.5, "kl_stop": 1.0, "components/tool_use": 0.5}


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is an optional package")
def test_tensorboard_holds_every_update(
    micro_model: Callable[[], Any], tokenizer: Any, cases: list[Case], ppo_config: Callable[..., Config], runs: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = ppo_config(updates=2).model_copy(update={"tracking": TrackingConfig(trackers=["tensorboard"])})
    run = RunFolder(runs, "ppo", config)
    train_ppo(micro_model(), tokenizer, cases, cases[:2], LetterReward(), config, run)
    stored = EventAccumulator(str(run.path / "tensorboard"))
    stored.Reload()
    assert {"reward", "kl", "components/outcome", "seconds/learn", "validation/reward"} <= set(stored.Tags()["scalars"])
    logged = [(event.step, pytest.approx(event.value, abs=1e-5)) for event in stored.Scalars("reward")]
    assert logged == [(row["update"], row["reward"]) for row in run.metrics()[1:]]


def test_tracker_that_is_not_installed_is_named_before_anything_is_trained(
    micro_model: Callable[[], Any],
    tokenizer: Any,
    cases: list[Case],
    ppo_config: Callable[..., Config],
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name))
    config = ppo_config().model_copy(update={"tracking": TrackingConfig(trackers=["wandb"])})
    run = RunFolder(runs, "ppo", config)
    with pytest.raises(TrainerError, match="wandb is not installed; `pip install wandb`, or take it off the list"):
        train_ppo(micro_model(), tokenizer, cases, [], LetterReward(), config, run)
    assert run.metrics() == []
