"""A random two-layer Llama with a tokenizer of its own, recorded sessions, and a reward that can be learned at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from claude_capture.claude_trace_schema import Teacher, Trace
from trainer.config import Config, PpoConfig
from trainer.records import BCSample, Message, RewardBreakdown, RewardComponents
from trainer.student.chat_format import ParsedTurn, render
from trainer.student.episode_trace import trace_of
from trainer.student.episodes import Case
from trainer.student.tiny_llama import train_tokenizer

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {key: {"type": kind}}, "required": [key]},
        },
    }
    for name, key, kind in (
        ("Read", "file_path", "string"),
        ("Bash", "command", "string"),
        ("Edit", "file_path", "string"),
        ("Nap", "seconds", "integer"),
    )
]
TOOLS[2]["function"]["parameters"]["properties"] |= {"old_string": {"type": "string"}, "new_string": {"type": "string"}}


def call(number: int, tool: str, **arguments: Any) -> dict[str, Any]:
    return {"id": f"call_{number}", "type": "function", "function": {"name": tool, "arguments": arguments}}


def turn(content: str = "", *calls: dict[str, Any], malformed: Sequence[str] = ()) -> ParsedTurn:
    message: Message = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = list(calls)
    return ParsedTurn(message, list(malformed))


def result(number: int, content: str) -> Message:
    return {"role": "tool", "content": content, "tool_call_id": f"call_{number}"}


def sample_of(*turns: Message, trace_id: str = "t0", split: str = "train", prompt: str = "Fix the typo") -> BCSample:
    messages = [{"role": "system", "content": "Work."}, {"role": "user", "content": prompt}, *turns]
    return BCSample(
        trace_id=trace_id,
        prompt=prompt,
        response=messages[-1]["content"],
        workflow_type="edit",
        exploration_depth="minimal",
        messages=messages,
        tools=TOOLS,
        weights=[1.0 for message in turns if message["role"] == "assistant"],
        split=split,
        family=trace_id,
        teacher=Teacher(model="scripted-teacher-1"),
        basis="ours",
    )


def trace_from(sample: BCSample) -> Trace:
    return trace_of(sample.messages, reference=None, student="teacher").model_copy(update={"trace_id": sample.trace_id})


@pytest.fixture(scope="session")
def record() -> SimpleNamespace:
    """Functions that write conversations down."""
    return SimpleNamespace(
        call=call, turn=turn, result=result, sample_of=sample_of, trace_from=trace_from, EDIT=EDIT, TOOLS=TOOLS
    )


EDIT = {"file_path": "a.py", "old_string": "teh", "new_string": "the"}


@pytest.fixture
def edit_sample() -> BCSample:
    """Read, a failing edit, the edit, read again, answer."""
    return sample_of(
        turn("Look.", call(0, "Read", file_path="a.py"), call(1, "Bash", command="ls")).message,
        result(0, "teh end"),
        result(1, "a.py"),
        turn("Fix.", call(2, "Edit", file_path="a.py", old_string="tteh", new_string="the")).message,
        result(2, "<tool_use_error>String to replace not found in file.</tool_use_error>"),
        turn("Again.", call(3, "Edit", **EDIT)).message,
        result(3, "The file a.py has been updated."),
        turn("Check.", call(4, "Read", file_path="a.py")).message,
        result(4, "the end"),
        turn("The typo is fixed.").message,
    )


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


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other over a model this small take many times longer than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def letter_reward() -> LetterReward:
    return LetterReward()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    conversation = [{"role": "user", "content": "please fix the typo in a.py"}, {"role": "assistant", "content": "eee"}]
    return train_tokenizer([render(conversation)] * 4, vocab_size=300)


@pytest.fixture(scope="session")
def micro_model(tokenizer: Any) -> Callable[[], Any]:
    """Makes the same random Llama (2 layers, hidden 64) with the same LoRA adapter each time."""

    def make() -> Any:
        torch.manual_seed(0)
        config = LlamaConfig(
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
        lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", modules_to_save=["lm_head"])
        model = get_peft_model(LlamaForCausalLM(config), lora)
        with torch.no_grad():  # an adapter that does something, as one from SFT does
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0, 0.02)
        return model.eval()

    return make


@pytest.fixture
def cases() -> list[Case]:
    return [
        Case(f"case-{i}", (), lambda i=i: Silence(f"please fix {'the ' * i}typo"), split="train")  # type: ignore[misc]
        for i in range(6)
    ]


@pytest.fixture
def ppo_config() -> Callable[..., Config]:
    """A config for the micro model; keyword arguments override the PPO section."""

    def make(**ppo: Any) -> Config:
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

    return make


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"
