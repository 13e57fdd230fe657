"""The student as actor and critic: one backbone, its own output layer, and a value head on what the backbone saw.

Logits exist only at positions that the student wrote, and only one chunk of them at a time: for a vocabulary of
128,000 and a prompt of 4,000 tokens the plain way would fill gigabytes with logits that nobody reads.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainer.errors import TrainerError
from trainer.ppo.shards import like, whole
from trainer.processes import is_main_process

POLICY = "default"
REFERENCE = "reference"
CHUNK_LOGITS = 2**26
"""Most logits that are alive at once (256 MB in float32)."""


class ValueHead(nn.Module):  # type: ignore[misc]
    """Expected future reward from a hidden state that the backbone has left behind; it starts at zero."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """[n, hidden] → [n]."""
        flat = functional.layer_norm(hidden.float(), hidden.shape[-1:])
        values: Tensor = self.linear(flat).squeeze(-1)
        return values


class Actor(nn.Module):  # type: ignore[misc]
    """Log-probabilities of written tokens and the hidden states they were chosen from, in one pass of the backbone.

    Args:
        policy: a PeftModel over a causal language model, with the adapter `default`.
        temperature: of the rollouts; probabilities are those that the tokens were really drawn from.
        recompute: keep no activations inside decoder layers for the backward pass, but compute them again.
    """

    def __init__(self, policy: Any, temperature: float = 1.0, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.policy = policy
        self.temperature = temperature

    def forward(self, ids: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Looks at the tokens `ids[rows, columns]` from the position before each.

        Args:
            ids: [batch, length], padded on the right with anything: causal attention never looks there.
            rows, columns: [n], where the written tokens stand; no column is 0.

        Returns:
            Log-probabilities in nats, float32 [n], and hidden states without gradient, [n, hidden].
        """
        base = self.policy.get_base_model()
        decoder = base.get_decoder()
        with recomputed_layers(decoder) if self.recompute and torch.is_grad_enabled() else nullcontext():
            hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state[rows, columns - 1]
        return self._log_probs(hidden, base.get_output_embeddings(), ids[rows, columns]), hidden.detach()

    def _log_probs(self, hidden: Tensor, output_layer: nn.Module, targets: Tensor) -> Tensor:
        def chunk(states: Tensor, tokens: Tensor) -> Tensor:
            logits = output_layer(states).float() / self.temperature
            return logits.gather(-1, tokens[:, None]).squeeze(-1) - logits.logsumexp(-1)

        size = max(1, CHUNK_LOGITS // self.policy.config.vocab_size)
        pieces = list(zip(hidden.split(size), targets.split(size), strict=True))
        if len(pieces) > 1 and torch.is_grad_enabled():
            return torch.cat([checkpoint(chunk, *piece, use_reentrant=False) for piece in pieces])
        return torch.cat([chunk(*piece) for piece in pieces])


@contextmanager
def recomputed_layers(decoder: nn.Module) -> Iterator[None]:
    """Within the block a forward pass keeps the inputs of the decoder's layers and not what happens inside them.

    transformers does so for layers in training mode, which is why theirs is set, and not that of what they are made
    of: there is no dropout here, and the policy that is improved stays the one that was sampled. Outside the block
    nothing is left of it, so that generation keeps its cache. Source: Chen et al. 2016 (arXiv 1604.06174).
    """
    for layer in decoder.layers:
        layer.gradient_checkpointing, layer.training = True, True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    try:
        yield
    finally:
        for layer in decoder.layers:
            layer.gradient_checkpointing, layer.training = False, False


def require_adapter(model: Any) -> None:
    """Refuses a model without something to train.

    Raises:
        TrainerError: it is no PeftModel with the adapter `default`.
    """
    if not isinstance(model, PeftModel) or POLICY not in model.peft_config:
        raise TrainerError("PPO trains a LoRA adapter, and this model has none; run `claude-trainer sft` first")


def adapter_state(policy: Any, name: str = POLICY) -> dict[str, Tensor]:
    """A copy on the CPU of one adapter's weights, under PEFT's names; processes that share a model call it together."""
    state = get_peft_model_state_dict(policy, adapter_name=name)
    return {key: whole(value.detach()).cpu().clone() for key, value in state.items()}


def load_adapter_state(policy: Any, state: dict[str, Tensor], name: str = POLICY) -> None:
    """Overwrites the weights of one adapter.

    Raises:
        TrainerError: the weights do not belong to this adapter.
    """
    known = get_peft_model_state_dict(policy, adapter_name=name)
    wrong = [key for key in known.keys() | state.keys() if key not in known or key not in state]
    wrong += [key for key in known.keys() & state.keys() if known[key].shape != state[key].shape]
    if wrong:
        raise TrainerError(f"these adapter weights belong to another model or rank: {sorted(wrong)[0]} does not fit")
    set_peft_model_state_dict(policy, {key: like(state[key], known[key]) for key in known}, adapter_name=name)


def save_adapter(policy: Any, folder: Path) -> None:
    """Saves the policy's adapter in PEFT's format, under a temporary name first; the main process writes.

    Processes that share a model call it together.
    """
    state = {key: whole(value) if f".{POLICY}." in key else value for key, value in policy.state_dict().items()}
    if not is_main_process():
        return
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    policy.save_pretrained(str(partial), selected_adapters=[POLICY], state_dict=state)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


@contextmanager
def frozen_reference(policy: Any, folder: Path | None = None) -> Iterator[None]:
    """Keeps a frozen adapter, named `reference`, on the same base while the block runs.

    Args:
        folder: an adapter of the same base, as PEFT saves it; None copies the policy's adapter as it is now.

    Raises:
        TrainerError: there is no adapter in the folder, or it does not fit the base.
    """
    if folder is None:
        state = adapter_state(policy)
        policy.add_adapter(REFERENCE, policy.peft_config[POLICY])
        load_adapter_state(policy, state, REFERENCE)
    else:
        try:
            policy.load_adapter(str(folder), REFERENCE, is_trainable=False)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise TrainerError(f"{folder}: cannot be the reference of the KL penalty ({reason})") from None
    policy.set_adapter(POLICY)
    try:
        yield
    finally:
        policy.set_adapter(POLICY)
        policy.delete_adapter(REFERENCE)


@contextmanager
def as_reference(policy: Any) -> Iterator[None]:
    """Within the block the model answers as the frozen reference does."""
    policy.set_adapter(REFERENCE, inference_mode=True)
    try:
        yield
    finally:
        policy.set_adapter(POLICY)
