"""The loop on a random micro Llama: it learns, it resumes exactly, it never returns something worse."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.ppo.micro import micro_config
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.ppo.learner import Learner
from trainer.ppo.ppo_trainer import draw, is_better, train_ppo
from trainer.ppo.rollout_buffer import Rollout, collect, minibatches
from trainer.ppo.value_head import REFERENCE, adapter_state, as_reference, frozen_reference, save_adapter
from trainer.records import RewardBreakdown
from trainer.run_folder import RunFolder
from trainer.student.episodes import Case

# peft 0.21 asks transformers 5.23 for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

Make = Callable[[], Any]
MakeConfig = Callable[..., Config]
CLOCKS = ("time", "seconds", "tokens_per_second", "validation_seconds")


def rows(run: RunFolder) -> list[dict[str, Any]]:
    """Metric lines without what a clock measured."""
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in run.metrics()]


@pytest.fixture
def rollouts(micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any) -> list[Rollout]:
    model = micro_model().get_base_model()
    return collect(model, tokenizer, cases, letter_reward, micro_config().ppo, temperature=1.0).rollouts


def test_ppo_learns_a_reward_that_can_be_learned(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    config = ppo_config(updates=14, episodes_per_update=16, minibatch_size=8, learning_rate=1e-2, eval_every=7)
    run = RunFolder(runs, "ppo", config)
    model = micro_model()
    result = train_ppo(model, tokenizer, cases, cases[:4], letter_reward, config, run)
    rewards = [row["reward"] for row in run.metrics() if row["update"]]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.3
    assert result.best_score is not None
    assert result.start_score is not None
    assert result.best_score > result.start_score
    assert REFERENCE not in model.peft_config
    assert (result.adapter / "adapter_model.safetensors").exists()
    assert run.result is not None
    assert run.result["best_update"] == result.best_update
    last = run.metrics()[-1]
    assert last["kl"] > 0
    assert set(last["seconds"]) == {"generate", "reward", "learn", "update"}
    assert all(np.isfinite(row["policy_loss"]) for row in run.metrics() if row["update"] > 1)
    assert all(np.isfinite(row["value_loss"]) for row in run.metrics() if row["update"])


def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    # a goal of KL that is soon passed and a limit that is exceeded now and then: controller and counters have a state
    config = ppo_config(
        updates=7, learning_rate=2e-2, kl_control="adaptive", kl_goal=0.05, runaway_kl=0.05, runaway_patience=2
    )
    whole, parts = RunFolder(runs, "whole", config), RunFolder(runs, "parts", config)
    uninterrupted, resumed = micro_model(), micro_model()
    first = train_ppo(uninterrupted, tokenizer, cases, cases, letter_reward, config, whole)

    class Killed(Exception):
        pass

    def dying_at(death: int) -> Any:
        def die(update: int, updates: int, metrics: dict[str, Any]) -> None:
            if update == death:  # updates since the last checkpoint must be done again, exactly
                raise Killed

        return die

    for death in (3, 5):
        with pytest.raises(Killed):
            train_ppo(micro_model(), tokenizer, cases, cases, letter_reward, config, parts, progress=dying_at(death))
        assert parts.result is None
        torch.manual_seed(99)  # whatever happened to the process in between
    last_leg = time.monotonic()
    second = train_ppo(resumed, tokenizer, cases, cases, letter_reward, config, parts)
    last_leg = time.monotonic() - last_leg

    assert rows(parts) == rows(whole)
    assert len({row["kl_coefficient"] for row in rows(whole)[1:]}) > 3
    assert first.returns == second.returns > 0
    assert any("runaway" in row for row in rows(whole))
    assert {row["learning_rate"] for row in rows(whole)[1:]} >= {0.02, 0.01}
    assert (second.best_update, second.best_score) == (first.best_update, first.best_score)
    one, other = adapter_state(uninterrupted), adapter_state(resumed)
    assert all(torch.equal(one[key], other[key]) for key in one)
    spent = sum(row["seconds"]["update"] for row in parts.metrics()[1:])
    assert parts.result is not None
    assert parts.result["seconds"] == second.seconds > max(spent, last_leg), "the seconds of every leg"


def test_checkpoint_of_before_seconds_were_kept_is_gone_on_with(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    config = ppo_config(updates=1)
    run = RunFolder(runs, "ppo", config)
    train_ppo(micro_model(), tokenizer, cases, [], letter_reward, config, run)
    file = run.path / "checkpoints" / "000001.pt"
    stored = torch.load(file, weights_only=True)
    assert stored.pop("seconds") > 0
    torch.save(stored, file)
    (run.path / "result.json").unlink()
    result = train_ppo(micro_model(), tokenizer, cases, [], letter_reward, ppo_config(updates=2), run)
    assert (result.updates, result.seconds > 0) == (2, True)


def test_sigterm_saves_and_ends_with_one_line_and_the_run_goes_on(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    config = ppo_config(updates=3, checkpoint_every=50)
    run = RunFolder(runs, "ppo", config)

    def terminate(update: int, updates: int, metrics: dict[str, Any]) -> None:
        if update == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainerError, match="stopped by SIGTERM after update 1; run the same command"):
        train_ppo(micro_model(), tokenizer, cases, [], letter_reward, config, run, progress=terminate)
    assert signal.getsignal(signal.SIGTERM) == before
    assert run.result is None
    assert (run.path / "checkpoints" / "000001.pt").exists()
    train_ppo(micro_model(), tokenizer, cases, [], letter_reward, config, run)
    assert [row["update"] for row in run.metrics()] == [0, 1, 2, 3]


def test_student_that_gets_worse_is_not_returned(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    class Souring:
        """Pays less from scoring to scoring, so that no later student can beat the first."""

        calls = 0

        def score(self, student: Any, references: Any) -> RewardBreakdown:
            self.calls += 1
            return letter_reward.score(student, references).model_copy(update={"total": 0.5 / self.calls})

    config = ppo_config(updates=2)
    model = micro_model()
    start = adapter_state(model)
    run = RunFolder(runs, "ppo", config)
    result = train_ppo(model, tokenizer, cases, cases, Souring(), config, run)
    assert result.best_update == 0
    assert result.best_score == result.start_score
    assert all(torch.equal(start[key], value) for key, value in adapter_state(model).items())


def test_first_step_has_ratio_exactly_one(micro_model: Make, rollouts: list[Rollout], ppo_config: MakeConfig) -> None:
    model = micro_model()
    config = ppo_config(minibatch_size=3).ppo
    with frozen_reference(model):
        learner = Learner(model, config)
        groups = minibatches(rollouts, 3, 1, learner.device)
        batches = [batch for group in groups for batch in group.batches]
        known = learner.look_back(rollouts, batches)
        for batch in batches:
            log_probs, _ = learner.actor(batch.ids, batch.rows, batch.columns)
            assert log_probs.requires_grad
            assert torch.equal(log_probs.detach(), known.log_probs[batch.tokens])
        assert known.kl_per_episode == 0.0  # the policy still is its reference


def test_only_written_tokens_are_looked_at(micro_model: Make, rollouts: list[Rollout], ppo_config: MakeConfig) -> None:
    model = micro_model()
    learner = Learner(model, ppo_config().ppo)
    batch = minibatches(rollouts, 8, 1, learner.device)[0].batches[0]
    assert len(batch.tokens) == sum(sum(r.episode.written) for r in rollouts)
    log_probs, _ = learner.actor(batch.ids, batch.rows, batch.columns)
    for token, log_prob in zip(batch.tokens.tolist(), log_probs.tolist(), strict=True):
        member = next(i for i, r in enumerate(rollouts) if token < sum(len(x.written) for x in rollouts[: i + 1]))
        episode, written = rollouts[member].episode, rollouts[member].written
        position = written[token - sum(len(x.written) for x in rollouts[:member])]
        assert episode.written[position]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([episode.ids[:position]])).logits[0, -1]
        assert logits.log_softmax(-1)[episode.ids[position]].item() == pytest.approx(log_prob, abs=1e-4)


def test_output_layer_never_sees_a_prompt_token(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    """Counted at the output layer itself, over a whole run: generation, both looks back, learning, validation."""
    model = micro_model()
    rows_seen: dict[bool, list[int]] = {True: [], False: []}

    def count(layer: Any, inputs: Any, output: Any) -> None:
        rows_seen[torch.is_inference_mode_enabled()].append(inputs[0].numel() // inputs[0].shape[-1])

    model.get_base_model().get_output_embeddings().register_forward_hook(count)
    config = ppo_config(updates=2, value_warmup=0, epochs=1)
    run = RunFolder(runs, "ppo", config)
    train_ppo(model, tokenizer, cases, [], letter_reward, config, run)
    written = sum(row["written_tokens"] * 8 for row in run.metrics()[1:])
    prompts = sum(row["tokens"] * 8 for row in run.metrics()[1:]) - written
    assert prompts > 1.5 * written
    assert sum(rows_seen[False]) == 3 * written  # policy and reference look back, the policy learns
    assert max(rows_seen[True]) <= 8  # generation: one row an episode and step
    assert sum(rows_seen[True]) <= written + prompts


def test_long_turns_are_looked_at_in_chunks_and_come_out_the_same(
    micro_model: Make, rollouts: list[Rollout], ppo_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradients(chunk_logits: int) -> tuple[Any, Any, int]:
        monkeypatch.setattr("trainer.ppo.value_head.CHUNK_LOGITS", chunk_logits)
        learner = Learner(micro_model(), ppo_config().ppo)
        batch = minibatches(rollouts, 8, 1, learner.device)[0].batches[0]
        largest = 0

        def measure(layer: Any, inputs: Any, output: Any) -> None:
            nonlocal largest
            largest = max(largest, output.numel())

        learner.model.get_base_model().get_output_embeddings().register_forward_hook(measure)
        log_probs, _ = learner.actor(batch.ids, batch.rows, batch.columns)
        log_probs.sum().backward()
        return log_probs, [p.grad for p in learner.policy_parameters], largest

    whole, chunked = gradients(2**26), gradients(3 * 290)
    assert chunked[2] <= 3 * 290 < whole[2]
    assert torch.allclose(whole[0], chunked[0], atol=1e-6)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(whole[1], chunked[1], strict=True))


def test_recomputed_activations_give_the_same_log_probabilities_and_gradients(
    micro_model: Make, tokenizer: Any, rollouts: list[Rollout], ppo_config: MakeConfig
) -> None:
    found, kept = [], []
    for recompute in (False, True):
        learner = Learner(micro_model(), ppo_config(gradient_checkpointing=recompute).ppo)
        (group, *_) = minibatches(rollouts, 8, 1, "cpu")
        bytes_kept = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal bytes_kept
            bytes_kept += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            log_probs, _ = learner.actor(group.batches[0].ids, group.batches[0].rows, group.batches[0].columns)
        log_probs.sum().backward()
        assert not any(module.training for module in learner.model.modules())
        found.append([log_probs.detach(), *(p.grad for p in learner.policy_parameters)])
        kept.append(bytes_kept)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert kept[1] < 0.4 * kept[0], "what is inside the layers is not kept"


def test_run_with_recomputed_activations_is_the_same_run(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    made = []
    for recompute in (False, True):
        config = ppo_config(gradient_checkpointing=recompute, updates=3, episodes_at_once=3 if recompute else 64)
        run = RunFolder(runs, f"recompute-{recompute}", config)
        model = micro_model()
        train_ppo(model, tokenizer, cases, cases, letter_reward, config, run)
        made.append((rows(run), adapter_state(model)))
    (plain, weights), (recomputed, others) = made
    assert recomputed == plain, "episodes are written with the cache as before, in whatever company"
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_reference_may_be_another_adapter_than_the_one_to_start_from(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    """Iteration 2 starts from the student of iteration 1 and is still held to the SFT student."""
    config = ppo_config(updates=2, value_warmup=2)
    sft = runs / "sft"
    save_adapter(micro_model(), sft)
    moved = micro_model()
    with torch.no_grad():
        for name, weight in moved.named_parameters():
            if "lora_B" in name:
                weight.mul_(5)
    run, own = RunFolder(runs, "v2", config), RunFolder(runs, "own", config)
    train_ppo(moved, tokenizer, cases, [], letter_reward, config, run, reference=sft)
    assert all(abs(row["kl"]) > 0.01 for row in run.metrics()[1:])
    again = micro_model()
    train_ppo(again, tokenizer, cases, [], letter_reward, config, own, reference=sft)
    assert [row["kl"] for row in own.metrics()[1:]] == [0.0, 0.0]
    (run.path / "result.json").unlink()
    with pytest.raises(TrainerError, match="was started from another adapter"):
        train_ppo(moved, tokenizer, cases, [], letter_reward, config, run)  # another reference is another run
    with pytest.raises(TrainerError, match="cannot be the reference of the KL penalty"):
        train_ppo(moved, tokenizer, cases, [], letter_reward, config, run, reference=runs / "nowhere")
    assert REFERENCE not in moved.peft_config


def test_batch_of_eight_is_four_with_two_accumulations(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig
) -> None:
    eight = [*cases, *cases[:2]]
    states = []
    for accumulation in (1, 2):
        model = micro_model()
        config = ppo_config(minibatch_size=8, gradient_accumulation=accumulation, epochs=1).ppo
        sampled = collect(
            model.get_base_model(), tokenizer, eight, letter_reward, ppo_config().ppo, temperature=1.0
        ).rollouts
        with frozen_reference(model):
            learner = Learner(model, config)
            groups = minibatches(sampled, 8, accumulation, learner.device)
            assert [len(group.batches) for group in groups] == [accumulation]
            metrics = learner.improve(sampled, [0, 0], warmup=False)
            states.append((adapter_state(model), metrics))
    (one, first), (two, second) = states
    assert first["gradient_norm"] == pytest.approx(second["gradient_norm"], rel=1e-4)
    assert first["policy_loss"] == pytest.approx(second["policy_loss"], abs=1e-5)
    assert all(torch.allclose(one[key], two[key], atol=2e-4) for key in one)


def test_warm_up_moves_the_value_head_alone(micro_model: Make, rollouts: list[Rollout], ppo_config: MakeConfig) -> None:
    model = micro_model()
    before = adapter_state(model)
    with frozen_reference(model):
        learner = Learner(model, ppo_config().ppo)
        learner.improve(rollouts, [0, 0], warmup=True)
    assert all(torch.equal(before[key], value) for key, value in adapter_state(model).items())
    assert float(learner.value_head.linear.weight.detach().abs().sum()) > 0


def test_hidden_states_of_the_value_head_carry_no_gradient(
    micro_model: Make, rollouts: list[Rollout], ppo_config: MakeConfig
) -> None:
    learner = Learner(micro_model(), ppo_config().ppo)
    batch = minibatches(rollouts, 8, 1, learner.device)[0].batches[0]
    log_probs, hidden = learner.actor(batch.ids, batch.rows, batch.columns)
    assert log_probs.requires_grad
    assert not hidden.requires_grad
    learner.value_head(hidden).sum().backward()
    assert all(parameter.grad is None for parameter in learner.policy_parameters)


def test_value_head_learns_what_the_turns_will_earn(
    micro_model: Make, rollouts: list[Rollout], ppo_config: MakeConfig
) -> None:
    model = micro_model()
    with frozen_reference(model):
        learner = Learner(model, ppo_config(value_epochs=100).ppo)
        first = learner.improve(rollouts, [0, 0], warmup=True)
        second = learner.improve(rollouts, [0, 1], warmup=True)
    assert first["explained_variance"] == 0.0
    assert second["explained_variance"] > 0.7
    assert second["value_loss"] < 0.3 * first["value_loss"]


def test_with_several_episodes_of_a_prompt_its_difficulty_does_not_move_the_policy(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig
) -> None:
    config = ppo_config(episodes_per_prompt=4).ppo
    twice = [case for case in cases[:2] for _ in range(4)]
    model = micro_model()
    sampled = collect(model.get_base_model(), tokenizer, twice, letter_reward, config, temperature=1.0).rollouts
    easier = [
        replace(rollout, turn_rewards=[rollout.turn_rewards[0] + 5.0, *rollout.turn_rewards[1:]])
        if rollout.case is cases[0]
        else rollout
        for rollout in sampled
    ]
    with frozen_reference(model):
        learner = Learner(model, config)
        as_it_was, moved = (
            learner.look_back(each, minibatches(each, 8, 1, learner.device)[0].batches) for each in (sampled, easier)
        )
        assert torch.allclose(as_it_was.advantages, moved.advantages, atol=1e-5)
        assert torch.allclose(as_it_was.value_targets, moved.value_targets, atol=1e-5)
        assert moved.explained_variance > 0.9
        alone = Learner(model, ppo_config().ppo)
        batches = minibatches(easier, 8, 1, alone.device)[0].batches
        assert not torch.allclose(alone.look_back(easier, batches).advantages, moved.advantages, atol=0.1)


def test_a_run_draws_whole_groups_of_a_prompts_episodes(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    played: Counter[str] = Counter()

    def watched(case: Case) -> Case:
        def make() -> Any:
            played[case.trace_id] += 1
            return case.make_environment()

        return replace(case, make_environment=make)

    config = ppo_config(updates=2, episodes_per_update=8, episodes_per_prompt=4)
    six = [watched(case) for case in cases]
    train_ppo(micro_model(), tokenizer, six, [], letter_reward, config, RunFolder(runs, "ppo", config))
    looked_at_once = min(played.values())  # whether it fits the window
    assert sorted(times - looked_at_once for times in played.values()) == [0, 0, 4, 4, 4, 4]
    with pytest.raises(ValueError, match="must be a multiple of episodes_per_prompt"):
        ppo_config(episodes_per_update=8, episodes_per_prompt=3)


def test_approx_kl_ends_the_epochs(micro_model: Make, rollouts: list[Rollout], ppo_config: MakeConfig) -> None:
    model = micro_model()
    with frozen_reference(model):
        learner = Learner(model, ppo_config(epochs=50, learning_rate=0.05, target_kl=0.01).ppo)
        metrics = learner.improve(rollouts, [0, 0], warmup=False)
    assert metrics["kl_stop"]
    assert 1 <= metrics["gradient_steps"] < 100


def test_reference_answers_as_the_start_whatever_the_policy_became(micro_model: Make, rollouts: list[Rollout]) -> None:
    model = micro_model()
    ids = torch.tensor([rollouts[0].episode.ids])
    with torch.no_grad(), frozen_reference(model):
        start = model(input_ids=ids).logits
        for name, weight in model.named_parameters():
            if "default" in name:
                weight.add_(0.1)
        changed = model(input_ids=ids).logits
        with as_reference(model):
            assert torch.equal(model(input_ids=ids).logits, start)
        assert torch.equal(model(input_ids=ids).logits, changed)
        assert not torch.allclose(changed, start, atol=1e-3)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert not any(REFERENCE in name for name in trained)


def test_every_prompt_is_drawn_once_a_round_and_weights_shift_the_draw() -> None:
    for seed in range(3):
        drawn = [index for update in range(5) for index in draw(10, 4, update, seed)]
        assert sorted(drawn[:10]) == sorted(drawn[10:20]) == list(range(10))
    assert draw(10, 4, 3, 0) == draw(10, 4, 3, 0)
    weighted = [index for update in range(50) for index in draw(10, 4, update, 0, [4.0] + [1.0] * 9)]
    assert weighted.count(0) > 1.5 * weighted.count(1)
    assert set(draw(3, 4, 0, 0, [0.0, 1.0, 0.0])) == {1}


def test_prompts_of_another_split_are_refused(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    config = ppo_config()
    run = RunFolder(runs, "ppo", config)
    foreign = Case("held-out", (), cases[0].make_environment, split="test")
    for wrong, message in (([*cases, foreign], "held-out is of 'test'"), ([], "no training prompts")):
        with pytest.raises(TrainerError, match=message):
            train_ppo(micro_model(), tokenizer, wrong, [], letter_reward, config, run)
    with pytest.raises(TrainerError, match="LoRA adapter"):
        train_ppo(micro_model().get_base_model(), tokenizer, cases, [], letter_reward, config, run)


def test_run_folder_of_another_student_is_refused_and_a_damaged_checkpoint_named(
    micro_model: Make, tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: MakeConfig, runs: Path
) -> None:
    config = ppo_config(updates=1)
    run = RunFolder(runs, "ppo", config)
    train_ppo(micro_model(), tokenizer, cases, [], letter_reward, config, run)
    other = micro_model()
    with torch.no_grad():
        next(weight for name, weight in other.named_parameters() if "lora_B" in name).add_(1.0)
    with pytest.raises(TrainerError, match="another adapter"):
        train_ppo(other, tokenizer, cases, [], letter_reward, config, run)
    (run.path / "checkpoints" / "000001.pt").write_bytes(b"PK torn")
    with pytest.raises(TrainerError, match=r"000001\.pt: not a checkpoint of PPO"):
        train_ppo(micro_model(), tokenizer, cases, [], letter_reward, config, run)


def test_a_lucky_score_does_not_replace_the_best_student() -> None:
    best = {f"prompt {i}": i / 20 for i in range(20)}  # prompts differ much more than students
    assert is_better({prompt: total + 0.05 + 0.01 * (i % 3) for i, (prompt, total) in enumerate(best.items())}, best)
    lucky = {prompt: total + (0.6 if i == 7 else -0.01) for i, (prompt, total) in enumerate(best.items())}
    assert sum(lucky.values()) > sum(best.values())
    assert not is_better(lucky, best)
    assert not is_better(best, best)
    assert not is_better({}, best)
    assert not is_better({"one": 1.0}, {"one": 0.0}), "one prompt says nothing about the spread"
