"""The arithmetic against a reference that is written down as the formulas are: sums, float64, no recursion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.ppo.advantages import (
    adapted_coefficient,
    expected_rewards,
    generalised_advantages,
    kl_k3,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)


def reference(
    turn_rewards: list[float], lengths: list[int], new: Any, old: Any, frozen: Any, values: Any, c: dict[str, float]
) -> dict[str, Any]:
    """Rewards, advantages, returns and loss of one episode of consecutive turns."""
    turn_of = np.repeat(np.arange(len(lengths)), lengths)
    n = len(turn_of)
    rewards = np.array([-c["beta"] * (old[t] - frozen[t]) for t in range(n)])
    for turn, reward in enumerate(turn_rewards):
        rewards[np.flatnonzero(turn_of == turn)[-1]] += reward
    after = np.append(values[1:], 0.0)
    crosses = np.append(turn_of[1:] != turn_of[:-1], True)
    deltas = rewards + np.where(crosses, c["gamma"], 1.0) * after - values
    advantages = np.array(
        [
            sum((c["gamma"] * c["lam"]) ** (turn_of[later] - turn_of[t]) * deltas[later] for later in range(t, n))
            for t in range(n)
        ]
    )
    ratio = np.exp(new - old)
    surrogate = np.minimum(ratio * advantages, np.clip(ratio, 1 - c["clip"], 1 + c["clip"]) * advantages)
    return {
        "rewards": rewards,
        "advantages": advantages,
        "returns": advantages + values,
        "loss": -surrogate.sum(),
        "k3": np.exp(frozen - new) - 1 - (frozen - new),
    }


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.sampled_from([0.5, 0.99, 1.0]),
    st.sampled_from([0.0, 0.9, 1.0]),
)
def test_maths_agrees_with_the_written_out_formulas(seed: int, lengths: list[int], gamma: float, lam: float) -> None:
    random = np.random.default_rng(seed)
    n = sum(lengths)
    new, old, frozen = (-random.exponential(1.0, n) for _ in range(3))
    values, turn_rewards = random.normal(size=n), list(random.normal(size=len(lengths)))
    constants = {"beta": 0.05, "gamma": gamma, "lam": lam, "clip": 0.2}
    wanted = reference(turn_rewards, lengths, new, old, frozen, values, constants)

    ends = [int(end) for end in np.cumsum(lengths)]
    rewards = token_rewards(turn_rewards, ends, old, frozen, 0.05)
    advantages, returns = generalised_advantages(rewards, values, ends, gamma=gamma, lam=lam)
    loss = policy_loss(*(torch.from_numpy(array) for array in (new, old, advantages)), clip=0.2)

    np.testing.assert_allclose(rewards, wanted["rewards"], atol=1e-12)
    np.testing.assert_allclose(advantages, wanted["advantages"], atol=1e-9)
    np.testing.assert_allclose(returns, wanted["returns"], atol=1e-9)
    assert float(loss.loss) == pytest.approx(wanted["loss"], abs=1e-9)
    np.testing.assert_allclose(kl_k3(torch.from_numpy(new), torch.from_numpy(frozen)), wanted["k3"], atol=1e-9)


def test_undiscounted_advantage_is_the_reward_to_go_less_the_value() -> None:
    rewards, values = np.array([0.0, 0.0, 1.0, 0.0, 2.0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    advantages, returns = generalised_advantages(rewards, values, [3, 5], gamma=1.0, lam=1.0)
    np.testing.assert_allclose(returns, [3, 3, 3, 2, 2])
    np.testing.assert_allclose(advantages, returns - values)


def test_same_policy_has_ratio_one_no_clip_and_no_kl() -> None:
    log_probs, advantages = torch.tensor([-1.0, -2.0, -0.1]), torch.tensor([1.0, -2.0, 0.5])
    loss = policy_loss(log_probs, log_probs, advantages, clip=0.2)
    assert float(loss.loss) == pytest.approx(0.5)
    assert (float(loss.clipped), float(loss.approx_kl)) == (0.0, 0.0)


def test_clip_stops_the_gradient_only_where_the_step_has_gone_too_far() -> None:
    log_probs = torch.log(torch.tensor([1.5, 1.5, 0.5, 0.5])).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    loss = policy_loss(log_probs, torch.zeros(4), advantages, clip=0.2)
    loss.loss.backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == pytest.approx([0.0, 1.5, -0.5, 0.0])
    assert int(loss.clipped) == 2


def test_equal_advantages_are_no_signal() -> None:
    assert whiten(torch.full((5,), 0.3)).abs().max() < 1e-6
    assert whiten(torch.tensor([1.0, 2.0, 3.0])).std(correction=0) == pytest.approx(1.0, abs=1e-5)


def test_value_loss_sums_half_squares() -> None:
    assert float(value_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]))) == pytest.approx(2.5)


def test_kl_coefficient_follows_the_controller_of_ziegler() -> None:
    assert adapted_coefficient(0.05, kl=5.0, goal=5.0) == 0.05
    assert adapted_coefficient(0.05, kl=5.5, goal=5.0) == pytest.approx(0.05 * (1 + 0.1 * 0.1))
    assert adapted_coefficient(0.05, kl=4.5, goal=5.0) == pytest.approx(0.05 * (1 - 0.1 * 0.1))
    assert adapted_coefficient(0.05, kl=500.0, goal=5.0) == pytest.approx(0.05 * 1.02)
    assert adapted_coefficient(0.05, kl=-3.0, goal=5.0) == pytest.approx(0.05 * 0.98)
    assert adapted_coefficient(0.05, kl=float("nan"), goal=5.0) == 0.05


def test_an_episode_expects_what_the_others_of_its_prompt_earned() -> None:
    rewards = [[0.25, 0.25], [1.0], [0.0, 0.0, 0.5], [-1.0]]
    expected = expected_rewards(["a", "a", "a", "b"], rewards)
    assert expected[0].tolist() == [0.75, 0.5]
    assert expected[1].tolist() == [0.5]
    assert expected[2].tolist() == [0.75, 0.75, 0.75]
    assert expected[3].tolist() == [pytest.approx(2 / 3)], "alone with its prompt: all others of the update"
    assert expected_rewards(["a"], [[0.5, 0.5]])[0].tolist() == [0.0, 0.0]


@given(st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=4), min_size=2, max_size=6), st.floats(-1, 1))
def test_what_an_episode_expects_does_not_depend_on_what_it_does(rewards: list[list[float]], other: float) -> None:
    changed = [[*rewards[0][:-1], other], *rewards[1:]]
    before, after = (expected_rewards(["a"] * len(rewards), each)[0] for each in (rewards, changed))
    assert np.array_equal(before, after)
