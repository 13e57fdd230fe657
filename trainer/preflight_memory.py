"""How much memory and work a Llama needs, by arithmetic: what can be known before the first step.

Every part has a name, so that a wrong one can be found when a real run shows another figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.config import Config

CONTEXT = 700 << 20
"""Bytes that CUDA and its libraries take before anything is stored; between 0.5 and 0.9 GB by GPU and version."""
HEAD_ROWS = 32_768
"""Bytes are needed for this many logits at a time and token by a head that never holds all of them."""

PPO_LOGITS = 64 << 20
"""Logits that PPO's learner has at a time, see `trainer.ppo.value_head`; their gradients and a copy come on top."""


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes, as its config.json has them."""

    hidden: int
    intermediate: int
    layers: int
    kv_width: int
    """Key/value heads × width of a head."""
    query_width: int
    vocabulary: int
    tied: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Shape:
        """From the keys of config.json.

        Raises:
            KeyError: it describes no Llama.
        """
        heads = config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // heads
        return cls(
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            kv_width=config.get("num_key_value_heads", heads) * width,
            query_width=heads * width,
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of the seven linear layers of a block."""
        query, key = (self.hidden, self.query_width), (self.hidden, self.kv_width)
        up, down = (self.hidden, self.intermediate), (self.intermediate, self.hidden)
        return [query, key, key, (self.query_width, self.hidden), up, up, down]

    @property
    def linear_parameters(self) -> int:
        """Weights of all blocks' linear layers: what NF4 shrinks and LoRA is added to."""
        return self.layers * sum(wide * narrow for wide, narrow in self.linears)

    @property
    def other_parameters(self) -> int:
        """Embeddings, output layer and norms."""
        tables = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return tables + self.hidden * (2 * self.layers + 1)

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters

    def adapter_parameters(self, rank: int) -> int:
        """Of a LoRA adapter on every linear layer of the blocks."""
        return self.layers * rank * sum(wide + narrow for wide, narrow in self.linears)

    def flops_per_token(self, context: float) -> float:
        """Of one forward pass: two for each weight, and attention over `context` tokens on average."""
        weights = self.linear_parameters + self.vocabulary * self.hidden
        return 2.0 * weights + 4.0 * self.layers * self.query_width * context


LLAMA_8B = Shape(hidden=4096, intermediate=14336, layers=32, kv_width=1024, query_width=4096, vocabulary=128_256)
"""Llama 3.1 8B, for when its config.json cannot be read."""


def _width(config: Config) -> int:
    return 2 if config.student.dtype == "bfloat16" else 4


def weight_bytes(shape: Shape, config: Config) -> int:
    """The frozen base. NF4 has 4 bits a weight, 8 more for each block of 64, and 32 for each 256 of those."""
    width = _width(config)
    if not config.student.load_in_4bit:
        return shape.parameters * width
    quantised = shape.linear_parameters
    return quantised // 2 + quantised // 64 + quantised // (64 * 256) * 4 + shape.other_parameters * width


def trained_parameters(shape: Shape, config: Config) -> int:
    """What the optimiser sees."""
    tables = 2 * shape.vocabulary * shape.hidden if config.sft.train_embeddings else 0
    return shape.adapter_parameters(config.sft.lora_r) + tables


def _layer_activations(shape: Shape, config: Config, dropout: bool) -> int:
    """Bytes per token that one block keeps for its backward pass.

    Ten of the hidden width (the input and the sum after attention, both as 32-bit copies in their norms; what the norms
    give; query; attention's result), keys and values, four of the feed-forward width; with dropout the adapters keep
    their own copies of their inputs.
    """
    elements = 10 * shape.hidden + 2 * shape.kv_width + 4 * shape.intermediate
    if dropout:
        elements += 6 * shape.hidden + shape.intermediate
    return elements * (2 if config.sft.bf16 else 4)


def sft_memory(shape: Shape, config: Config) -> dict[str, int]:
    """Bytes by part at the peak of an SFT step with batches of full length."""
    sft, trained = config.sft, trained_parameters(shape, config)
    tokens = sft.batch_size * config.dataset.max_tokens
    trained_width = 2 if config.student.load_in_4bit else 4
    kept = _layer_activations(shape, config, dropout=sft.lora_dropout > 0)
    if sft.gradient_checkpointing:
        activations = tokens * (shape.layers * shape.hidden * _width(config) + kept)
    else:
        activations = tokens * shape.layers * kept
    parts = {
        "weights": weight_bytes(shape, config),
        "adapter": trained * trained_width,
        "gradients": trained * trained_width,
        "optimizer": trained * (2 if "8bit" in sft.optimizer else 8),
        "activations": activations,
        "output layer": HEAD_ROWS * 4 * 64 + 2 * tokens * shape.hidden * 4,
    }
    if sft.packing and config.student.attention in ("sdpa", "eager"):
        parts["attention mask"] = tokens * tokens
    if config.student.load_in_4bit:
        parts["one layer in 16 bit"] = 2 * max(wide * narrow for wide, narrow in shape.linears)
    return parts


def ppo_memory(shape: Shape, config: Config) -> dict[str, int]:
    """Bytes by part at the peak of a PPO update, where every episode is `dataset.max_tokens` long.

    PPO learns without dropout. Writing holds the keys and values of the episodes that are written at once; learning the
    activations of one micro-batch, and for the value head the hidden states of all tokens that the student wrote: never
    both.
    """
    ppo, trained = config.ppo, shape.adapter_parameters(config.sft.lora_r)
    length = min(ppo.window or config.dataset.max_tokens, config.dataset.max_tokens)
    at_once = min(ppo.episodes_at_once, max(ppo.episodes_per_update, ppo.eval_prompts))
    cache = at_once * length * 2 * shape.layers * shape.kv_width * _width(config)
    episodes = max(1, ppo.minibatch_size // ppo.gradient_accumulation)
    kept = _layer_activations(shape, config, dropout=False)
    if ppo.gradient_checkpointing:
        learning = episodes * length * (shape.layers * shape.hidden * _width(config) + kept)
    else:
        learning = episodes * length * shape.layers * kept
    parts = {
        "weights": weight_bytes(shape, config),
        "adapters, gradients, optimizer": trained * (2 * 4 + 4 + 8),
        "writing: keys and values": cache,
        "learning: activations": learning,
        "learning: hidden states": ppo.episodes_per_update
        * min(length, ppo.max_turns * ppo.max_new_tokens)
        * shape.hidden
        * 4,
        "learning: output layer": 3 * PPO_LOGITS * 4,
    }
    if config.student.load_in_4bit:
        parts["one layer in 16 bit"] = 2 * max(wide * narrow for wide, narrow in shape.linears)
    return parts


def peak(parts: Mapping[str, int]) -> int:
    """Bytes of all parts; those of writing and of learning are never there together."""
    phases = [sum(size for name, size in parts.items() if name.startswith(phase)) for phase in ("writing", "learning")]
    return sum(parts.values()) - sum(phases) + max(phases)


def sft_flops(shape: Shape, config: Config, tokens: int, mean_length: float) -> float:
    """Of training on `tokens` in all: forward, backward through frozen weights, and forward again where activations
    are not kept."""
    passes = 3 if config.sft.gradient_checkpointing else 2
    return tokens * passes * shape.flops_per_token(mean_length / 2)
