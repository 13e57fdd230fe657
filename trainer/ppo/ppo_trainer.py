"""PPO against the behavioural reward: draw prompts, let the student work, score its turns, improve it, repeat.

The student is a base model with a LoRA adapter; the adapter it started with (from SFT) stays on the same base as the
frozen reference of the KL penalty. One update:

    collect    episodes_per_update episodes are sampled, token in, token out; each turn earns what it adds
    look back  one pass for log-probabilities and values of what was written, one for the reference
    learn      `epochs` passes over minibatches: clipped policy loss + value loss, until approx-KL exceeds target_kl

Every few updates the student works greedily on validation prompts; the best one so far is kept, the start included,
and is what the run returns: training that makes the student worse gives back the student it was given.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

from trainer.config import Config
from trainer.errors import TrainerError
from trainer.ppo.checkpoints import (
    Checkpoint,
    latest_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from trainer.ppo.heldout import score_cases, summarise
from trainer.ppo.learner import Learner, NotFiniteError
from trainer.ppo.rollout_buffer import Reward, Rollout, collect
from trainer.ppo.value_head import POLICY, adapter_state, frozen_reference, load_adapter_state, require_adapter
from trainer.run_folder import RunFolder, write_atomic
from trainer.student.episodes import Case

Metrics = dict[str, Any]
Progress = Callable[[int, int, Metrics], None]


@dataclass(frozen=True)
class PpoResult:
    """Where the returned student is and how it came about. Scores are mean rewards on the validation prompts."""

    adapter: Path
    updates: int
    best_update: int
    """The update whose student is returned; 0 is the one that PPO was given."""
    best_score: float | None
    start_score: float | None
    seconds: float


def draw(cases: int, count: int, update: int, seed: int, weights: Sequence[float] | None = None) -> list[int]:
    """Which cases an update works on: round after round over all of them, or by weight (from mining)."""
    if weights is not None:
        chances = np.asarray(weights, dtype=float)
        enough = int((chances > 0).sum()) >= count
        generator = np.random.default_rng([seed, update])
        return [int(i) for i in generator.choice(cases, count, replace=not enough, p=chances / chances.sum())]
    places = range(update * count, (update + 1) * count)
    rounds = {place // cases: np.random.default_rng([seed, place // cases]).permutation(cases) for place in places}
    return [int(rounds[place // cases][place % cases]) for place in places]


def train_ppo(
    model: Any,
    tokenizer: Any,
    cases: Sequence[Case],
    validation_cases: Sequence[Case],
    reward: Reward,
    config: Config,
    run: RunFolder,
    *,
    weights: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> PpoResult:
    """Trains the model's adapter; continues from the run folder's last checkpoint where there is one.

    Args:
        model: PeftModel with the adapter that SFT made, named `default`. It holds the returned student afterwards.
        cases: prompts of the training split; any other is refused.
        validation_cases: prompts that choose the best student; without any, the last one is returned.
        weights: how often each case is drawn, relative to the others; None draws all equally often.
        progress: called after each update with (update, updates, metrics).

    Raises:
        TrainerError: no cases, foreign splits, no adapter, another student's run folder, a loss that is not a number
            (the last checkpoint is good), or SIGTERM (everything is saved).
    """
    ppo, began = config.ppo, time.monotonic()
    if not cases:
        raise TrainerError("PPO has no training prompts; run `claude-trainer dataset build` and read what it left out")
    if foreign := next((case for case in cases if case.split != "train"), None):
        raise TrainerError(f"PPO learns from the training split only; case {foreign.trace_id} is of '{foreign.split}'")
    require_adapter(model)
    model.eval()  # no dropout: the policy that is improved is the policy that was sampled
    with frozen_reference(model), _termination() as received:
        learner = Learner(model, ppo)
        loop = _Loop(model, tokenizer, validation_cases, reward, config, run, learner, received)
        state = loop.resume() or loop.begin()
        for update in range(state.update, ppo.updates):
            drawn = draw(len(cases), ppo.episodes_per_update, update, config.student.seed, weights)
            try:
                state, metrics = loop.update(state, [cases[index] for index in drawn])
            except _TerminatedError:
                loop.save(state)
                raise _stopped(state) from None
            except NotFiniteError as error:
                raise TrainerError(
                    f"PPO stopped in update {update + 1}: {error}; the last good state is {loop.save(state)}; "
                    "lower ppo.learning_rate; the command then starts a run of its own from the SFT student"
                ) from None
            terminated = loop.terminated()
            if state.update % ppo.checkpoint_every == 0 or state.update == ppo.updates or terminated:
                loop.save(state)
            if progress is not None:
                progress(state.update, ppo.updates, metrics)
            if terminated and state.update < ppo.updates:
                raise _stopped(state)
        load_adapter_state(model, state.best_adapter)
    result = PpoResult(
        adapter=run.path / "adapter",
        updates=state.update,
        best_update=state.best_update,
        best_score=state.best_score,
        start_score=state.start_score,
        seconds=time.monotonic() - began,
    )
    if learner.accelerator.is_main_process:
        _export(model, result.adapter)
        run.finish(**asdict(result) | {"adapter": result.adapter.name})
    learner.accelerator.wait_for_everyone()
    return result


@dataclass
class _Loop:
    """What stays the same from update to update."""

    model: Any
    tokenizer: Any
    validation_cases: Sequence[Case]
    reward: Reward
    config: Config
    run: RunFolder
    learner: Learner
    received: list[int]
    """Signals that ask for an end."""

    def terminated(self) -> bool:
        """Whether any process was asked to end."""
        return self.learner.anywhere(bool(self.received))

    def begin(self) -> Checkpoint:
        """Scores the student that PPO is given and makes it checkpoint 0."""
        start = adapter_state(self.model)
        validation = self._validate()
        score = validation.get("validation", {}).get("reward")
        state = Checkpoint(
            update=0,
            adapter=start,
            start_adapter=start,
            best_adapter=start,
            best_update=0,
            best_score=score,
            start_score=score,
            random=random_state(),
            **self.learner.state(),
        )
        self.save(state)
        self._log(0, validation)
        return state

    def resume(self) -> Checkpoint | None:
        """Goes back to the last checkpoint, if there is one, and forgets metrics of later updates."""
        state = latest_checkpoint(self.run.path / "checkpoints")
        if state is None:
            return None
        now = adapter_state(self.model)
        start = state.start_adapter
        if now.keys() != start.keys() or any(not torch.equal(now[key], start[key]) for key in now):
            raise TrainerError(f"{self.run.path} was started from another SFT adapter; choose another run name")
        load_adapter_state(self.model, state.adapter)
        self.learner.restore(state.value_head, state.optimizer)
        restore_random_state(state.random)
        if self.learner.accelerator.is_main_process:
            kept = [row for row in self.run.metrics() if row["update"] <= state.update]
            write_atomic(self.run.path / "metrics.jsonl", b"".join(orjson.dumps(row) + b"\n" for row in kept), 0o644)
        return state

    def update(self, state: Checkpoint, cases: Sequence[Case]) -> tuple[Checkpoint, Metrics]:
        """One update on these cases; with several processes each takes every n-th of them.

        Raises:
            NotFiniteError: the loss is not a number. `state` still holds what was before the update.
            _TerminatedError: SIGTERM came while the episodes were sampled; nothing was learned from them.
        """
        ppo, accelerator, clock = self.config.ppo, self.learner.accelerator, time.perf_counter()
        own = cases[accelerator.process_index :: accelerator.num_processes]
        before, done = state.update, state.update + 1
        collected = collect(
            self.model.get_base_model(),
            self.tokenizer,
            own,
            self.reward,
            max_turns=ppo.max_turns,
            max_new_tokens=ppo.max_new_tokens,
            temperature=ppo.temperature,
            seed=_episode_seed(self.config.student.seed, before * len(cases) + accelerator.process_index * len(own)),
            student=self.run.path.name,
        )
        if self.terminated():
            raise _TerminatedError
        learning = time.perf_counter()
        seed = [self.config.student.seed, before]
        learned = self.learner.improve(collected.rollouts, seed, warmup=before < ppo.value_warmup)
        learned_seconds = time.perf_counter() - learning
        metrics = episode_metrics(collected.rollouts) | learned
        metrics["seconds"] = {
            "generate": collected.generate_seconds,
            "reward": collected.reward_seconds,
            "learn": learned_seconds,
            "update": time.perf_counter() - clock,
        }
        metrics["tokens_per_second"] = metrics["tokens"] * len(own) / metrics["seconds"]["update"]
        if done % ppo.eval_every == 0 or done == ppo.updates:
            metrics |= self._validate()
        adapter = adapter_state(self.model)
        state = replace(state, update=done, adapter=adapter, random=random_state(), **self.learner.state())
        if not self.validation_cases or is_better(metrics.get("validation"), state.best_score):
            score = metrics["validation"]["reward"] if self.validation_cases else None
            state = replace(state, best_adapter=adapter, best_update=done, best_score=score)
        self._log(done, metrics)
        return state, metrics

    def save(self, state: Checkpoint) -> Path:
        """Writes the checkpoint file; the main process alone does."""
        folder = self.run.path / "checkpoints"
        if not self.learner.accelerator.is_main_process:
            return folder
        return save_checkpoint(folder, state)

    def _validate(self) -> Metrics:
        """Greedy episodes on the validation prompts."""
        ppo = self.config.ppo
        cases = self.validation_cases[: ppo.eval_prompts]
        if not cases:
            return {}
        began = time.perf_counter()
        heldout = score_cases(
            self.model.get_base_model(),
            self.tokenizer,
            cases,
            self.reward,
            max_turns=ppo.max_turns,
            max_new_tokens=ppo.max_new_tokens,
            student=self.run.path.name,
        )
        summary = heldout.summary.model_dump(mode="json")
        return {"validation": summary, "validation_seconds": time.perf_counter() - began}

    def _log(self, update: int, metrics: Metrics) -> None:
        if self.learner.accelerator.is_main_process:
            self.run.log(update=update, **metrics)


def episode_metrics(rollouts: Sequence[Rollout]) -> Metrics:
    """Means over sampled episodes: reward, its components, lengths in tokens and turns, shares of what went wrong."""
    summary = summarise(rollouts)
    lengths = [len(rollout.episode.ids) for rollout in rollouts]
    return {
        "reward": summary.reward,
        "gain": float(np.mean([sum(rollout.turn_rewards) for rollout in rollouts])),
        "components": summary.components,
        "exact_sequences": summary.exact_sequences,
        "malformed": summary.malformed,
        "unfinished": summary.unfinished,
        "coverage": summary.coverage,
        "tokens": float(np.mean(lengths)),
        "longest": max(lengths),
        "written_tokens": float(np.mean([len(rollout.written) for rollout in rollouts])),
        "turns": float(np.mean([len(rollout.episode.parsed) for rollout in rollouts])),
    }


def is_better(validation: Metrics | None, best: float | None) -> bool:
    """Whether a student replaces the best one: only where the lower bound of its score is above that one's score.

    Taking the highest of several noisy scores would soon prefer a student that is merely lucky on few prompts.
    """
    return validation is not None and (best is None or validation["ci_low"] > best)


def _episode_seed(seed: int, number: int) -> int:
    """Seed of the number-th episode of a run: streams of different run seeds do not overlap."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint32)[0]) * 2**20 + number


def _export(model: Any, folder: Path) -> None:
    """Saves the adapter in PEFT's format under a temporary name first."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial), selected_adapters=[POLICY])
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


class _TerminatedError(Exception):
    """SIGTERM came before anything of the update was learned."""


def _stopped(state: Checkpoint) -> TrainerError:
    return TrainerError(f"stopped by SIGTERM after update {state.update}; run the same command to go on")


@contextmanager
def _termination() -> Iterator[list[int]]:
    """Collects SIGTERM instead of dying of it, so that what was learned is saved."""
    received: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, previous)
