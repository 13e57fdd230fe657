"""The closed loop with the real Claude Code: a student made of its sessions works in it, and is captured as itself.

The student is a small Llama that knows by heart what the real CLI and the scripted teacher said to each other: it goes
the whole way from session file to GGUF, and what it does in Claude Code is known beforehand. `make demo-live` runs the
same command with the student of `make demo`, which has learned to work in workspaces that it has not seen.
"""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from claude_capture.ingest import import_sessions
from claude_capture.trace_storage import TraceStore
from trainer.cli import cli
from trainer.config import Config, load_config
from trainer.dataset.behavioral_cloning_builder import build_dataset
from trainer.demo.live_claude_code import ClaudeCode
from trainer.demo.live_loop import QUESTIONS, SERVE, questions
from trainer.demo.live_services import programs, service, write_rollout_config
from trainer.demo.live_split import CLI_OPTIONS, WEIGHTS, decisions_of
from trainer.demo.live_teacher import Teacher, serve_teacher
from trainer.demo.session_file import TEACHER
from trainer.demo.world import check_answer, headline_episode
from trainer.export.export_records import Provenance
from trainer.export.release import release
from trainer.export.student_prompt import student_prompt_of
from trainer.records import BCSample
from trainer.run_folder import config_toml
from trainer.student.chat_format import render
from trainer.student.tiny_llama import train_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer" / "serve"))

from small_students import learn_by_heart, small_llama

