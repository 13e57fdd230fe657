"""Which training prompts should PPO practise next?

Not those with the worst score: they select noise and impossible tasks. A prompt is worth practising when the student
sometimes gets it right and sometimes not (there is something to reinforce), when the teacher is of one mind about it
(there is something to aim at), and when it has not just been practised:

    priority = variance of the reward over samples × teacher's self-agreement × staleness      each factor in [0, 1]

Each round looks at other prompts, and again at those chosen before (`looked_at`): what is mastered by now has no
variance left and drops out, what is not has regained staleness and stays.

Mining reads the training split only; the held-out prompts must stay unseen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pydantic import Field

from claude_capture.claude_trace_schema import Record, Trace
from trainer.config import PpoConfig
from trainer.errors import TrainerError
from trainer.ppo.rollout_buffer import Reward, Rollout, collect
from trainer.records import similarity
from trainer.run_folder import write_atomic
from trainer.student.episodes import Case

STALE_AFTER = 2.0
"""Rounds of mining after which a practised prompt has regained half of its staleness."""
LARGEST_SHARE = 4.0
"""A mined prompt is drawn at most this many times as often as one that was not."""


class MinedPrompt(Record):
    """One line of mined.jsonl."""

    trace_id: str = Field(description="Trace behind the prompt")
    split: str = Field(description="Always 'train'")
    priority: float = Field(description="In [0, 1]: variance × agreement × staleness")
    variance: float = Field(description="Variance of the reward over the samples, in [0, 1]")
    agreement: float = Field(description="Mean similarity of the teacher's traces to each other; 1 for a single one")
    staleness: float = Field(description="In (0, 1]: 1 where it was never mined")
    rewards: list[float] = Field(description="Totals of the samples")
    round: int = Field(
        description="0-based round of mining in which it was last chosen; -1 for never, or with nothing left to learn"
    )
    looked: int | None = Field(
        default=None, description="0-based round in which it was last looked at; None in files of before this was noted"
    )
    why: str = Field(description="The same in words, with the commonest lost point")


@dataclass(frozen=True)
class Mined:
    """Every prompt looked at, best first; those with priority 0 are kept for the record."""

    prompts: list[MinedPrompt]
    round: int


def next_round(previous: Sequence[MinedPrompt]) -> int:
    """0-based number of the round after those of a mined.jsonl, also where the last one found nothing to choose."""
    return 1 + max((max(-1 if p.looked is None else p.looked, p.round) for p in previous), default=-1)


def looked_at(cases: Sequence[Case], count: int, previous: Sequence[MinedPrompt] = ()) -> list[Case]:
    """Which training prompts a round samples: at most `count`, in the order of `cases`.

    Up to half of them are re-tests, those chosen longest ago first; the rest is spread evenly over the others and
    moves on with each round, so that every prompt has its turn.
    """
    last = {prompt.trace_id: prompt.round for prompt in previous if prompt.round >= 0}
    number = next_round(previous)
    chosen = sorted((case for case in cases if case.trace_id in last), key=lambda case: last[case.trace_id])
    others = [case for case in cases if case.trace_id not in last]
    retests = chosen[: max(count // 2, count - len(others))]
    fresh = count - len(retests)
    stride = max(1, -(-len(others) // max(1, fresh)))
    places = range(number % stride, len(others), stride)
    taken = {id(case) for case in retests} | {id(others[place]) for place in places[:fresh]}
    return [case for case in cases if id(case) in taken]


def mine(
    model: Any,
    tokenizer: Any,
    cases: Sequence[Case],
    reward: Reward,
    ppo: PpoConfig,
    *,
    samples: int,
    seed: int = 0,
    top: int = 50,
    previous: Sequence[MinedPrompt] = (),
) -> Mined:
    """Samples every prompt several times and ranks them.

    Args:
        cases: prompts of the training split; any other is refused.
        ppo: gives the temperature and the limits of an episode: prompts are sampled as PPO would sample them.
        samples: episodes per prompt, at least 2.
        top: how many prompts of this round count as chosen (they lose staleness).
        previous: what the last round found. Prompts chosen then that are not looked at now are kept as they were.

    Raises:
        TrainerError: a case outside the training split, or too few samples.
    """
    if foreign := next((case for case in cases if case.split != "train"), None):
        raise TrainerError(f"only the training split is mined; case {foreign.trace_id} is of '{foreign.split}'")
    if samples < 2:
        raise TrainerError(f"{samples} sample per prompt shows no variance; take at least 2")
    known = {prompt.trace_id: prompt for prompt in previous}
    number = next_round(previous)
    rollouts = collect(
        model,
        tokenizer,
        [case for case in cases for _ in range(samples)],
        reward,
        ppo,
        temperature=ppo.temperature,
        seed=seed,
        turn_rewards=False,
    ).rollouts
    found = [
        _rate(case, rollouts[index * samples : (index + 1) * samples], reward, known.get(case.trace_id), number)
        for index, case in enumerate(cases)
    ]
    found.sort(key=lambda prompt: (-prompt.priority, prompt.trace_id))
    chosen = {prompt.trace_id for prompt in found[:top] if prompt.priority > 0}
    seen = {prompt.trace_id for prompt in found}
    found = [p.model_copy(update={"round": number}) if p.trace_id in chosen else p for p in found]
    return Mined([*found, *(p for p in previous if p.round >= 0 and p.trace_id not in seen)], number)


def _rate(
    case: Case, rollouts: Sequence[Rollout], reward: Reward, before: MinedPrompt | None, number: int
) -> MinedPrompt:
    rewards = [rollout.breakdown.total for rollout in rollouts]
    variance = float(np.var(rewards))
    agreement = teacher_agreement(case.references, reward)
    last = before.round if before else -1
    staleness = 1.0 if last < 0 else 1 - 0.5 ** ((number - last) / STALE_AFTER)
    priority = variance * agreement * staleness
    lost = Counter(line for rollout in rollouts for line in rollout.breakdown.explanation).most_common(1)
    history = "never mined"
    if before is not None and last >= 0:
        ago = number - last
        history = f"mined {ago} round{'s' if ago > 1 else ''} ago at mean {np.mean(before.rewards):.2f}"
    why = (
        f"{len(rewards)} samples earned {min(rewards):.2f} to {max(rewards):.2f} (mean {np.mean(rewards):.2f}); "
        f"the teacher agrees with itself to {agreement:.2f}; {history}"
        + (f"; most often lost: {lost[0][0]}" if lost else "")
    )
    return MinedPrompt(
        trace_id=case.trace_id,
        split=case.split,
        priority=priority,
        variance=variance,
        agreement=agreement,
        staleness=staleness,
        rewards=rewards,
        round=last if priority > 0 else -1,
        looked=number,
        why=why,
    )


def teacher_agreement(references: Sequence[Trace], reward: Reward) -> float:
    """Mean similarity, in [0, 1], of the teacher's traces of one prompt to each other; 1 where there is only one."""
    if len(references) < 2:
        return 1.0
    pairs = permutations(references, 2)
    return float(np.mean([similarity(reward.score(one, [other]).total) for one, other in pairs]))


