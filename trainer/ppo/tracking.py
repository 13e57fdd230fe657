"""PPO's metrics in TensorBoard or Weights & Biases, through accelerate's trackers."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.config import TrackingConfig
from trainer.errors import TrainerError


class Trackers:
    """Opens the trackers of the config in the main process; nothing where there are none.

    Args:
        folder: the run's folder; what a tracker stores locally goes below it.
        accelerator: of the training.

    Raises:
        TrainerError: the package of a tracker is not installed.
    """

    def __init__(self, config: TrackingConfig, folder: Path, accelerator: Any) -> None:
        missing = [name for name in config.trackers if importlib.util.find_spec(name) is None]
        if missing:
            raise TrainerError(
                f"tracking.trackers: {missing[0]} is not installed; `pip install {missing[0]}`, or take it off the list"
            )
        self._open: list[Any] = []
        if config.trackers and accelerator.is_main_process:
            from accelerate.tracking import LOGGER_TYPE_TO_CLASS

            options = {
                "tensorboard": {"run_name": "tensorboard", "logging_dir": str(folder)},
                "wandb": {"run_name": config.project, "name": folder.name, "dir": str(folder)},
            }
            for name in config.trackers:
                self._open.append(LOGGER_TYPE_TO_CLASS[name](**options[name]))
                self._open[-1].start()

    def log(self, update: int, metrics: Mapping[str, Any]) -> None:
        """Sends every number of a metric line, nested ones as `components/tool_use`."""
        for tracker in self._open:
            tracker.log(flat(metrics), step=update)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_: object) -> None:
        for tracker in self._open:
            tracker.finish()


def flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of nested mappings under joined names; text, lists and None are left out."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/")
        elif isinstance(value, bool | int | float):
            found[f"{prefix}{name}"] = float(value)
    return found
