"""Best of n: the student samples each prompt n times and one of the samples counts.

Who picks it decides what the figure means:

*oracle*      the sample with the highest reward. The reward compares with the teacher's own work, which nobody has at
              hand when the student works: an upper bound on what choosing could bring, nothing to put into service.
*consistent*  the sample that agrees most with the other samples, by the same reward with those as references
              (minimum Bayes risk; Kumar and Byrne, HLT-NAACL 2004). It needs no reference and could be served, at n
              times the cost.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.config import PpoConfig
from trainer.ppo.rollout_buffer import Reward, Rollout, collect
from trainer.student.episodes import Case


@dataclass(frozen=True)
class BestOfN:
    """The chosen episode of each prompt, in the order of the prompts."""

    oracle: list[Rollout]
    consistent: list[Rollout]


def best_of_n(
    model: Any, tokenizer: Any, cases: Sequence[Case], reward: Reward, ppo: PpoConfig, *, samples: int, seed: int
) -> BestOfN:
    """Samples every prompt `samples` times at PPO's temperature and picks twice."""
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
    groups = [rollouts[start : start + samples] for start in range(0, len(rollouts), samples)]
    return BestOfN(
        oracle=[max(group, key=lambda rollout: rollout.breakdown.total) for group in groups],
        consistent=[group[most_agreed(group, reward)] for group in groups],
    )


def most_agreed(group: Sequence[Rollout], reward: Reward) -> int:
    """Index of the episode whose mean reward against the others, as its references, is highest; the first of equals."""
    if len(group) < 2:
        return 0
    agreement = [
        statistics.fmean(reward.score(one.trace, [other.trace]).total for other in group if other is not one)
        for one in group
    ]
    return agreement.index(max(agreement))