def sampling_weights(cases: Sequence[Case], mined: Sequence[MinedPrompt]) -> list[float]:
    """How often PPO draws each case, relative to one that was not mined (1), rising with priority to LARGEST_SHARE.

    Only what the newest round looked at counts. Lines kept from earlier rounds are there for re-tests: what they say
    was true before it was practised.
    """
    newest = max((prompt.looked for prompt in mined if prompt.looked is not None), default=None)
    priority = {prompt.trace_id: prompt.priority for prompt in mined if prompt.looked == newest}
    highest = max(priority.values(), default=0.0)
    if highest <= 0:
        return [1.0] * len(cases)
    return [1 + (LARGEST_SHARE - 1) * (priority.get(case.trace_id, 0.0) / highest) for case in cases]


def write_mined(path: Path, mined: Mined) -> None:
    """Writes mined.jsonl, best first."""
    write_atomic(path, b"".join(orjson.dumps(prompt.model_dump(mode="json")) + b"\n" for prompt in mined.prompts))


def read_mined(path: Path) -> list[MinedPrompt]:
    """Reads mined.jsonl.

    Raises:
        TrainerError: it is not there, not one of ours, or has a prompt outside the training split.
    """
    try:
        found = [MinedPrompt.model_validate_json(line) for line in path.read_bytes().splitlines() if line.strip()]
    except FileNotFoundError:
        raise TrainerError(f"{path}: not there; run `claude-trainer mine` first") from None
    except ValueError as error:
        raise TrainerError(f"{path}: not a mined.jsonl: {str(error).splitlines()[0]}") from None
    if foreign := next((prompt for prompt in found if prompt.split != "train"), None):
        raise TrainerError(
            f"{path}: prompt {foreign.trace_id} is of split '{foreign.split}'; only the training split is practised"
        )
    return found
