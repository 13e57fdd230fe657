"""Episodes with their rewards, and the padded batches that the optimiser sees of them.

A turn earns what it adds: Φ(conversation so far with the turn) - Φ(without it), where Φ is the reward model's total
on the trace so far. The sum telescopes to what the whole episode earned, so idle turns and repetition earn nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from claude_capture.claude_trace_schema import Trace
from trainer.config import PpoConfig
from trainer.ppo.replay_environment import Coverage, ReplayEnvironment
from trainer.records import Message, RewardBreakdown
from trainer.student.chat_format import ParsedTurn
from trainer.student.episode_trace import trace_of
from trainer.student.episodes import Case, Environment, Episode, run_episodes

ROUND_LENGTH = 32
"""Batches are padded to a multiple of this: few distinct shapes run faster and cost little."""

Play = Callable[..., list[Episode]]
"""Called as `run_episodes` is."""


class Reward(Protocol):
    """What is needed of the reward model."""

    def score(self, student: Trace, references: Sequence[Trace]) -> RewardBreakdown: ...


@dataclass(frozen=True)
class Rollout:
    """One sampled episode and what its turns earned."""

    case: Case
    episode: Episode
    trace: Trace
    breakdown: RewardBreakdown
    """Of the whole episode, penalties for patched calls taken off its total."""
    turn_rewards: list[float]
    """One per written turn, penalties taken off; empty where only the whole episode was scored."""
    coverage: Coverage | None
    """The replay's ledger; None where the environment is a live one."""

    @property
    def written(self) -> list[int]:
        """Positions of the tokens that the student wrote."""
        return [index for index, own in enumerate(self.episode.written) if own]

    @property
    def turn_ends(self) -> list[int]:
        """Per turn, the number of written tokens up to its end."""
        return [sum(self.episode.written[:end]) for end in self.episode.turn_ends]


@dataclass(frozen=True)
class Collected:
    """Rollouts of one update and the seconds they took."""

    rollouts: list[Rollout]
    generate_seconds: float
    reward_seconds: float
    dropped: list[str]
    """Why episodes were left out: `kind: trace_id: reason`, where kind is environment, reward or window."""


def collect(
    model: Any,
    tokenizer: Any,
    cases: Sequence[Case],
    reward: Reward,
    ppo: PpoConfig,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    student: str = "student",
    turn_rewards: bool = True,
    drop: bool = False,
    play: Play = run_episodes,
) -> Collected:
    """Lets the student work on every case and scores what it did.

    Training, mining, evaluations and baselines all come through here, so that an episode ends at the same limits in
    each of them: `max_turns`, `max_new_tokens` and `window`.

    Args:
        ppo: gives the limits, and how many episodes are written together, which changes none of them.
        temperature: 0 is greedy.
        student: version written into the traces.
        turn_rewards: False scores only whole episodes, which is all an evaluation needs.
        drop: leave out, and name, episodes whose environment failed, that have no reward, or in which the student
            could not write. Without it the first are scored as far as they went, and a reward that raises, raises.
        play: what lets the student write: the model itself, or a server.
    """
    rollouts: list[Rollout] = []
    dropped: list[str] = []
    generating = scoring = 0.0
    for start in range(0, len(cases), ppo.episodes_at_once):
        part = cases[start : start + ppo.episodes_at_once]
        began = time.perf_counter()
        environments = [_environment(case) for case in part]
        episodes = play(
            model,
            tokenizer,
            environments,
            max_turns=ppo.max_turns,
            max_new_tokens=ppo.max_new_tokens,
            temperature=temperature,
            seed=seed + start,
            window=ppo.window,
        )
        generated = time.perf_counter()
        for case, environment, episode in zip(part, environments, episodes, strict=True):
            replay = environment if isinstance(environment, ReplayEnvironment) else None
            try:
                rollout = score_episode(case, episode, replay, reward, student, turn_rewards)
                problem = _problem(rollout)
            except Exception as error:
                if not drop:
                    raise
                problem = f"reward: {case.trace_id}: {type(error).__name__}: {error}"
            if drop and problem:
                dropped.append(problem)
            else:
                rollouts.append(rollout)
        generating += generated - began
        scoring += time.perf_counter() - generated
    return Collected(rollouts, generating, scoring, dropped)


class _Unopened:
    """Stands for an environment that could not be made; the episode fails when it is opened."""

    def __init__(self, error: Exception) -> None:
        self.tools: list[dict[str, Any]] = []
        self.error = error

    def reset(self) -> list[Message]:
        raise self.error

    def step(self, turn: ParsedTurn) -> list[Message] | None:
        raise self.error


def _environment(case: Case) -> Environment:
    try:
        return case.make_environment()
    except Exception as error:
        return _Unopened(error)


def _problem(rollout: Rollout) -> str:
    """Why nothing can be learned from an episode; empty where something can."""
    name, episode, breakdown = rollout.case.trace_id, rollout.episode, rollout.breakdown
    if episode.stop == "error":
        return f"environment: {name}: {episode.error}"
    if not episode.parsed:
        return f"window: {name}: the prompt does not fit"
    if all(value is None for value in breakdown.components.model_dump().values()):
        return f"reward: {name}: no component applies"
    if not all(map(math.isfinite, [breakdown.total, *rollout.turn_rewards])):
        return f"reward: {name}: not a number"
    return ""


