"""What the student writes while it learns: the same few prompts every N steps, its first turn beside the teacher's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.records import BCSample, Message
from trainer.run_folder import write_atomic
from trainer.student.chat_format import EOT, ParsedTurn, assistant_text
from trainer.student.episodes import run_episodes

FILE = "samples.jsonl"
SHOWN = 3
"""Prompts that are looked at."""


@dataclass
class _FirstTurn:
    """An environment that ends with the student's first turn."""

    opening: list[Message]
    tools: list[dict[str, Any]]

    def reset(self) -> list[Message]:
        return self.opening

    def step(self, turn: ParsedTurn) -> list[Message] | None:
        return None


class StudentSamples:
    """Asks the student what the teacher was asked.

    Lines of samples.jsonl: step, trace_id, prompt, teacher, student, and `stop`, why the student's turn ended.

    Args:
        max_new_tokens, window: longest turn and longest episode, in tokens; see `run_episodes`.
        file: samples.jsonl of the run folder.
        show: called after each look, so that a page can be made of what was written.
    """

    def __init__(
        self,
        samples: Sequence[BCSample],
        tokenizer: Any,
        max_new_tokens: int,
        window: int | None,
        file: Path,
        show: Callable[[], None] | None = None,
    ) -> None:
        self._asked = [(sample, _first_turn(sample)) for sample in samples[:SHOWN]]
        self._tokenizer = tokenizer
        self._max_new_tokens = max_new_tokens
        self._window = window
        self._file = file
        self._show = show

    def __call__(self, model: Any, step: int) -> None:
        """Greedy, so that nothing random is drawn and training goes on as if nobody had looked."""
        environments = [_FirstTurn(sample.messages[:turn], sample.tools) for sample, turn in self._asked]
        training = model.training
        model.eval()
        try:
            episodes = run_episodes(
                model,
                self._tokenizer,
                environments,
                max_turns=1,
                max_new_tokens=self._max_new_tokens,
                window=self._window,
            )
        finally:
            model.train(training)
        lines = read_samples(self._file)
        for (sample, turn), episode in zip(self._asked, episodes, strict=True):
            written = [token for token, own in zip(episode.ids, episode.written, strict=True) if own]
            lines.append(
                {
                    "step": step,
                    "trace_id": sample.trace_id,
                    "prompt": sample.prompt,
                    "teacher": assistant_text(sample.messages[turn]).removesuffix(EOT),
                    "student": self._tokenizer.decode(written).removesuffix(EOT),
                    "stop": episode.stop,
                }
            )
        self._write(lines)
        if self._show is not None:
            self._show()

    def forget_after(self, step: int) -> None:
        """Drops lines of steps that a continued run will do again."""
        self._write([row for row in read_samples(self._file) if row["step"] <= step])

    def _write(self, lines: Sequence[dict[str, Any]]) -> None:
        write_atomic(self._file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _first_turn(sample: BCSample) -> int:
    return next(index for index, message in enumerate(sample.messages) if message["role"] == "assistant")


def read_samples(file: Path) -> list[dict[str, Any]]:
    """The lines of samples.jsonl; none where it is not there."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