pytestmark = [pytest.mark.claude, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
STUDENT = "llama-claude-bc-v1"


def _samples(binary: Path, folder: Path, config: Config) -> list[BCSample]:
    """What the dataset makes of the teacher's sessions in the real CLI, one for each question of the demo."""
    episodes = [headline_episode(config.demo.seed), *questions(QUESTIONS, config.demo.seed)]
    path = programs(folder / "programs")
    with serve_teacher(Teacher(episodes)) as url:
        for number, episode in enumerate(episodes):
            claude = ClaudeCode(binary, folder / "claude" / str(number), url, {"PATH": path})
            episode.workspace.materialise(claude.project)
            *_, result = claude.messages(episode.prompt, *CLI_OPTIONS)
            assert check_answer(episode, result["result"])
    import_sessions([folder / "claude"], folder / "data")
    dataset = folder / "data" / "datasets" / "bc_dataset.jsonl"
    build_dataset(TraceStore.of(folder / "data").path, config, dataset)
    samples = [BCSample.model_validate_json(line) for line in dataset.read_text("utf-8").splitlines()]
    assert len(samples) == len(episodes)
    return samples


@pytest.fixture(scope="module")
def demo_folder(claude_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `make demo` leaves it: config.toml, and models with a registry."""
    folder, work = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("work")
    config = load_config(ROOT / "configs" / "tiny.toml")
    (folder / "config.toml").write_text(config_toml(config))
    samples = _samples(claude_binary, work, config)
    texts = [render(sample.messages, sample.tools) for sample in samples]
    tokenizer = train_tokenizer(texts * 4, 768)
    model = small_llama(tokenizer)
    assert learn_by_heart(model, tokenizer, texts, steps=200) < 0.05
    model.eval().save_pretrained(work / "base")
    tokenizer.save_pretrained(work / "base")
    provenance = Provenance(student_prompt=student_prompt_of(samples, config.dataset).to_json())
    made = release(work / "base", None, folder / "models", STUDENT, config.export, provenance=provenance)
    assert made.doctor.healthy
    return folder


@pytest.mark.slow
def test_the_student_works_in_claude_code_and_is_captured_as_itself(demo_folder: Path) -> None:
    command = [sys.executable, "-m", "trainer.cli", "demo", "--live", "--json", "--folder", str(demo_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout)
    assert summary == json.loads((demo_folder / "live" / "summary.json").read_text())

    headline = summary["headline"]
    assert headline["question"] == "What's the difference between transformer 1 and transformer 2?"
    assert headline["right"] is True, done.stderr
    assert headline["calls"] == ["Read", "Grep", "Bash", "Bash"]
    assert (headline["requests"], headline["by_student"], headline["fallbacks"]) == (5, 5, [])
    assert "❯ What's the difference" in done.stderr
    assert headline["answer"].splitlines()[-1] in done.stderr, "the dialogue is shown"

    trace = next(t for t in TraceStore.of(demo_folder / "live" / "data").load() if t.trace_id == headline["trace"])
    assert (trace.teacher.model, trace.teacher.student) == (STUDENT, STUDENT)
    assert trace.claude_response == headline["answer"]
    assert {call.seen_by for call in trace.tool_calls} == {"both"}, "by the plugin's hooks, too"

    assert [row["weight"] for row in summary["stages"]] == list(WEIGHTS)
    for row in summary["stages"]:
        assert (row["sessions"], row["real"]) == (200, 5)
        assert row["holds"], row
        assert row["changed_sides"] == 0
        assert row["widened"] == (200 if row["weight"] < WEIGHTS[-1] else 0)
    assert summary["contradictions"] == 0
    assert sum(summary["answers"].values()) == 4 * 200
    assert summary["right"] == summary["answers"]

    dataset = summary["dataset"]
    traces = TraceStore.of(demo_folder / "live" / "data").load()
    ours = [t for t in traces if any(step.model != TEACHER for step in t.steps)]
    assert dataset["traces"] == len(traces)
    assert dataset["left_out"]["answered_by_student"] == len(ours) > 1
    assert dataset["used"] >= 1


@contextmanager
def _all_local(demo: Path, folder: Path, teacher: Teacher) -> Iterator[str]:
    """The gateway at 100 %; gives its base URL."""
    [gguf] = (demo / "models").glob("*-q4_k_m.gguf")
    with ExitStack() as stack:
        url = stack.enter_context(serve_teacher(teacher))
        serve = ["serve", str(gguf), "--port", "0", "--threads", "1"]
        local = stack.enter_context(service(serve, folder / "serve.log"))
        write_rollout_config(folder / "rollout.toml", [100], gguf, teacher=url, local=local)
        rollout = [*SERVE, "--config", str(folder / "rollout.toml")]
        yield stack.enter_context(service([*rollout, "--state", str(folder / "state")], folder / "gateway.log"))


def _decisions(folder: Path) -> list[tuple[str, str, str]]:
    [lines] = decisions_of(folder / "state" / "decisions.jsonl").values()
    return [(line["reason"], line["answered_by"], line["ending"]) for line in lines]


@pytest.mark.slow
def test_with_claude_codes_own_tools_every_request_is_answered(
    claude_binary: Path, demo_folder: Path, tmp_path: Path
) -> None:
    """By default Claude Code offers no Grep, but many tools that the student has never seen, some of them deferred.

    What a student by heart says to other tools than its own is not known beforehand, but that somebody answers is.
    """
    episode = headline_episode(0)
    with _all_local(demo_folder, tmp_path, Teacher([episode])) as url:
        claude = ClaudeCode(claude_binary, tmp_path / "claude", url, {"PATH": programs(tmp_path / "programs")})
        episode.workspace.materialise(claude.project)
        messages = list(claude.messages(episode.prompt, "--allowedTools", "Bash(sqlite3:*)"))
    assert messages[-1]["subtype"] == "success"
    told = _decisions(tmp_path)
    assert "http" not in {reason[:4] for reason, _, _ in told}, "the server understood what it was sent"
    assert {ending for _, _, ending in told} == {"complete"}


@pytest.mark.slow
def test_at_a_terminal_the_title_is_the_teachers_and_the_work_the_students(
    claude_binary: Path, demo_folder: Path, tmp_path: Path
) -> None:
    """Interactive, with the side calls that a person's sessions have."""
    episode = headline_episode(0)
    with _all_local(demo_folder, tmp_path, Teacher([episode])) as url:
        claude = ClaudeCode(claude_binary, tmp_path / "claude", url, {"PATH": programs(tmp_path / "programs")})
        episode.workspace.materialise(claude.project)
        _at_a_terminal(claude, episode.prompt, tmp_path / "state" / "decisions.jsonl")
    told = _decisions(tmp_path)
    assert [decision for decision in told if decision[0] == "no_tools"] == [("no_tools", "teacher", "complete")]
    assert [decision for decision in told if not decision[0]] == [("", "student", "complete")] * 5
    [file] = (claude.config / "projects").glob("*/*.jsonl")
    assert episode.answer.splitlines()[-1] in file.read_text("utf-8")


def _at_a_terminal(claude: ClaudeCode, prompt: str, decisions: Path) -> None:
    """Starts Claude Code with the prompt and looks at it until all six requests are answered."""
    known: dict[str, Any] = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    settings = {"hasCompletedOnboarding": True, "theme": "dark", "projects": {str(claude.project): known}}
    settings["customApiKeyResponses"] = {"approved": ["none"], "rejected": []}
    (claude.config / ".claude.json").write_text(json.dumps(settings))
    environment = claude.environment | {"TERM": "xterm-256color"}
    del environment["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"]
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [str(claude.binary), prompt, *CLI_OPTIONS, "--permission-mode", "default"],
        cwd=claude.project, env=environment, stdin=its, stdout=its, stderr=its, start_new_session=True,
    )  # fmt: skip
    os.close(its)
    try:
        until = time.monotonic() + 120
        answered = 0
        while answered < 6:
            assert time.monotonic() < until, "the session stands still"
            if select.select([ours], [], [], 0.2)[0]:
                with suppress(OSError):
                    os.read(ours, 65536)
            answered = decisions.read_bytes().count(b"\n") if decisions.exists() else 0
        time.sleep(1)  # the last message is on its way into the session file
    finally:
        process.terminate()
        process.wait(30)
        os.close(ours)


def test_without_a_student_one_line_says_what_to_do(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["demo", "--live", "--folder", str(tmp_path)])
    assert done.exit_code == 1
    assert "no exported student of the demo; run `make demo` first" in str(done.exception)
    assert not (tmp_path / "live").exists()
