"""PPO against the behavioural reward: draw prompts, let the student work, score its turns, improve it, repeat.

The student is a base model with a LoRA adapter; another adapter on the same base (from SFT; the one it started with
where no other is given) is the frozen reference of the KL penalty. One update:

    collect    episodes_per_update episodes are sampled, token in, token out; each turn earns what it adds
    look back  one pass for log-probabilities and values of what was written, one for the reference
    learn      `epochs` passes over minibatches: clipped policy loss + value loss, until approx-KL exceeds target_kl
    watch      a student that runs away is exchanged for the best one, see runaway.py

Every few updates the student works greedily on validation prompts; the best one so far is kept, the start included,
and is what the run returns: training that makes the student worse gives back the student it was given.
"""

from __future__ import annotations

import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from accelerate.utils import gather_object

from trainer.config import Config, PpoConfig
from trainer.errors import TrainerError
from trainer.ppo.cases import fitting
from trainer.ppo.checkpoints import (
    Checkpoint,
    fingerprint,
    latest_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from trainer.ppo.generation_server import GenerationServer
from trainer.ppo.heldout import summarise
from trainer.ppo.importance import GenerationServerError
from trainer.ppo.learner import Learner
from trainer.ppo.outcome_check import outcome_check
from trainer.ppo.rollout_buffer import Collected, Play, Reward, Rollout, collect
from trainer.ppo.runaway import Watch, watch_update
from trainer.ppo.shards import whole_weights
from trainer.ppo.tracking import Trackers
from trainer.ppo.value_head import (
    REFERENCE,
    adapter_state,
    frozen_reference,
    load_adapter_state,
    require_adapter,
    save_adapter,
)
from trainer.report.statistics import mean_interval
from trainer.run_folder import RunFolder, write_atomic
from trainer.student.episodes import Case, run_episodes

Metrics = dict[str, Any]
Progress = Callable[[int, int, Metrics], None]
STUDIED = 5
"""Updates with a skipped minibatch whose episodes are kept for study."""


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
    """Over all legs of a run that was interrupted."""
    returns: int = 0
    """How often a student that ran away was exchanged for the best one."""
    stopped_because: str = ""
    """Why the run ended before its last update; empty where it did not."""


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
    reference: Path | None = None,
    progress: Progress | None = None,
) -> PpoResult:
    """Trains the model's adapter; continues from the run folder's last checkpoint where there is one.

    Args:
        model: PeftModel with the adapter to start from, named `default`. It holds the returned student afterwards.
        cases: prompts of the training split; any other is refused, and one that does not fit the window left out.
        validation_cases: prompts that choose the best student; without any, the last one is returned.
        weights: how often each case is drawn, relative to the others; None draws all equally often.
        reference: adapter that the KL penalty holds the student to; None is the one that the model brings.
        progress: called after each update with (update, updates, metrics), in the main process.

    Raises:
        TrainerError: no cases, foreign splits, no adapter, another student's run folder, a tracker that is not
            installed, or SIGTERM (everything is saved).
    """
    ppo, began = config.ppo, time.monotonic()
    if not cases:
        raise TrainerError("PPO has no training prompts; run `claude-trainer dataset build` and read what it left out")
    if foreign := next((case for case in cases if case.split != "train"), None):
        raise TrainerError(f"PPO learns from the training split only; case {foreign.trace_id} is of '{foreign.split}'")
    require_adapter(model)
    fit, left_out = fitting(cases, tokenizer, model, ppo)
    weights = [weights[index] for index in fit] if weights is not None else None
    cases = [cases[index] for index in fit]
    model.eval()  # no dropout: the policy that is improved is the policy that was sampled
    with frozen_reference(model, reference), _termination() as received:
        learner = Learner(model, ppo)
        main = learner.accelerator.is_main_process
        loop = _Loop(model, tokenizer, validation_cases, reward, config, run, learner, received, began)
        trackers = Trackers(config.tracking, run.path, learner.accelerator)
        with trackers as loop.trackers, _server(ppo, run) as loop.server:
            state = loop.resume() or loop.begin(left_out)
            while state.update < ppo.updates and not Watch(**state.watch).stopped_because:
                prompts = ppo.episodes_per_update // ppo.episodes_per_prompt
                drawn = np.repeat(
                    draw(len(cases), prompts, state.update, config.student.seed, weights), ppo.episodes_per_prompt
                )
                try:
                    state, metrics = loop.update(state, [cases[index] for index in drawn])
                except _TerminatedError:
                    loop.save(state)
                    raise _stopped(state) from None
                except GenerationServerError:
                    loop.save(state)
                    raise
                over = state.update == ppo.updates or bool(Watch(**state.watch).stopped_because)
                terminated = loop.terminated()
                if state.update % ppo.checkpoint_every == 0 or over or terminated:
                    loop.save(state)
                if progress is not None and main:
                    progress(state.update, ppo.updates, metrics)
                if terminated and not over:
                    raise _stopped(state)
        best = state.best_adapter if loop.returns_best(state) else state.adapter
        load_adapter_state(model, best)
    watch = Watch(**state.watch)
    result = PpoResult(
        adapter=run.path / "adapter",
        updates=state.update,
        best_update=state.best_update if best is state.best_adapter else state.update,
        best_score=state.best_score,
        start_score=state.start_score,
        seconds=loop.seconds(),
        returns=watch.returns,
        stopped_because=watch.stopped_because,
    )
    save_adapter(model, result.adapter)
    if main:
        run.finish(**asdict(result) | {"adapter": result.adapter.name, "left_out": sorted(left_out)})
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
    began: float
    """Of this leg, on the monotonic clock."""
    earlier_seconds: float = 0.0
    """Of the legs before."""
    trackers: Trackers | None = None
    server: GenerationServer | None = None
    """What writes the episodes; None is the model itself."""

    def seconds(self) -> float:
        """What the run has taken so far, over all its legs."""
        return self.earlier_seconds + time.monotonic() - self.began

    def terminated(self) -> bool:
        """Whether any process was asked to end."""
        return self.learner.anywhere(bool(self.received))

    def returns_best(self, state: Checkpoint) -> bool:
        """Whether the best student, and not the last one, is what the run returns."""
        watch = Watch(**state.watch)
        return bool(self.validation_cases or watch.streaks or watch.stopped_because)

    def begin(self, left_out: dict[str, int]) -> Checkpoint:
        """Scores the student that PPO is given and makes it checkpoint 0.

        Args:
            left_out: prompts that do not fit the window, with their lengths in tokens.
        """
        start = adapter_state(self.model)
        validation, totals = self._validate()
        score = validation.get("validation", {}).get("reward")
        learned = self.learner.state()
        state = Checkpoint(
            update=0,
            adapter=start,
            learner=learned,
            best_adapter=start,
            best_value_head=learned["value_head"],
            best_update=0,
            best_score=score,
            best_totals=totals,
            start_score=score,
            watch=asdict(Watch()),
            origin=self._origin(),
            random=random_state(),
        )
        self.save(state)
        self._log(0, validation | {"left_out": left_out})
        return state

    def resume(self) -> Checkpoint | None:
        """Goes back to the last checkpoint, if there is one, and forgets metrics of later updates."""
        state = latest_checkpoint(self.run.path / "checkpoints")
        if state is None:
            return None
        if state.origin != self._origin():
            raise TrainerError(f"{self.run.path} was started from another adapter; choose another run name")
        load_adapter_state(self.model, state.adapter)
        self.learner.restore(state.learner)
        restore_random_state(state.random)
        self.earlier_seconds = state.seconds
        if self.learner.accelerator.is_main_process:
            self.run.forget_after("update", state.update)
        return state

    def _origin(self) -> str:
        return fingerprint(adapter_state(self.model), adapter_state(self.model, REFERENCE))

    def update(self, state: Checkpoint, cases: Sequence[Case]) -> tuple[Checkpoint, Metrics]:
        """One update on these cases; several processes share them.

        Raises:
            _TerminatedError: SIGTERM came while the episodes were sampled; nothing was learned from them.
        """
        ppo, clock, done = self.config.ppo, time.perf_counter(), state.update + 1
        seed = _episode_seed(self.config.student.seed, state.update * len(cases))
        collected = self._collect(cases, temperature=ppo.temperature, seed=seed, turn_rewards=True)
        if self.terminated():
            raise _TerminatedError
        learning = time.perf_counter()
        rollouts = collected.rollouts
        metrics = episode_metrics(rollouts) | dropped_metrics(collected.dropped)
        warmup = state.update < ppo.value_warmup
        if rollouts:
            metrics |= self.learner.improve(rollouts, [self.config.student.seed, state.update], warmup=warmup)
        metrics["learned"] = bool(rollouts) and (warmup or metrics["gradient_steps"] > 0)
        if metrics.get("skipped_minibatches"):
            self._keep_for_study(done, rollouts)
        metrics["seconds"] = {
            "generate": collected.generate_seconds,
            "reward": collected.reward_seconds,
            "learn": time.perf_counter() - learning,
            "update": time.perf_counter() - clock,
        }
        tokens = sum(len(rollout.episode.ids) for rollout in rollouts)
        metrics["tokens_per_second"] = tokens / metrics["seconds"]["update"]
        totals: dict[str, float] = {}
        watch, reason = watch_update(Watch(**state.watch), metrics, ppo, done)
        if not self.validation_cases and not (watch.streaks or reason):
            # its episodes show that the student was sound when this update began
            head = state.learner["value_head"]
            state = replace(state, best_adapter=state.adapter, best_value_head=head, best_update=state.update)
        if reason:
            load_adapter_state(self.model, state.best_adapter)
            self.learner.slow_down(state.best_value_head)
            metrics["runaway"] = {"reason": reason, "returned_to": state.best_update}
        elif done % ppo.eval_every == 0 or done == ppo.updates:
            validation, totals = self._validate()
            metrics |= validation
        learned, adapter = self.learner.state(), adapter_state(self.model)
        state = replace(
            state, update=done, adapter=adapter, learner=learned, watch=asdict(watch), random=random_state()
        )
        if is_better(totals, state.best_totals):
            state = replace(
                state,
                best_adapter=adapter,
                best_value_head=learned["value_head"],
                best_update=done,
                best_score=metrics["validation"]["reward"],
                best_totals=totals,
            )
        self._log(done, metrics)
        return state, metrics

    def save(self, state: Checkpoint) -> None:
        """Writes the checkpoint file; the main process alone does."""
        if self.learner.accelerator.is_main_process:
            save_checkpoint(self.run.path / "checkpoints", replace(state, seconds=self.seconds()))

    def _collect(self, cases: Sequence[Case], *, temperature: float, seed: int, turn_rewards: bool) -> Collected:
        """Episodes on these cases: each process plays its stretch of them, all know what came of it."""
        ppo, accelerator = self.config.ppo, self.learner.accelerator
        process, processes = accelerator.process_index, accelerator.num_processes
        first, end = (len(cases) * part // processes for part in (process, process + 1))
        with self._writer() as play:
            own = collect(
                self.model.get_base_model(),
                self.tokenizer,
                cases[first:end],
                self.reward,
                ppo,
                temperature=temperature,
                seed=seed + first,
                student=self.run.path.name,
                turn_rewards=turn_rewards,
                drop=True,
                play=play,
            )
        if processes == 1:
            return own
        rollouts = gather_object([replace(rollout, case=_portable(rollout.case)) for rollout in own.rollouts])
        return replace(own, rollouts=rollouts, dropped=gather_object(own.dropped))

    @contextmanager
    def _writer(self) -> Iterator[Play]:
        """What plays episodes as the student is now: the server, or the model with all its weights."""
        if self.server is not None:
            self.server.take_over(self.model)
            yield self.server.run_episodes
        else:
            with whole_weights(self.learner.actor):
                yield run_episodes

    def _validate(self) -> tuple[Metrics, dict[str, float]]:
        """Greedy episodes on the validation prompts: what to log of them, and the total of each prompt."""
        began = time.perf_counter()
        cases = self.validation_cases[: self.config.ppo.eval_prompts]
        collected = self._collect(cases, temperature=0.0, seed=0, turn_rewards=False)
        if not collected.rollouts:
            return {}, {}
        summary = summarise(collected.rollouts).model_dump(mode="json")
        checks = outcome_metrics(collected.rollouts)
        metrics = {
            "validation": summary | checks | dropped_metrics(collected.dropped),
            "validation_seconds": time.perf_counter() - began,
        }
        return metrics, {rollout.case.trace_id: rollout.breakdown.total for rollout in collected.rollouts}

    def _keep_for_study(self, update: int, rollouts: Sequence[Rollout]) -> None:
        """Keeps the episodes of an update in which a loss was not a number."""
        folder = self.run.path / "skipped"
        if not self.learner.accelerator.is_main_process or len(list(folder.glob("*.jsonl"))) >= STUDIED:
            return
        rows = (
            {"trace_id": r.case.trace_id, "ids": r.episode.ids, "written": r.written, "rewards": r.turn_rewards}
            for r in rollouts
        )
        write_atomic(folder / f"{update:06d}.jsonl", b"".join(orjson.dumps(row) + b"\n" for row in rows))

    def _log(self, update: int, metrics: Metrics) -> None:
        """One line, without figures that are not numbers: JSON has no way to write them."""
        if self.learner.accelerator.is_main_process:
            sound = {k: v for k, v in metrics.items() if not (isinstance(v, float) and not math.isfinite(v))}
            self.run.log(update=update, **sound)
            if self.trackers is not None:
                self.trackers.log(update, sound)


def episode_metrics(rollouts: Sequence[Rollout]) -> Metrics:
    """Means over sampled episodes: reward, its components, lengths in tokens and turns, shares of what went wrong."""
    if not rollouts:
        return {}
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
        "reliable": summary.reliable,
        "stops": dict(Counter(rollout.episode.stop for rollout in rollouts)),
        "tokens": float(np.mean(lengths)),
        "longest": max(lengths),
        "written_tokens": float(np.mean([len(rollout.written) for rollout in rollouts])),
        "turns": float(np.mean([len(rollout.episode.parsed) for rollout in rollouts])),
        **outcome_metrics(rollouts),
    }


