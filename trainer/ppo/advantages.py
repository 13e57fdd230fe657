"""The arithmetic of PPO, kept apart from models and files so that it can be held against a float64 reference.

A turn is one decision of the agent, its tokens are how it is spelled. Discount and λ therefore count turns: inside a
turn both are 1, so that the last token's reward reaches the first one whole, and between turns they are γ and λ.

Sources: GAE, Schulman et al. 2016 (arXiv 1506.02438), eq. 16; clipped ratio, Schulman et al. 2017 (arXiv 1707.06347),
eq. 7; the k3 estimator of KL, Schulman 2020 (joschu.net/blog/kl-approx.html); the adaptive KL coefficient, Ziegler
et al. 2019 (arXiv 1909.08593), section 2.2. Values are not clipped: where that was measured it did not help or did
harm (Andrychowicz et al. 2021, arXiv 2006.05990, section 3.3), and the value head is refitted on fixed features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]


def token_rewards(
    turn_rewards: Sequence[float],
    turn_ends: Sequence[int],
    log_probs: Floats,
    reference_log_probs: Floats,
    kl_coefficient: float,
) -> Floats:
    """Rewards per written token: -β(log π - log π_ref) at each, the turn's reward added at its last.

    Args:
        turn_rewards: one per turn.
        turn_ends: one per turn, the number of written tokens up to its end (so the last one is the length).
        log_probs: nats, of the sampled tokens under the policy that sampled them. Shape [written tokens].
        reference_log_probs: the same under the frozen reference.
    """
    rewards = -kl_coefficient * (log_probs - reference_log_probs)
    for reward, end in zip(turn_rewards, turn_ends, strict=True):
        rewards[end - 1] += reward
    return rewards


def generalised_advantages(
    rewards: Floats, values: Floats, turn_ends: Sequence[int], *, gamma: float, lam: float
) -> tuple[Floats, Floats]:
    """GAE over the written tokens of one episode, discounted per turn; the state after the last token is worth 0.

    Args:
        rewards, values: shape [written tokens]; the value of the state in which the token is chosen.
        turn_ends: as in `token_rewards`.

    Returns:
        Advantages and returns (advantage + value), both of shape [written tokens].
    """
    last_of_turn = {end - 1 for end in turn_ends}
    advantages = np.zeros(len(rewards))
    advantage = next_value = 0.0
    for index in range(len(rewards) - 1, -1, -1):
        g, blend = (gamma, lam) if index in last_of_turn else (1.0, 1.0)
        advantage = float(rewards[index]) + g * next_value - float(values[index]) + g * blend * advantage
        advantages[index] = advantage
        next_value = float(values[index])
    return advantages, advantages + values


def expected_rewards(prompts: Sequence[str], turn_rewards: Sequence[Sequence[float]]) -> list[Floats]:
    """What each turn of an episode may still expect to earn, going by the other episodes of its prompt.

    The mean of their totals, less what the episode has earned before the turn. None of its own later actions are in
    it, so it is a sound baseline (leave-one-out: Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free";
    Ahmadian et al. 2024, arXiv 2402.14740). Where the others of its prompt were dropped, all others of the update stand
    in; the only episode of an update expects 0.

    Args:
        prompts: one per episode.
        turn_rewards: one list per episode.

    Returns:
        Per episode, an array with one number per turn.
    """
    totals = np.array([sum(rewards) for rewards in turn_rewards])
    names = np.array(prompts)
    expected = []
    for index, rewards in enumerate(turn_rewards):
        apart = np.arange(len(totals)) != index
        others = totals[apart & (names == names[index])] if (names[apart] == names[index]).any() else totals[apart]
        before = np.cumsum([0.0, *rewards])[: len(rewards)]
        expected.append(others.mean() - before if len(others) else np.zeros(len(rewards)))
    return expected


def whiten(advantages: Tensor) -> Tensor:
    """Zero mean and unit deviation over all tokens of an update; equal advantages become 0, not noise."""
    return (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-6)


def adapted_coefficient(coefficient: float, kl: float, goal: float) -> float:
    """The next KL coefficient: β·(1 + 0.1·e) with e = clip(KL / goal - 1, -0.2, 0.2), so at most 2 % per update.

    Args:
        kl, goal: nats per episode; a KL that is not a number leaves the coefficient as it is.
    """
    error = kl / goal - 1
    return coefficient * (1 + 0.1 * min(0.2, max(-0.2, error))) if math.isfinite(error) else coefficient


def kl_k3(log_probs: Tensor, other: Tensor) -> Tensor:
    """Per-token estimate of KL(π‖other) in nats from samples of π: never negative, unbiased, low variance."""
    difference = other - log_probs
    return torch.expm1(difference) - difference


@dataclass(frozen=True)
class PolicyLoss:
    """Sums over tokens, so that micro-batches add up to exactly what one batch gives."""

    loss: Tensor
    """Scalar: sum of -min(ρA, clip(ρ)A); carries the gradient."""
    clipped: Tensor
    """Scalar: number of tokens whose ratio the clip cut off."""
    approx_kl: Tensor
    """Scalar: sum of k3(old ‖ new), in nats."""


def policy_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float) -> PolicyLoss:
    """The clipped surrogate over written tokens; all arguments of shape [tokens]."""
    log_ratio = log_probs - old_log_probs
    ratio = log_ratio.exp()
    plain = ratio * advantages
    cut = ratio.clamp(1 - clip, 1 + clip) * advantages
    with torch.no_grad():
        clipped = (cut < plain).sum()
        approx_kl = (torch.expm1(log_ratio) - log_ratio).sum()
    return PolicyLoss(-torch.minimum(plain, cut).sum(), clipped, approx_kl)


def value_loss(values: Tensor, returns: Tensor) -> Tensor:
    """Sum of half squared errors over tokens of shape [tokens]."""
    return 0.5 * (values - returns).square().sum()
