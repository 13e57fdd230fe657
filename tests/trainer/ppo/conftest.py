"""Recorded sessions, and the micro model of micro.py, as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from claude_capture.claude_trace_schema import Teacher, Trace
from tests.trainer.ppo.micro import LetterReward, make_micro_model, micro_cases, micro_config, micro_tokenizer
from trainer.config import Config
from trainer.records import BCSample, Message
from trainer.student.chat_format import ParsedTurn
from trainer.student.episode_trace import trace_of
from trainer.student.episodes import Case

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
    return micro_tokenizer()


@pytest.fixture(scope="session")
def micro_model(tokenizer: Any) -> Callable[[], Any]:
    """Makes the same random Llama with the same LoRA adapter each time."""
    return lambda: make_micro_model(tokenizer)


@pytest.fixture
def cases() -> list[Case]:
    return micro_cases()


@pytest.fixture
def ppo_config() -> Callable[..., Config]:
    """A config for the micro model; keyword arguments override the PPO section."""
    return micro_config


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"