def score_episode(
    case: Case, episode: Episode, replay: ReplayEnvironment | None, reward: Reward, student: str, by_turn: bool
) -> Rollout:
    """Scores an episode as a whole and, if `by_turn`, each of its turns.

    Args:
        replay: the environment that it took place in; None for a live one, which costs nothing.
    """
    reference = case.references[0] if case.references else None
    trace = trace_of(episode.messages, reference=reference, student=student)
    breakdown = reward.score(trace, case.references)
    costs = replay.penalties if replay else []
    costs = [*costs, *[0.0] * (len(episode.parsed) - len(costs))]  # a turn cut off by its length never reached it
    potentials = [breakdown.total]
    if by_turn:
        # A turn's prefix ends where the next turn begins, so that it holds the results of its own calls.
        assistants = [i for i, message in enumerate(episode.messages) if message["role"] == "assistant"]
        starts = assistants[len(assistants) - len(episode.parsed) :]
        prefixes = (trace_of(episode.messages[:end], reference=reference, student=student) for end in starts)
        potentials = [reward.score(prefix, case.references).total for prefix in prefixes] + potentials
    gains = [after - before for before, after in pairwise(potentials)]
    return Rollout(
        case=case,
        episode=episode,
        trace=trace,
        breakdown=_penalised(breakdown, sum(costs)),
        turn_rewards=[gain - cost for gain, cost in zip(gains, costs, strict=True)] if by_turn else [],
        coverage=replay.coverage if replay else None,
    )


def _penalised(breakdown: RewardBreakdown, penalty: float) -> RewardBreakdown:
    if not penalty:
        return breakdown
    lost = f"-{penalty:.2f}: the replay had to carry out the teacher's call in place of the student's"
    total = max(-1.0, breakdown.total - penalty)
    return breakdown.model_copy(update={"total": total, "explanation": [*breakdown.explanation, lost]})


@dataclass(frozen=True)
class Batch:
    """Episodes side by side. The n written tokens stand episode after episode, in order."""

    members: list[int]
    """Indices of the rollouts."""
    ids: Tensor
    """[episodes, length], padded on the right."""
    rows: Tensor
    """[n]: row of each written token."""
    columns: Tensor
    """[n]: its position in the row."""
    tokens: Tensor
    """[n]: its index among the written tokens of all rollouts."""


def pad(rollouts: Sequence[Rollout], members: Sequence[int], offsets: Sequence[int], device: Any) -> Batch:
    """Lays rollouts side by side.

    Args:
        offsets: per rollout, the number of written tokens of those before it.
    """
    longest = max(len(rollouts[member].episode.ids) for member in members)
    ids = torch.zeros(len(members), -(-longest // ROUND_LENGTH) * ROUND_LENGTH, dtype=torch.long)
    rows: list[int] = []
    columns: list[int] = []
    tokens: list[int] = []
    for row, member in enumerate(members):
        episode, written = rollouts[member].episode, rollouts[member].written
        ids[row, : len(episode.ids)] = torch.tensor(episode.ids)
        rows += [row] * len(written)
        columns += written
        tokens += range(offsets[member], offsets[member] + len(written))
    places = (torch.tensor(values, dtype=torch.long, device=device) for values in (rows, columns, tokens))
    return Batch(list(members), ids.to(device), *places)


@dataclass(frozen=True)
class Minibatch:
    """One process's part of the episodes that one gradient step is made of."""

    batches: list[Batch]
    """Micro-batches; none where the other processes have them all."""
    tokens: int
    """Written tokens in all processes."""


def minibatches(
    rollouts: Sequence[Rollout],
    size: int,
    accumulation: int,
    device: Any,
    share: tuple[int, int] = (0, 1),
    *,
    level: bool = False,
) -> list[Minibatch]:
    """Groups rollouts of like length: minibatches of `size` episodes, each in up to `accumulation` micro-batches.

    The grouping is the same in every epoch, so that a token always meets the same padding and the ratio of the first
    step is exactly 1; and the same for any number of processes, among which each minibatch is dealt out. Rollouts in
    which the student wrote nothing are left out.

    Args:
        share: (p, n): the part of process p of n.
        level: every process gets as many micro-batches; those that are too few are made up for by empty ones.
    """
    lengths = [len(rollout.written) for rollout in rollouts]
    offsets = [int(total) for total in np.cumsum([0, *lengths])]
    order = sorted((i for i, n in enumerate(lengths) if n), key=lambda i: (len(rollouts[i].episode.ids), i))
    process, processes = share
    micro = -(-size // (accumulation * processes))
    made = []
    for group in _parts(order, size):
        batches = [pad(rollouts, part, offsets, device) for part in _parts(group[process::processes], micro)]
        most = -(-len(group[::processes]) // micro)
        if level:
            batches += [_empty(device)] * (most - len(batches))
        made.append(Minibatch(batches, sum(lengths[i] for i in group)))
    return made


def _empty(device: Any) -> Batch:
    """A batch in which nothing was written."""
    nothing = torch.zeros(0, dtype=torch.long, device=device)
    return Batch([], torch.zeros(1, ROUND_LENGTH, dtype=torch.long, device=device), nothing, nothing, nothing)


def _parts(values: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (values[start : start + size] for start in range(0, len(values), size))
