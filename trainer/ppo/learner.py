"""One PPO update's learning: look back at what was sampled, then improve the policy and the value head on it.

Several processes share an update's episodes: all know all of them, each computes its part of every minibatch, and
log-probabilities, values and gradients are summed, so that n processes take the very steps that one would take. Each
holds the whole model, or a part of every weight (see shards.py).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from trainer.config import PpoConfig
from trainer.ppo.advantages import (
    Floats,
    adapted_coefficient,
    expected_rewards,
    generalised_advantages,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)
from trainer.ppo.importance import truncated_ratios
from trainer.ppo.rollout_buffer import Batch, Minibatch, Rollout, minibatches
from trainer.ppo.shards import open_shards, shard, shards_weights, whole
from trainer.ppo.value_head import Actor, ValueHead, as_reference

VALUE_STEPS = 4
"""Gradient steps of the value head per pass."""


@dataclass(frozen=True)
class Hindsight:
    """What is known of the n written tokens of all episodes before learning from them; tensors of shape [n]."""

    log_probs: Tensor
    advantages: Tensor
    value_targets: Tensor
    """What the value head should have said: returns, less what the other episodes of the prompt foretell."""
    hidden: Tensor
    """[tokens of this process, hidden]: what the value head looks at."""
    places: Tensor
    """Row of each token in `hidden`; -1 for those of other processes."""
    kl_per_episode: float
    """Mean over episodes of Σ log π - log π_ref, in nats."""
    server: dict[str, Any] | None
    """How far the server that wrote the episodes is from this model (see importance.py); None where none did."""
    explained_variance: float
    """1 - Var(returns - values) / Var(returns); 0 where all returns are equal."""


class Learner:
    """The actor-critic, its optimisers and one update's learning."""

    def __init__(self, model: Any, config: PpoConfig) -> None:
        precision = "bf16" if config.bf16 else "no"
        if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
            AcceleratorState._reset_state()  # an earlier stage of this process trained in another precision
        self.accelerator = Accelerator(mixed_precision=precision)
        self.config = config
        self.model = model
        if model.device.type != self.accelerator.device.type:
            model.to(self.accelerator.device)
        self.device = model.device
        self.actor = Actor(model, config.temperature, config.gradient_checkpointing)
        self.sharded = shards_weights(self.accelerator)
        if self.sharded:
            shard(self.actor, self.accelerator)
        self.value_head = ValueHead(model.config.hidden_size).to(self.device)
        self.policy_parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.policy_parameters, lr=config.learning_rate, weight_decay=0.0)
        self.value_optimizer = torch.optim.AdamW(
            self.value_head.parameters(), lr=config.value_learning_rate, weight_decay=0.0
        )
        self.kl_coefficient = config.kl_coefficient
        if self.sharded:  # after the optimiser has found the parts of the weights
            open_shards(self.actor, self.device)
        self.rate = 1.0
        """What the policy's learning rate is multiplied by; halved by every return to the best student."""

    def improve(self, rollouts: Sequence[Rollout], seed: Sequence[int], *, warmup: bool) -> dict[str, Any]:
        """Learns from the rollouts of one update, the same in every process; at least one token was written.

        A minibatch whose loss or gradient is not a number is skipped and counted.

        Args:
            seed: of the order of the minibatches.
            warmup: the policy stays as it is, the value head learns.
        """
        share = (self.accelerator.process_index, self.accelerator.num_processes)
        groups = minibatches(
            rollouts,
            self.config.minibatch_size,
            self.config.gradient_accumulation,
            self.device,
            share,
            level=self.sharded,
        )
        known = self.look_back(rollouts, [batch for group in groups for batch in group.batches])
        metrics: dict[str, Any] = {
            "kl": known.kl_per_episode,
            "kl_coefficient": self.kl_coefficient,
            "learning_rate": self.rate * self.config.learning_rate,
            "explained_variance": known.explained_variance,
        }
        if known.server is not None:
            metrics["server"] = known.server
        if not warmup:
            metrics |= self.improve_policy(groups, known, seed)
            if self.config.kl_control == "adaptive":
                self.kl_coefficient = adapted_coefficient(
                    self.kl_coefficient, known.kl_per_episode, self.config.kl_goal
                )
        return metrics | {"value_loss": self.fit_values(known, seed)}

    def state(self) -> dict[str, Any]:
        """A copy of what learning has changed, the adapter apart."""
        optimizers = {"policy": self.optimizer.state_dict(), "value": self.value_optimizer.state_dict()}
        scalars = {"kl_coefficient": self.kl_coefficient, "rate": self.rate}
        return copy.deepcopy({"value_head": self.value_head.state_dict(), "optimizer": optimizers, **scalars})

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to an earlier `state`; the learning rates stay those of the config."""
        self.value_head.load_state_dict(state["value_head"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]["policy"]))
        self.value_optimizer.load_state_dict(copy.deepcopy(state["optimizer"]["value"]))
        self.kl_coefficient, self.rate = state["kl_coefficient"], state["rate"]
        self.optimizer.param_groups[0]["lr"] = self.rate * self.config.learning_rate
        self.value_optimizer.param_groups[0]["lr"] = self.config.value_learning_rate

    def slow_down(self, value_head: dict[str, Tensor]) -> None:
        """After a return to an earlier adapter: its value head, half the learning rate, no memory of old gradients."""
        self.value_head.load_state_dict(value_head)
        self.rate /= 2
        self.optimizer.param_groups[0]["lr"] = self.rate * self.config.learning_rate
        self.optimizer.state.clear()
        self.value_optimizer.state.clear()

    def look_back(self, rollouts: Sequence[Rollout], batches: Sequence[Batch]) -> Hindsight:
        """Log-probabilities, values and the reference's opinion, then advantages. No gradient.

        Args:
            batches: those of this process.
        """
        count = sum(len(rollout.written) for rollout in rollouts)
        own_tokens = torch.cat([batch.tokens for batch in batches]) if batches else torch.zeros(0, dtype=torch.long)
        places = torch.full((count,), -1, device=self.device)
        places[own_tokens] = torch.arange(len(own_tokens), device=self.device)
        log_probs, reference, values = seen = torch.zeros(3, count, device=self.device)
        hidden = torch.zeros(len(own_tokens), self.model.config.hidden_size, device=self.device)
        with torch.no_grad():
            for batch in batches:
                log_probs[batch.tokens], states = self._actor(batch)
                hidden[places[batch.tokens]] = states.float()
            values[own_tokens] = self.value_head(hidden)
            with as_reference(self.model):
                for batch in batches:
                    reference[batch.tokens], _ = self._actor(batch)
        seen = self._sum(seen)
        own, frozen, worth = seen.double().cpu().numpy()
        foretold = self._foretold(rollouts)
        worth = worth + foretold
        advantages, returns, kl = [], [], []
        start = 0
        for rollout in rollouts:
            ends = rollout.turn_ends
            part = slice(start, start + (ends[-1] if ends else 0))
            rewards = token_rewards(rollout.turn_rewards, ends, own[part], frozen[part], self.kl_coefficient)
            gae = generalised_advantages(rewards, worth[part], ends, gamma=self.config.gamma, lam=self.config.lam)
            advantages.append(gae[0])
            returns.append(gae[1])
            kl.append(float((own[part] - frozen[part]).sum()))
            start = part.stop
        targets = np.concatenate(returns)
        variance = float(targets.var())
        weighed, server = whiten(torch.from_numpy(np.concatenate(advantages))), None
        if sampled := [value for rollout in rollouts for value in rollout.episode.log_probs]:
            ratios, server = truncated_ratios(own, np.array(sampled))
            weighed = weighed * torch.from_numpy(ratios)
        return Hindsight(
            log_probs=seen[0],
            advantages=weighed.float().to(self.device),
            value_targets=torch.from_numpy(targets - foretold).float().to(self.device),
            hidden=hidden,
            places=places,
            kl_per_episode=float(np.mean(kl)),
            server=server,
            explained_variance=1 - float((targets - worth).var()) / variance if variance > 1e-12 else 0.0,
        )

    def _foretold(self, rollouts: Sequence[Rollout]) -> Floats:
        """Per written token, what the other episodes of its prompt foretell; 0 where each prompt has one episode."""
        if self.config.episodes_per_prompt == 1:
            return np.zeros(sum(len(rollout.written) for rollout in rollouts))
        expected = expected_rewards([r.case.trace_id for r in rollouts], [r.turn_rewards for r in rollouts])
        spread = [np.repeat(e, np.diff([0, *r.turn_ends])) for e, r in zip(expected, rollouts, strict=True)]
        return np.concatenate(spread)

    def improve_policy(self, groups: Sequence[Minibatch], known: Hindsight, seed: Sequence[int]) -> dict[str, Any]:
        """Several passes over the minibatches, ended early by approx-KL; see `improve`."""
        sums = torch.zeros(3, device=self.device)
        steps, skipped, tokens, norm, stopped = 0, 0, 0, 0.0, False
        for epoch in range(self.config.epochs):
            for index in np.random.default_rng([*seed, epoch]).permutation(len(groups)):
                step_sums = self._accumulate(groups[index], known)
                step_norm = float(whole(nn.utils.clip_grad_norm_(self.policy_parameters, self.config.max_grad_norm)))
                if not (bool(torch.isfinite(step_sums).all()) and math.isfinite(step_norm)):
                    skipped += 1
                    continue
                sums, tokens, norm = sums + step_sums, tokens + groups[index].tokens, step_norm
                stopped = float(step_sums[2]) / groups[index].tokens > self.config.target_kl
                if stopped:
                    break
                self.optimizer.step()
                steps += 1
            if stopped:
                break
        self.optimizer.zero_grad()
        policy, clipped, approx_kl = (float(total) / max(1, tokens) for total in sums)
        return {
            "policy_loss": policy,
            "clip_fraction": clipped,
            "approx_kl": approx_kl,
            "gradient_norm": norm,
            "gradient_steps": steps,
            "skipped_minibatches": skipped,
            "kl_stop": stopped,
        }

    def _accumulate(self, group: Minibatch, known: Hindsight) -> Tensor:
        """Gradients of one minibatch, micro-batch by micro-batch; returns sums over its tokens in all processes."""
        self.optimizer.zero_grad()
        sums = torch.zeros(3, device=self.device)
        shares = self.accelerator.num_processes if self.sharded else 1  # FSDP takes the mean of what it should add up
        for batch in group.batches:
            log_probs, _ = self._actor(batch)
            policy = policy_loss(
                log_probs, known.log_probs[batch.tokens], known.advantages[batch.tokens], self.config.clip
            )
            (policy.loss * shares / group.tokens).backward()
            sums += torch.stack([policy.loss.detach(), policy.clipped, policy.approx_kl])
        if not self.sharded:
            self._sum_gradients(self.policy_parameters)
        return self._sum(sums)

    def fit_values(self, known: Hindsight, seed: Sequence[int]) -> float:
        """Fits the value head to its targets, on hidden states as they are; returns the mean loss of the first pass.

        The backbone is not needed for that, so many passes cost next to nothing, and a critic that is right early is
        what keeps the policy's gradient from being noise. Returns that are not numbers teach it nothing.
        """
        count, first = len(known.value_targets), torch.zeros((), device=self.device)
        if not bool(torch.isfinite(known.value_targets).all()):
            return math.nan
        for epoch in range(self.config.value_epochs):
            order = np.random.default_rng([*seed, 1, epoch]).permutation(count)
            for part in np.array_split(order, min(VALUE_STEPS, count)):
                tokens = torch.from_numpy(part).to(self.device)
                own = tokens[known.places[tokens] >= 0]
                loss = value_loss(self.value_head(known.hidden[known.places[own]]), known.value_targets[own])
                self.value_optimizer.zero_grad()
                (loss / len(tokens)).backward()
                self._sum_gradients(list(self.value_head.parameters()))
                self.value_optimizer.step()
                first += loss.detach() if epoch == 0 else 0.0
        return float(self._sum(first)) / count

    def anywhere(self, flag: bool) -> bool:
        """Whether the flag is set in any process, so that all processes decide alike."""
        return bool(self._sum(torch.tensor(float(flag), device=self.device)) > 0)

    def _actor(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with self.accelerator.autocast():
            seen: tuple[Tensor, Tensor] = self.actor(batch.ids, batch.rows, batch.columns)
        return seen

    def _sum(self, value: Tensor) -> Tensor:
        """Sum over all processes."""
        total: Tensor = self.accelerator.reduce(value, reduction="sum")
        return total

    def _sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Adds up what the processes have found; one that had nothing to look at adds 0."""
        if self.accelerator.num_processes == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        total = self._sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for parameter, gradient in zip(parameters, total.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter)
