"""`make demo-live`: the student of `make demo` inside the real Claude Code, through the gateway, and captured again.

    Claude Code ──▶ gateway ──▶ `claude-trainer serve` (the exported student)
        │                └────▶ the scripted teacher
        └─ our plugin's hooks ──▶ trace, which names who answered ──▶ `dataset build` leaves it out

First the headline question with every session the student's, then 5, 20, 50 and 80 % of many short sessions. It all
stays on loopback. Claude Code has a home of its own; of the shell it may use sqlite3, grep and what it holds harmless
by itself; everything else is refused, as nobody is there to be asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from claude_capture.claude_trace_schema import Trace
from claude_capture.ingest import import_sessions
from claude_capture.trace_storage import TraceStore
from trainer.config import Config
from trainer.dataset.behavioral_cloning_builder import build_dataset
from trainer.demo.demo import show_turn
from trainer.demo.live_claude_code import VERSION, ClaudeCode, find_or_install, is_installed
from trainer.demo.live_services import exported_student, plugin_folder, programs, service, write_rollout_config
from trainer.demo.live_split import (
    CLI_OPTIONS,
    WEIGHTS,
    Split,
    Workplace,
    decisions_of,
    judge_split,
    run_split,
    split_table,
)
from trainer.demo.live_teacher import Teacher, serve_teacher
from trainer.demo.scripted_teacher import DemoEpisode
from trainer.demo.world import HEADLINE, check_answer, headline_episode, make_episode
from trainer.errors import TrainerError
from trainer.pipeline import write_summary
from trainer.records import Message
from trainer.rollout.gateway import DECISIONS
from trainer.student.workspace_paths import to_relative
from trainer.terminal import Stages

REASON = "demo of the closed loop"
"""Why its stages are entered and served, whatever gate and blind test say."""
SERVE = ("rollout", "serve", "--port", "0", "--force", REASON)
QUESTIONS = 4
"""Different questions of the short sessions."""
_FAMILIES = ("count", "chain")  # they change no file, so that sessions can share a workspace
_TRACE_SECONDS = 90.0


@dataclass
class _Loop:
    """What all parts of the demo share."""

    config: Config
    folder: Path
    """Of this run: configs, states, logs, data."""
    work: Path
    """Workspaces and homes; gone at the end."""
    binary: Path
    gguf: Path
    student: str
    stages: Stages

    @property
    def data(self) -> Path:
        """Data root of the captured sessions."""
        return self.folder / "data"

    def claude(self, name: str, episode: DemoEpisode, more: dict[str, str]) -> ClaudeCode:
        """Claude Code in a fresh workspace of an episode."""
        claude = ClaudeCode(self.binary, self.work / name, more=more)
        episode.workspace.materialise(claude.project)
        return claude


def _chat(message: dict[str, Any], root: str) -> list[Message]:
    """A message of Claude Code as a turn of a chat, paths relative to the workspace."""
    blocks = to_relative([block for block in message["content"] if isinstance(block, dict)], root)
    chat: list[Message] = []
    for block in blocks:
        if block["type"] == "text":
            chat.append({"role": "assistant", "content": block["text"]})
        elif block["type"] == "tool_use":
            function = {"name": block["name"], "arguments": block["input"]}
            chat.append({"role": "assistant", "content": "", "tool_calls": [{"function": function}]})
        elif block["type"] == "tool_result":
            content = block["content"]
            texts = [content] if isinstance(content, str) else [part.get("text", "") for part in content or []]
            chat.append({"role": "tool", "content": "\n".join(texts)})
    return chat


def _ask_headline(loop: _Loop, teacher: str, local: str, path: str) -> dict[str, Any]:
    """The headline question at 100 %, printed as it happens; waits until the plugin has captured the session."""
    episode, console = headline_episode(loop.config.demo.seed), loop.stages.console
    config, state = loop.folder / "all-local.toml", loop.folder / "all-local"
    write_rollout_config(config, [100], loop.gguf, teacher=teacher, local=local)
    claude = loop.claude("headline", episode, {"PATH": path, "CLAUDE_CAPTURE_DATA": str(loop.data)})
    session, answer, root = "", "", str(claude.project)
    arguments = [*SERVE, "--config", str(config), "--state", str(state)]
    with service(arguments, loop.folder / "all-local.log") as url:
        claude.base_url = url
        console.print(f"\n[bold cyan]❯[/] [bold]{escape(episode.prompt)}[/]", highlight=False)
        for message in claude.messages(episode.prompt, "--plugin-dir", str(plugin_folder()), *CLI_OPTIONS):
            if message["type"] in ("assistant", "user"):
                show_turn(console, _chat(message["message"], root))
            elif message["type"] == "result":
                session, answer = message["session_id"], str(message.get("result") or "")
    right = check_answer(episode, answer)
    lines = decisions_of(state / DECISIONS).get(session, [])
    by_student = sum(line["answered_by"] == "student" for line in lines)
    fallbacks = [line["reason"] for line in lines if line["answered_by"] != "student"]
    rescued = f", the teacher {len(fallbacks)} ({', '.join(sorted(set(fallbacks)))})" if fallbacks else ""
    console.print(
        f"  [dim]Claude Code {VERSION} asked {len(lines)} times; {loop.student} answered {by_student}{rescued};[/] "
        f"the answer is {'right' if right else 'wrong'}\n"
    )
    with loop.stages.stage("captured") as stage:
        trace = _captured(loop.data, session)
        seen = {call.seen_by for call in trace.tool_calls}
        stage.came_out = (
            f"trace {trace.trace_id[:8]}: teacher {trace.teacher.model}, {len(trace.tool_calls)} calls, seen by "
            f"{'hooks and session file' if seen == {'both'} else ', '.join(sorted(seen))}"
        )
    shown = os.path.relpath(loop.data)
    console.print(f"[dim]claude-capture traces show {trace.trace_id[:8]} --data {shown}[/]\n", highlight=False)
    return {
        "question": HEADLINE,
        "answer": answer,
        "right": right,
        "session": session,
        "trace": trace.trace_id,
        "teacher": trace.teacher.model,
        "student": trace.teacher.student,
        "calls": [call.tool for call in trace.tool_calls],
        "requests": len(lines),
        "by_student": by_student,
        "fallbacks": fallbacks,
    }


def _captured(data: Path, session: str) -> Trace:
    """The trace that the plugin's own import makes of a session.

    Raises:
        TrainerError: it did not come.
    """
    until = time.monotonic() + _TRACE_SECONDS
    while time.monotonic() < until:
        store = TraceStore.of(data)
        traces = store.load() if store.path.exists() else []
        for trace in traces:
            if trace.session_id == session and trace.status == "complete" and trace.steps:
                return trace
        time.sleep(0.5)
    raise TrainerError(f"{data}: the plugin has not captured session {session} within {_TRACE_SECONDS:g} s")


def _split(loop: _Loop, teacher: Teacher, teacher_url: str, local: str, path: str, sessions: int, real: int) -> Split:
    """The short sessions at 5, 20, 50 and 80 %; their traces are imported at the end."""
    config, state = loop.folder / "stages.toml", loop.folder / "stages"
    write_rollout_config(config, WEIGHTS, loop.gguf, teacher=teacher_url, local=local)
    places = [
        Workplace(episode, loop.claude(f"question-{n}", episode, {"PATH": path}))
        for n, episode in enumerate(questions(QUESTIONS, loop.config.demo.seed))
    ]
    first = places[0]
    teacher.recording = True  # one session of the real CLI, straight to the teacher: the pattern of the others
    first.claude.base_url = teacher_url
    for _ in first.claude.messages(first.episode.prompt, *CLI_OPTIONS):
        pass
    teacher.recording = False
    arguments = ["--config", str(config), "--state", str(state)]

    def widen() -> None:
        command = [sys.executable, "-m", "trainer.cli", "rollout", "advance", "--force", REASON, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise TrainerError(f"`claude-trainer rollout advance` failed: {done.stderr.strip()[-300:]}")

    with loop.stages.stage("split") as stage:
        with service([*SERVE, *arguments], loop.folder / "stages.log") as url:
            for place in places:
                place.claude.base_url = url
            everything = run_split(
                url,
                widen,
                places,
                teacher.recorded[0],
                asked_then=first.episode.prompt,
                sessions=sessions,
                real=real,
                seed=loop.config.demo.seed,
                progress=stage.progress,
            )
        split = judge_split(everything, state / DECISIONS)
        requests = sum(row.requests for row in split.rows)
        stage.came_out = f"{sum(row.sessions for row in split.rows)} sessions, {requests} requests"
    kept = (place.claude.config / "projects" for place in places)
    import_sessions([folder for folder in kept if folder.is_dir()], loop.data)
    return split


def questions(n: int, seed: int) -> list[DemoEpisode]:
    """Held-out episodes that change no file, each with a prompt of its own."""
    found: dict[str, DemoEpisode] = {}
    number = 0
    while len(found) < n:
        episode = make_episode(9_000_000 + 1000 * seed + number, True, _FAMILIES[number % len(_FAMILIES)])
        found.setdefault(episode.prompt, episode)
        number += 1
    return list(found.values())


def _dataset(loop: _Loop) -> dict[str, Any]:
    """What `dataset build` makes of all captured sessions."""
    with loop.stages.stage("dataset build") as stage:
        report = build_dataset(TraceStore.of(loop.data).path, loop.config, loop.data / "datasets" / "bc_dataset.jsonl")
        others = dict(report.left_out)
        ours = others.pop("answered_by_student", 0)
        rest = "".join(f", {count} {reason}" for reason, count in others.items())
        stage.came_out = (
            f"{report.traces} traces: {report.used} of the teacher's kept, {ours} of the student's left out{rest}"
        )
    return {"traces": report.traces, "used": report.used, "left_out": report.left_out}


def _tell(loop: _Loop, split: Split) -> None:
    """The table of stages and what it means."""
    console = loop.stages.console
    console.print(split_table(split))
    rows = split.rows
    total = {name: sum(getattr(row, name) for row in rows) for name in ("sessions", "real", "widened", "changed")}
    fallbacks = sum((row.fallbacks for row in rows), start=Counter())
    told = ", ".join(f"{count} {reason}" for reason, count in fallbacks.most_common())
    right = ", ".join(f"{who} {split.right[who]} of {split.answers[who]}" for who in sorted(split.answers))
    console.print(
        f"  {total['changed']} of {total['sessions']} sessions changed sides; {total['widened']} were under way while "
        f"their stage widened\n  {total['real']} were the real Claude Code, resumed after that; the others sent over "
        f"HTTP what it sends\n  right answers, {QUESTIONS} questions: {right}; teacher stood in: {told or 'never'}\n",
        highlight=False,
    )


def run_live(demo: Path, stages: Stages, *, sessions: int = 200, real: int = 5) -> dict[str, Any]:
    """Runs the closed loop with the student that `make demo` left in `demo`; returns what it writes to summary.json.

    Args:
        sessions: short sessions in each of the stages.
        real: how many of them are the real Claude Code.

    Raises:
        TrainerError: there is no student, no Claude Code, or a part of the loop failed.
    """
    config, student, gguf = exported_student(demo)
    plugin_folder()
    began = time.monotonic()
    folder = demo.resolve() / "live"
    with stages.stage("claude") as stage:
        if not is_installed():
            stages.console.print(f"installing Claude Code {VERSION} from npm, once (380 MB)", highlight=False)
        binary = find_or_install()
        stage.came_out = f"Claude Code {VERSION}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-live-"))).resolve()
        loop = _Loop(config, folder, work, binary, gguf.resolve(), student, stages)
        teacher = Teacher([headline_episode(config.demo.seed), *questions(QUESTIONS, config.demo.seed)])
        teacher_url = stack.enter_context(serve_teacher(teacher))
        path = programs(work / "programs")
        with stages.stage("serve") as stage:
            arguments = ["serve", str(loop.gguf), "--port", "0", "--threads", "1"]
            local = stack.enter_context(service(arguments, folder / "serve.log"))
            stage.came_out = f"{student} at {local}"
        headline = _ask_headline(loop, teacher_url, local, path)
        split = _split(loop, teacher, teacher_url, local, path, sessions, real)
        _tell(loop, split)
        dataset = _dataset(loop)
    summary = {
        "claude_code": VERSION,
        "student": student,
        "headline": headline,
        "stages": [
            {
                "weight": row.weight,
                "sessions": row.sessions,
                "real": row.real,
                "student": row.student,
                "share": row.interval.mean,
                "ci_low": row.interval.low,
                "ci_high": row.interval.high,
                "holds": row.holds,
                "widened": row.widened,
                "changed_sides": row.changed,
                "requests": row.requests,
                "fallbacks": dict(row.fallbacks),
            }
            for row in split.rows
        ],
        "contradictions": split.contradictions,
        "right": split.right,
        "answers": split.answers,
        "dataset": dataset,
        "seconds": round(time.monotonic() - began, 1),
    }
    write_summary(folder / "summary.json", summary)
    return summary
