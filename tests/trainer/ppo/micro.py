"""A random two-layer Llama, prompts without tools, and a reward that can be learned at once.

As a script it is one PPO run, for tests that need a process of their own:

    python -m tests.trainer.ppo.micro FOLDER '{"updates": 3}'
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from claude_capture.claude_trace_schema import Trace
from trainer.config import Config, PpoConfig
from trainer.ppo.ppo_trainer import train_ppo
from trainer.records import Message, RewardBreakdown, RewardComponents
from trainer.run_folder import RunFolder
from trainer.student.chat_format import ParsedTurn, render
from trainer.student.episodes import Case
from trainer.student.tiny_llama import train_tokenizer


class Silence:
    """An environment without tools: one turn, then it is over."""

    def __init__(self, prompt: str) -> None:
        self.tools: list[dict[str, Any]] = []
        self.prompt = prompt

    def reset(self) -> list[Message]:
        return [{"role": "user", "content": self.prompt}]

    def step(self, turn: ParsedTurn) -> list[Message] | None:
        return None


class LetterReward:
    """Pays for the letter e: random models hardly write it, and any policy gradient soon makes them."""

    def score(self, student: Trace, references: Sequence[Trace]) -> RewardBreakdown:
        text = "".join(step.text for step in student.steps)
        share = text.count("e") / 8
        return RewardBreakdown(
            trace_id=student.trace_id,
            total=2 * min(1.0, share) - 1,
            components=RewardComponents(outcome=2 * min(1.0, share) - 1),
            explanation=[] if share >= 1 else ["too few e"],
        )


def micro_tokenizer() -> Any:
    """About 290 tokens, the control tokens of Llama 3 among them."""
    conversation = [{"role": "user", "content": "please fix the typo in a.py"}, {"role": "assistant", "content": "eee"}]
    return train_tokenizer([render(conversation)] * 4, vocab_size=300)


def micro_llama(tokenizer: Any) -> LlamaConfig:
    """2 layers, hidden 64, 512 positions."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_micro_model(tokenizer: Any) -> Any:
    """The same random Llama (2 layers, hidden 64, 512 positions) with the same LoRA adapter each time."""
    torch.manual_seed(0)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", modules_to_save=["lm_head"])
    model = get_peft_model(LlamaForCausalLM(micro_llama(tokenizer)), lora)
    with torch.no_grad():  # an adapter that does something, as one from SFT does
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.02)
    return model.eval()


def micro_cases() -> list[Case]:
    """Six prompts of different lengths."""
    return [
        Case(f"case-{i}", (), lambda i=i: Silence(f"please fix {'the ' * i}typo"), split="train")  # type: ignore[misc]
        for i in range(6)
    ]


def micro_config(**ppo: Any) -> Config:
    """A config for the micro model; keyword arguments override the PPO section."""
    values = {
        "updates": 4,
        "episodes_per_update": 8,
        "minibatch_size": 4,
        "learning_rate": 5e-3,
        "value_learning_rate": 1e-2,
        "value_warmup": 1,
        "kl_coefficient": 0.01,
        "target_kl": 0.2,
        "max_turns": 1,
        "max_new_tokens": 8,
        "checkpoint_every": 2,
        "eval_every": 2,
        "bf16": False,
    }
    return Config(ppo=PpoConfig(**{**values, **ppo}))


def main(folder: Path, ppo: dict[str, Any]) -> None:
    """One run; prints the number of each update as it ends."""
    torch.set_num_threads(1)
    tokenizer = micro_tokenizer()
    config = micro_config(**ppo)
    run = RunFolder(folder.parent, folder.name, config)
    (run.path / f"process-{os.environ.get('RANK', '0')}").touch()
    train_ppo(
        make_micro_model(tokenizer),
        tokenizer,
        micro_cases(),
        micro_cases(),
        LetterReward(),
        config,
        run,
        progress=lambda update, updates, metrics: print(update, flush=True),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
