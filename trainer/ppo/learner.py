"""One PPO update's learning: look back at what was sampled, then improve the policy and the value head on it."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from trainer.config import PpoConfig
from trainer.errors import TrainerError
from trainer.ppo.advantages import generalised_advantages, policy_loss, token_rewards, value_loss, whiten
from trainer.ppo.rollout_buffer import Batch, Rollout, minibatches
from trainer.ppo.value_head import Actor, ValueHead, as_reference

VALUE_STEPS = 4
"""Gradient steps of the value head per pass; fixed, so that all processes take as many."""


class NotFiniteError(TrainerError):
    """A loss or a gradient that is infinite or not a number."""


@dataclass(frozen=True)
class Hindsight:
    """What is known of the written tokens before learning from them; tensors of shape [written tokens]."""

    log_probs: Tensor
    hidden: Tensor
    """[written tokens, hidden]: what the value head looks at."""
    advantages: Tensor
    returns: Tensor
    kl_per_episode: float
    """Mean over episodes of Σ log π - log π_ref, in nats."""
    explained_variance: float
    """1 - Var(returns - values) / Var(returns); 0 where all returns are equal."""


class Learner:
    """The actor-critic, its optimiser and one update's learning."""

    def __init__(self, model: Any, config: PpoConfig) -> None:
        precision = "bf16" if config.bf16 else "no"
        if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
            AcceleratorState._reset_state()  # an earlier stage of this process trained in another precision
        self.accelerator = Accelerator(mixed_precision=precision)
        self.config = config
        self.model = model
        self.policy_parameters = [p for p in model.parameters() if p.requires_grad]
        self.actor, self.optimizer = self.accelerator.prepare(
            Actor(model, config.temperature),
            torch.optim.AdamW(self.policy_parameters, lr=config.learning_rate, weight_decay=0.0),
        )
        head = ValueHead(model.config.hidden_size)
        self.value_head, self.value_optimizer = self.accelerator.prepare(
            head, torch.optim.AdamW(head.parameters(), lr=config.value_learning_rate, weight_decay=0.0)
        )

    def improve(self, rollouts: Sequence[Rollout], seed: Sequence[int], *, warmup: bool) -> dict[str, Any]:
        """Learns from the rollouts of one update.

        Args:
            seed: of the order of the minibatches.
            warmup: the policy stays as it is, the value head learns.

        Raises:
            NotFiniteError: the loss or the gradient is not a number; that step was not taken.
        """
        size = -(-self.config.minibatch_size // self.accelerator.num_processes)
        groups = minibatches(rollouts, size, self.config.gradient_accumulation, self.accelerator.device)
        known = self.look_back(rollouts, [batch for group in groups for batch in group])
        metrics = {"kl": known.kl_per_episode, "explained_variance": known.explained_variance}
        if not warmup:
            metrics |= self.improve_policy(groups, known, seed)
        return metrics | {"value_loss": self.fit_values(known, seed)}

    def state(self) -> dict[str, Any]:
        """A copy of what learning has changed, the adapter apart: `value_head` and `optimizer`."""
        optimizers = {"policy": self.optimizer.state_dict(), "value": self.value_optimizer.state_dict()}
        return copy.deepcopy({"value_head": self.value_head.state_dict(), "optimizer": optimizers})

    def restore(self, value_head: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
        """Goes back to an earlier `state`; the learning rates stay those of the config."""
        self.value_head.load_state_dict(value_head)
        self.optimizer.load_state_dict(optimizer["policy"])
        self.value_optimizer.load_state_dict(optimizer["value"])
        self.optimizer.param_groups[0]["lr"] = self.config.learning_rate
        self.value_optimizer.param_groups[0]["lr"] = self.config.value_learning_rate

    def look_back(self, rollouts: Sequence[Rollout], batches: Sequence[Batch]) -> Hindsight:
        """Log-probabilities, values and the reference's opinion, then advantages. No gradient."""
        count, device = sum(len(batch.tokens) for batch in batches), self.accelerator.device
        log_probs, reference = torch.zeros(count, device=device), torch.zeros(count, device=device)
        hidden = torch.zeros(count, self.model.config.hidden_size, device=device)
        with torch.no_grad():
            for batch in batches:
                log_probs[batch.tokens], states = self.actor(batch.ids, batch.rows, batch.columns)
                hidden[batch.tokens] = states.float()
            values = self.value_head(hidden)
            with as_reference(self.model):
                for batch in batches:
                    reference[batch.tokens], _ = self.actor(batch.ids, batch.rows, batch.columns)
        own, frozen, worth = (t.double().cpu().numpy() for t in (log_probs, reference, values))
        advantages, returns, kl = [], [], []
        start = 0
        for rollout in rollouts:
            ends = rollout.turn_ends
            part = slice(start, start + ends[-1])
            rewards = token_rewards(rollout.turn_rewards, ends, own[part], frozen[part], self.config.kl_coefficient)
            gae = generalised_advantages(rewards, worth[part], ends, gamma=self.config.gamma, lam=self.config.lam)
            advantages.append(gae[0])
            returns.append(gae[1])
            kl.append(float((own[part] - frozen[part]).sum()))
            start = part.stop
        targets = np.concatenate(returns)
        variance = float(targets.var())
        return Hindsight(
            log_probs=log_probs,
            hidden=hidden,
            advantages=self._whitened(torch.from_numpy(np.concatenate(advantages))),
            returns=torch.from_numpy(targets).float().to(device),
            kl_per_episode=float(np.mean(kl)),
            explained_variance=1 - float((targets - worth).var()) / variance if variance > 1e-12 else 0.0,
        )

    def _whitened(self, advantages: Tensor) -> Tensor:
        moments = torch.stack([torch.tensor(float(len(advantages))), advantages.sum(), advantages.square().sum()])
        count, total, squares = self._sum(moments).cpu()
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0).sqrt()
        return whiten(advantages, mean, std).float().to(self.accelerator.device)

    def anywhere(self, flag: bool) -> bool:
        """Whether the flag is set in any process, so that all processes decide alike."""
        return bool(self._sum(torch.tensor(float(flag))) > 0)

    def _sum(self, value: Tensor) -> Tensor:
        """Sum over all processes."""
        total: Tensor = self.accelerator.reduce(value.to(self.accelerator.device), reduction="sum")
        return total

    def improve_policy(
        self, groups: Sequence[Sequence[Batch]], known: Hindsight, seed: Sequence[int]
    ) -> dict[str, Any]:
        """Several passes over the minibatches, ended early by approx-KL; see `improve`."""
        sums = torch.zeros(3, device=self.accelerator.device)
        steps, tokens, norm, stopped = 0, 0.0, 0.0, False
        for epoch in range(self.config.epochs):
            for index in np.random.default_rng([*seed, epoch]).permutation(len(groups)):
                step_sums, count = self._accumulate(groups[index], known)
                if not bool(torch.isfinite(step_sums).all()):
                    raise NotFiniteError("the loss is not a number")
                sums, tokens = sums + step_sums, tokens + count
                stopped = float(step_sums[2]) / count > self.config.target_kl
                if stopped:
                    break
                norm = float(self.accelerator.clip_grad_norm_(self.policy_parameters, self.config.max_grad_norm))
                if not math.isfinite(norm):
                    raise NotFiniteError("the gradient is not a number")
                self.optimizer.step()
                steps += 1
            if stopped:
                break
        self.optimizer.zero_grad()
        policy, clipped, approx_kl = (float(total) / tokens for total in sums)
        return {
            "policy_loss": policy,
            "clip_fraction": clipped,
            "approx_kl": approx_kl,
            "gradient_norm": norm,
            "gradient_steps": steps,
            "kl_stop": stopped,
        }

    def _accumulate(self, batches: Sequence[Batch], known: Hindsight) -> tuple[Tensor, float]:
        """Gradients of one minibatch, micro-batch by micro-batch; returns sums over its tokens and their number."""
        self.optimizer.zero_grad()
        device = self.accelerator.device
        count = float(self._sum(torch.tensor(float(sum(len(batch.tokens) for batch in batches)))))
        # gradients are averaged over processes, so a sum over tokens is scaled back by their number
        scale = self.accelerator.num_processes / count
        sums = torch.zeros(3, device=device)
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.actor):
                log_probs, _ = self.actor(batch.ids, batch.rows, batch.columns)
                policy = policy_loss(
                    log_probs, known.log_probs[batch.tokens], known.advantages[batch.tokens], self.config.clip
                )
                self.accelerator.backward(scale * policy.loss)
            sums += torch.stack([policy.loss.detach(), policy.clipped, policy.approx_kl])
        return self._sum(sums), count

    def fit_values(self, known: Hindsight, seed: Sequence[int]) -> float:
        """Fits the value head to the returns, on hidden states as they are; returns the mean loss of the first pass.

        The backbone is not needed for that, so many passes cost next to nothing, and a critic that is right early is
        what keeps the policy's gradient from being noise.
        """
        first, count = 0.0, len(known.returns)
        for epoch in range(self.config.value_epochs):
            order = np.random.default_rng([*seed, 1, epoch]).permutation(count)
            for part in np.array_split(order, VALUE_STEPS):
                tokens = torch.from_numpy(part).to(known.returns.device)
                loss = value_loss(self.value_head(known.hidden[tokens]), known.returns[tokens]) / max(1, len(tokens))
                self.value_optimizer.zero_grad()
                self.accelerator.backward(loss)
                self.value_optimizer.step()
                first += float(loss.detach()) * len(tokens) / count if epoch == 0 else 0.0
        if not math.isfinite(first):
            raise NotFiniteError("the value loss is not a number")
        return first
