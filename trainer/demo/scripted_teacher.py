"""The scripted teacher at work: it makes a plan by really calling the tools and reading what they give back.

Every text it writes is fixed by the prompt and the outputs so far; only the prompts vary freely. That makes its
way of working learnable, and a student's deviation a deviation.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trainer.demo.tools import TOOLS, WorkspaceTools
from trainer.demo.workspace import NAMES, STATUSES, WorkspaceSpec
from trainer.records import Message

HEADLINE = "What's the difference between transformer 1 and transformer 2?"
_HEADLINE_KEY = ("diff", 1, 2)
_HELD_OUT_SHARE = 8
_WORDS = "|".join([*STATUSES, *NAMES])
_FACT = re.compile(rf"\d+(?:\.\d+)?|\b(?:{_WORDS})\b|\b[\w/]+\.(?:py|env)\b|\b[A-Z]+_[A-Z]+\b|\b[a-z]+_[a-z]+\b")

EntityKey = tuple[str | int, ...]
"""Family and the entities that an episode is about; decides on which side of the split it stands."""


class Call(NamedTuple):
    """One tool call; paths are relative to the workspace."""

    name: str
    arguments: dict[str, Any]


class Step(NamedTuple):
    """One assistant message with its calls and what they gave back."""

    text: str
    calls: tuple[Call, ...]
    outputs: tuple[str, ...]
    failed: tuple[bool, ...]
    """Per call: whether the output is an error."""


@dataclass(frozen=True)
class DemoEpisode:
    """One prompt in one workspace, and how the teacher answers it."""

    seed: int
    held_out: bool
    family: str
    key: EntityKey
    workspace: WorkspaceSpec
    prompt: str
    plan: tuple[Step, ...]
    answer: str
    changed_files: Mapping[str, str]
    """Relative path → text of each file that the teacher changed."""
    constraint: str | None
    """The limit as the teacher repeats it, or None where the prompt states none."""

    @property
    def calls(self) -> list[Call]:
        """All calls in order."""
        return [call for step in self.plan for call in step.calls]

    def messages(self, system_prompt: str) -> list[Message]:
        """The episode as a chat, ids `call_<n>`, ready for `chat_format.render(messages, TOOLS)`."""
        chat: list[Message] = [
            {"role": "system", "content": system_prompt},
            {"role": "user", "content": self.prompt},
        ]
        number = 0
        for step in self.plan:
            ids = [f"call_{number + index}" for index in range(len(step.calls))]
            number += len(ids)
            functions = [{"name": call.name, "arguments": call.arguments} for call in step.calls]
            calls = [
                {"id": key, "type": "function", "function": function}
                for key, function in zip(ids, functions, strict=True)
            ]
            chat.append({"role": "assistant", "content": step.text, "tool_calls": calls})
            chat += [
                {"role": "tool", "tool_call_id": key, "content": output}
                for key, output in zip(ids, step.outputs, strict=True)
            ]
        chat.append({"role": "assistant", "content": self.answer})
        return chat

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The schemas of the tools that the episode was made with."""
        return TOOLS


def is_held_out(key: EntityKey) -> bool:
    """Whether a combination of entities belongs to the held-out side: one in eight by hash, and the headline's."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return key == _HEADLINE_KEY or digest[0] % _HELD_OUT_SHARE == 0


class Task(NamedTuple):
    """A question about a workspace before anybody works on it."""

    prompt: str
    key: EntityKey
    solve: Callable[[Desk], str]
    """Does the work and returns the answer."""
    constraint: str | None = None


class Desk:
    """Where the teacher works: says something, calls tools, reads the outputs; every step is kept."""

    def __init__(self, folder: Path, constraint: str | None) -> None:
        self._tools = WorkspaceTools(folder)
        self._constraint = constraint
        self.steps: list[Step] = []

    def do(self, text: str, *calls: Call) -> list[str]:
        """Makes one assistant message; the first one repeats the constraint. Returns the outputs."""
        if not self.steps and self._constraint:
            text = f"{self._constraint} {text}"
        results = [self._tools.run(call.name, call.arguments) for call in calls]
        outputs = tuple(result.text for result in results)
        self.steps.append(Step(text, calls, outputs, tuple(result.is_error for result in results)))
        return list(outputs)

    @property
    def failed(self) -> bool:
        """Whether the last call failed."""
        return self.steps[-1].failed[-1]


def read(path: str) -> Call:
    """A Read call."""
    return Call("Read", {"file_path": path})


def bash(command: str) -> Call:
    """A Bash call."""
    return Call("Bash", {"command": command})


def query(sql: str, *, line: bool = False) -> Call:
    """A Bash call that queries the database, one row per line or (with `line`) one `column = value` per line."""
    return bash(f'sqlite3 {"-line " if line else ""}grid.db "{sql}"')


def say(rng: random.Random, phrasings: Sequence[str], limits: Sequence[str] = (), **values: Any) -> str:
    """A prompt: one of the phrasings, with one of the limits before or behind it."""
    question = rng.choice(phrasings).format(**values)
    if not limits:
        return question
    limit = rng.choice(limits).format(**values)
    return f"{limit} {question}" if rng.random() < 0.3 else f"{question} {limit}"


def facts(text: str) -> list[str]:
    """The checkable parts of an answer in order: numbers, states, names, files, keys, constants."""
    return _FACT.findall(text)
