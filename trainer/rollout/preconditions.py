"""What a model must have shown before its first real session: the quality gate, and the blind test.

The blind test is asked for its claim "success", I > 45 %. By default its point verdict counts: the observed share is
above, and the interval does not refute it. The interval verdict SUPPORTED would be the better proof, but with 50
choices it takes 29 wrong ones, which even a perfect student reaches one time in six; it can be demanded.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from trainer.config import Config, RolloutConfig
from trainer.errors import TrainerError

CLAIM = "success"


def preconditions(config: Config) -> list[str]:
    """What is missing, one line each; empty where the model may leave the shadow."""
    from trainer.export.registry import Registry

    registry = Registry(Path(config.models))
    chosen = config.rollout.student
    if chosen.endswith(".gguf"):
        entry = registry.entry_of(Path(chosen))
        missing = f"{chosen} is not in {registry.path}; name a registered model in rollout.student"
    else:
        file = registry.read()
        name = chosen or file.current
        entry = next((model for model in file.models if model.name == name), None)
        missing = f"{registry.path} has no model {name}" if name else f"{registry.path} has no current model"
        missing += "; see `claude-trainer models list` and `claude-trainer models promote`"
    if entry is None:
        return [missing, *_blind_test(config.rollout, None)]
    found = [f"{entry.name}: {obstacle}" for obstacle in entry.obstacles]
    return found + _blind_test(config.rollout, entry.name)


def _blind_test(config: RolloutConfig, model: str | None) -> list[str]:
    from trainer.evaluate.blind_test_report import BlindTestReport

    if not config.blind_test:
        return ["no blind test: set rollout.blind_test to the report.json of `claude-trainer blind-test report`"]
    path = Path(config.blind_test)
    try:
        report = BlindTestReport.model_validate(json.loads(path.read_text("utf-8")))
        verdict = report.verdicts[CLAIM]
    except FileNotFoundError:
        return [f"no blind test: {path} does not exist; `claude-trainer blind-test report` writes it"]
    except (OSError, ValueError, KeyError, ValidationError) as error:
        return [f"{path}: not the report of a blind test ({type(error).__name__}); write it again"]
    if model is not None and model not in report.students:
        return [f"{path}: the blind test was of {', '.join(report.students) or 'nobody'}, not of {model}"]
    said = f"{report.wrong} of {report.choices} choices wrong, {verdict.interval}"
    if verdict.interval == "REFUTED" or verdict.point != "above":
        return [f"{path}: the blind test was not passed, I > {100 * verdict.threshold:g} % wanted ({said})"]
    if config.blind_verdict == "interval" and verdict.interval != "SUPPORTED":
        more = f"; about {verdict.more_samples:,} more choices would settle it" if verdict.more_samples else ""
        return [f"{path}: the blind test proves nothing yet, SUPPORTED wanted ({said}{more})"]
    return []


def preconditions_or_fault(config: Config) -> list[str]:
    """The same; a registry that cannot be read is a precondition that is not met."""
    try:
        return preconditions(config)
    except TrainerError as error:
        return [str(error)]
