"""What goes wrong in a run is handled by rule, counted in the metrics, and does not end the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from claude_capture.claude_trace_schema import Trace
from trainer.config import Config, RewardConfig
from trainer.errors import TrainerError
from trainer.ppo.cases import cases_from
from trainer.ppo.learner import Learner
from trainer.ppo.ppo_trainer import train_ppo
from trainer.ppo.rollout_buffer import collect
from trainer.ppo.value_head import adapter_state, frozen_reference
from trainer.records import RewardBreakdown, RewardComponents
from trainer.reward.behavioral_reward_model import BehavioralRewardModel
from trainer.run_folder import RunFolder
from trainer.student.episodes import Case

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

Make = Callable[[], Any]
MakeConfig = Callable[..., Config]


class Moody:
    """The letter reward, but what it says of every n-th whole episode is spoilt by `spoil`."""

    def __init__(self, reward: Any, spoil: Callable[[RewardBreakdown], Any], every: int) -> None:
        self.reward, self.spoil, self.every, self.episodes = reward, spoil, every, 0

    def score(self, student: Trace, references: Sequence[Trace]) -> Any:
        self.episodes += bool(student.steps)
        breakdown = self.reward.score(student, references)
        return self.spoil(breakdown) if student.steps and self.episodes % self.every == 0 else breakdown


def raising(breakdown: RewardBreakdown) -> Any:
    raise ValueError("no such file")


def nothing_applies(breakdown: RewardBreakdown) -> RewardBreakdown:
    return breakdown.model_copy(update={"components": RewardComponents()})


def not_a_number(breakdown: RewardBreakdown) -> RewardBreakdown:
    return breakdown.model_copy(update={"total": float("nan")})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (raising, "ValueError: no such file"),
        (nothing_applies, "no component applies"),
        (not_a_number, "not a number"),
        (lambda breakdown: None, "'NoneType' object has no attribute"),
    ],
    ids=["raises", "empty", "nan", "none"],
)
def test_episode_without_a_reward_is_dropped_and_counted(
    micro_model: Make,
    tokenizer: Any,
    cases: list[Case],
    letter_reward: Any,
    ppo_config: MakeConfig,
    runs: Path,
    spoil: Any,
    reason: str,
) -> None:
    config = ppo_config(updates=2)
    run = RunFolder(runs, "ppo", config)
    reward = Moody(letter_reward, spoil, every=3)
    train_ppo(micro_model(), tokenizer, cases, [], reward, config, run)
    learned = run.metrics()[1:]
    assert all(row["learned"] for row in learned)
    assert sum(row.get("dropped", {}).get("reward", 0) for row in learned) == 5
    assert all(reason in row["dropped_first"] for row in learned)


class Unreliable:
    """Environments of which every n-th cannot be opened."""

    def __init__(self, case: Case, every: int) -> None:
        self.case, self.every, self.opened = case, every, 0

    def __call__(self) -> Any:
        self.opened += 1
        if self.opened % self.every == 0:
            raise ConnectionError("sandbox refused")
        return self.case.make_environment()


def test_environment_that_raises_costs_its_episode_alone(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    config = ppo_config(updates=3)
    run = RunFolder(runs, "ppo", config)
    shaky = [replace(case, make_environment=Unreliable(case, 3)) for case in cases]
    train_ppo(micro_model(), tokenizer, shaky, [], letter_reward, config, run)
    dropped = [row["dropped"]["environment"] for row in run.metrics()[1:] if "dropped" in row]
    assert sum(dropped) == 6  # each of six is opened five times: once to be measured, four times to be worked on
    first = next(row["dropped_first"] for row in run.metrics() if "dropped" in row)
    assert first.startswith("environment: case-")
    assert first.endswith("ConnectionError: sandbox refused")


def test_prompt_longer_than_the_window_is_left_out_and_named(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    model, longest = micro_model(), 512  # positions of the micro model
    words = [{"role": "user", "content": "please fix the typo " * longest}]
    endless = SimpleNamespace(tools=[], reset=lambda: words, step=lambda turn: None)
    config = ppo_config(updates=2)
    run = RunFolder(runs, "ppo", config)
    long = Case("endless", (), lambda: endless, split="train")  # type: ignore[arg-type, return-value]
    # it is in the validation prompts too: there it is dropped, and the others choose the best student
    train_ppo(model, tokenizer, [*cases, long], [long, *cases], letter_reward, config, run, weights=[1.0] * 6 + [1e9])
    first = run.metrics()[0]
    assert list(first["left_out"]) == ["endless"]
    assert first["left_out"]["endless"] > longest
    assert first["validation"]["n"] == 6
    assert first["validation"]["dropped"] == {"window": 1}
    assert run.result is not None
    assert run.result["left_out"] == ["endless"]
    assert all("dropped" not in row for row in run.metrics()[1:])
    with pytest.raises(TrainerError, match="no training prompt leaves room for a turn in a window of 512 tokens"):
        train_ppo(micro_model(), tokenizer, [long], [], letter_reward, config, RunFolder(runs, "other", config))


def test_student_of_garbage_is_scored_as_one(
    micro_model: Make, tokenizer: Any, edit_sample: Any, record: SimpleNamespace, ppo_config: MakeConfig, runs: Path
) -> None:
    config = ppo_config(updates=2, max_turns=3)
    samples = [edit_sample, record.sample_of(record.turn("It is a typo.").message, trace_id="no-calls")]
    cases = cases_from(samples, [record.trace_from(sample) for sample in samples], config, "train")
    run = RunFolder(runs, "ppo", config)
    train_ppo(micro_model(), tokenizer, cases, cases, BehavioralRewardModel(RewardConfig()), config, run)
    for row in run.metrics()[1:]:
        assert row["learned"]
        assert -1 <= row["reward"] < 0
        assert row["stops"]["max_tokens"] >= 6
        assert row["unfinished"] == row["stops"]["max_tokens"] / 8
        assert row["outcome_check"] == 0.0
        assert "dropped" not in row


def poison(model: Any) -> None:
    """The model now answers with NaN."""
    with torch.no_grad():
        next(weight for name, weight in model.named_parameters() if "lora_B.default" in name).fill_(float("nan"))


def test_loss_that_is_not_a_number_is_skipped_and_its_episodes_kept_for_study(
    micro_model: Make,
    tokenizer: Any,
    cases: list[Case],
    letter_reward: Any,
    ppo_config: MakeConfig,
    runs: Path,
) -> None:
    config = ppo_config(updates=6, value_warmup=0, checkpoint_every=1)
    run = RunFolder(runs, "ppo", config)
    model = micro_model()

    def break_it(update: int, updates: int, metrics: dict[str, Any]) -> None:
        if update == 2:
            poison(model)

    result = train_ppo(model, tokenizer, cases, cases, letter_reward, config, run, progress=break_it)
    third, fourth, fifth = run.metrics()[3:6]
    for row in (third, fourth):
        assert row["skipped_minibatches"] == 4  # two epochs of two
        assert (row["gradient_steps"], row["learned"]) == (0, False)
        assert "kl" not in row
        assert "value_loss" not in row
    assert fourth["runaway"]["reason"] == "nothing could be learned, 2 updates in a row"
    assert fourth["runaway"]["returned_to"] in (0, 2)
    assert fifth["learned"]
    assert fifth["skipped_minibatches"] == 0
    assert result.returns == 1
    assert result.stopped_because == ""
    assert all(torch.isfinite(value).all() for value in adapter_state(model).values())
    kept = run.path / "skipped" / "000003.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert len(rows) == 8
    assert set(rows[0]) == {"trace_id", "ids", "written", "rewards"}
    text = (run.path / "metrics.jsonl").read_text()
    assert "NaN" not in text


def test_one_bad_minibatch_does_not_cost_the_others(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig
) -> None:
    model = micro_model()
    ppo = ppo_config().ppo
    rollouts = collect(model.get_base_model(), tokenizer, cases, letter_reward, ppo, temperature=1.0).rollouts
    with frozen_reference(model):
        learner = Learner(model, ppo_config(minibatch_size=2, epochs=1).ppo)
        passes: list[torch.Tensor] = []

        def spoilt(gradient: torch.Tensor) -> torch.Tensor:
            passes.append(gradient)
            return gradient * float("nan") if len(passes) == 2 else gradient

        learner.policy_parameters[0].register_hook(spoilt)  # a gradient that overflows, as bf16 kernels may give
        metrics = learner.improve(rollouts, [0, 0], warmup=False)
    assert (metrics["gradient_steps"], metrics["skipped_minibatches"]) == (2, 1)
    assert all(torch.isfinite(value).all() for value in adapter_state(model).values())


def test_run_in_which_nothing_can_be_scored_ends_with_the_best_student_and_says_why(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    config = ppo_config(updates=20, runaway_returns=1)
    run = RunFolder(runs, "ppo", config)
    model = micro_model()
    reward = Moody(letter_reward, raising, every=1)
    start = adapter_state(model)
    result = train_ppo(model, tokenizer, cases, cases, reward, config, run)
    assert result.stopped_because == (
        "update 4: nothing could be learned, 2 updates in a row; ended after 1 returns to the best student"
    )
    assert (result.updates, result.returns, result.best_update) == (4, 1, 0)
    assert run.result is not None
    assert run.result["stopped_because"] == result.stopped_because
    assert [row["dropped"] for row in run.metrics()[1:]] == [{"reward": 8}] * 4
    assert all(torch.equal(start[key], value) for key, value in adapter_state(model).items())