def outcome_metrics(rollouts: Sequence[Rollout]) -> Metrics:
    """Share of episodes that pass the outcome check, over those that have one."""
    checks = [outcome_check(rollout.trace, rollout.case.references) for rollout in rollouts]
    known = [check for check in checks if check is not None]
    return {"outcome_check": sum(known) / len(known)} if known else {}


def dropped_metrics(dropped: Sequence[str]) -> Metrics:
    """How many episodes were left out, by kind, and the first reason."""
    if not dropped:
        return {}
    return {"dropped": dict(Counter(reason.split(":")[0] for reason in dropped)), "dropped_first": dropped[0]}


def is_better(totals: dict[str, float], best: dict[str, float]) -> bool:
    """Whether a student replaces the best one: where it gains on the same prompts beyond what chance explains.

    Taking the highest of several noisy scores would soon prefer a student that is merely lucky on few prompts; asking
    for a score above the other's whole interval would turn away most that did learn, as prompts differ more than
    students. The paired differences do neither: the lower bound of their 80 % t interval must be above 0.

    Args:
        totals: reward of each validation prompt by its trace id; empty where there was no validation.
        best: the same of the best student so far.
    """
    gains = [total - best[prompt] for prompt, total in totals.items() if prompt in best]
    return len(gains) > 1 and mean_interval(gains, method="t", confidence=0.8).low > 0


def _episode_seed(seed: int, number: int) -> int:
    """Seed of the number-th episode of a run: streams of different run seeds do not overlap."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint32)[0]) * 2**20 + number


def _portable(case: Case) -> Case:
    """A case that another process can be sent: an environment cannot always be."""
    return replace(case, make_environment=_no_environment)


def _no_environment() -> Any:
    raise TrainerError("this episode was played in another process")


@contextmanager
def _server(ppo: PpoConfig, run: RunFolder) -> Iterator[GenerationServer | None]:
    """The server that the config names, which is left without our student in the end."""
    if not ppo.generation_server:
        yield None
        return
    server = GenerationServer(ppo.generation_server, run.path)
    try:
        yield server
    finally:
        server.close()


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
