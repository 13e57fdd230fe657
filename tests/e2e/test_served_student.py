"""The real Claude Code, pointed at `claude-trainer serve`: no other program, no model of anybody else.

The student is a small Llama made here that has learned one short conversation by heart, so that what Claude Code does
with its turns is known beforehand. Where CLAUDE_TRAINER_DEMO_MODEL names the exported student of `make demo`, that one
is asked questions of the demo world, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from claude_code_cli import ClaudeCode

from trainer.demo import sqlite3_shim
from trainer.demo.world import FAMILIES, DemoEpisode, check_answer, check_workspace, headline_episode, make_episode

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer" / "serve"))

from small_students import knowing_by_heart

pytestmark = [pytest.mark.claude, pytest.mark.timeout(300)]
DEMO_MODEL = os.environ.get("CLAUDE_TRAINER_DEMO_MODEL", "")
QUESTIONS = {
    "headline": [headline_episode(seed) for seed in (0, 7_000_001, 7_000_002)],
    **{name: [make_episode(seed, True, name) for seed in (7_000_001, 7_000_002, 7_000_003)] for name in FAMILIES},
}
"""Held-out questions by family; the headline question in three workspaces."""


@contextmanager
def served(model: Path, folder: Path) -> Iterator[str]:
    """The real command; gives the base URL. It must have said nothing but its address and one line at the end."""
    command = [sys.executable, "-m", "trainer.cli", "serve", str(model), "--port", "0", "--threads", "1"]
    with (
        (folder / "serve.log").open("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            name, _, url = process.stdout.readline().strip().partition("=")
            assert name == "ANTHROPIC_BASE_URL", (folder / "serve.log").read_text()
            yield url
        finally:
            process.terminate()
            rest = process.stdout.read()
        assert rest == ""
        log.seek(0)
        assert len(log.readlines()) == 1


def outcome(claude: ClaudeCode, prompt: str, *options: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The content blocks of the session, in order, and Claude Code's own result."""
    done = claude.prompt(prompt, "--output-format", "stream-json", "--verbose", *options)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.stderr, lines[-1:])
    messages = [line["message"] for line in lines if line["type"] in ("assistant", "user")]
    return [block for message in messages for block in message["content"] if isinstance(block, dict)], lines[-1]


def test_students_calls_are_executed_and_its_answer_is_the_result(claude_binary: Path, tmp_path: Path) -> None:
    model = knowing_by_heart(tmp_path / "model")
    with served(model, tmp_path) as url:
        claude = ClaudeCode(claude_binary, tmp_path / "claude", url)
        (claude.project / "src").mkdir()
        (claude.project / "src" / "a.py").write_text("x = 42")
        blocks, result = outcome(claude, "What is x?")
    said, read, seen, answer = blocks
    assert said == {"type": "text", "text": "I read <it>."}
    assert (read["name"], read["input"]) == ("Read", {"file_path": str(claude.project / "src" / "a.py")})
    assert seen["content"] == "1\tx = 42"
    assert answer["text"] == result["result"] == "It is 42: é, 你好 <|."
    assert (result["subtype"], result["num_turns"]) == ("success", 2)
    assert result["usage"]["cache_read_input_tokens"] > 40


@pytest.mark.slow
@pytest.mark.skipif(not DEMO_MODEL, reason="CLAUDE_TRAINER_DEMO_MODEL names no GGUF; `make demo` makes one")
@pytest.mark.parametrize("family", QUESTIONS)
def test_demo_student_works_in_claude_code_as_in_the_demo(claude_binary: Path, tmp_path: Path, family: str) -> None:
    shim = tmp_path / "bin" / "sqlite3"  # Claude Code's shell must find one that prints as the student has seen it
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{sqlite3_shim.__file__}" "$@"\n')
    shim.chmod(0o755)
    right = 0
    with served(Path(DEMO_MODEL), tmp_path) as url:
        for number, episode in enumerate(QUESTIONS[family]):
            path = {"PATH": f"{shim.parent}:{os.environ['PATH']}"}
            claude = ClaudeCode(claude_binary, tmp_path / str(number), url, path)
            right += _is_right(claude, episode)
    assert right >= 2, "of three"


def _is_right(claude: ClaudeCode, episode: DemoEpisode) -> bool:
    episode.workspace.materialise(claude.project)
    _, result = outcome(claude, episode.prompt, "--tools", "Bash,Edit,Grep,Read")
    return check_answer(episode, result["result"]) and check_workspace(episode, claude.project)
