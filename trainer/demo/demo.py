"""`make demo`: a recorded world, the whole road on it, and the exported model at work on the headline question."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from claude_capture.claude_trace_schema import Trace
from claude_capture.ingest import import_sessions
from claude_capture.trace_storage import TraceStore
from trainer.config import Config
from trainer.demo.live_environment import LiveEnvironment, live_environment
from trainer.demo.scripted_teacher import DemoEpisode
from trainer.demo.session_recorder import record_sessions, session_id_of
from trainer.demo.world import HEADLINE, check_answer, headline_episode, make_episodes
from trainer.errors import TrainerError
from trainer.pipeline import Road, write_summary
from trainer.records import Message
from trainer.road_files import LiveEnvironments
from trainer.run_folder import config_toml, content_hash, write_atomic
from trainer.terminal import Stages

if TYPE_CHECKING:
    from trainer.student.episodes import Environment


def _record(config: Config, folder: Path, stages: Stages) -> list[DemoEpisode]:
    """Makes the world and records the teacher in it, unless exactly this world is recorded already.

    Returns:
        The held-out episodes.
    """
    demo = config.demo
    with stages.stage("world") as stage:
        training = make_episodes(demo.train_sessions, False, demo.seed)
        held_out = make_episodes(demo.heldout_sessions, True, demo.seed)
        calls = sum(len(episode.calls) for episode in (*training, *held_out))
        stage.went_in = f"seed {demo.seed}"
        stage.came_out = f"{len(training)} + {len(held_out)} held-out episodes, {calls} tool calls"
    mark = folder / "recorded"
    world = content_hash([repr(episode) for episode in (*training, *held_out)])
    with stages.stage("record") as stage:
        if not mark.exists() or mark.read_text("utf-8") != world:
            shutil.rmtree(folder, ignore_errors=True)
            episodes, done = [*training, *held_out], 0

            def progress(count: int) -> None:
                nonlocal done
                done += count
                stage.progress(done, len(episodes), f"{done} sessions")

            record_sessions(episodes, folder / "data", folder / "claude" / "projects", progress)
            mark.write_text(world, "utf-8")
        events = sum(file.read_bytes().count(b"\n") for file in (folder / "data" / "events").glob("*.jsonl"))
        stage.went_in = f"{len(training) + len(held_out)} sessions"
        stage.came_out = f"{events} hook events beside the session files"
    return held_out


def _import(folder: Path, stages: Stages) -> tuple[int, int]:
    """Hook events and session files → traces; returns the numbers of traces and tool calls."""
    with stages.stage("import") as stage:
        report = import_sessions(
            [folder / "claude" / "projects"],
            folder / "data",
            progress=lambda n, total: stage.progress(n, total, f"{n} sessions"),
        )
        traces = TraceStore(folder / "data" / "traces" / "traces.jsonl").load()
        calls = sum(len(trace.tool_calls) for trace in traces)
        stage.went_in = f"{report.files_read + report.files_unchanged} session files"
        stage.came_out = f"{len(traces)} traces, {calls} calls"
    return len(traces), calls


def _live(episodes: list[DemoEpisode], config: Config) -> LiveEnvironments:
    """Gives each held-out trace a fresh workspace with real tools."""
    known = {session_id_of(episode): episode for episode in episodes}

    def live(trace: Trace) -> Callable[[], Environment] | None:
        episode = known.get(trace.session_id)
        return partial(live_environment, episode, config.dataset.system_prompt) if episode is not None else None

    return live


def prepare_world(config: Config, folder: Path, stages: Stages) -> tuple[LiveEnvironments, int, int]:
    """Records the world in `folder` and imports it, unless it is there already.

    Returns:
        what gives held-out traces their live workspaces, the number of traces, the number of tool calls.
    """
    held_out = _record(config, folder, stages)
    traces, calls = _import(folder, stages)
    return _live(held_out, config), traces, calls


def show_turn(console: Console, messages: list[Message]) -> None:
    """Prints one turn of the dialogue: what the model wrote, its calls, what came back."""
    for message in messages:
        if message["role"] == "tool":
            for line in message["content"].splitlines()[:8] or ["(no output)"]:
                console.print(f"    [dim]{escape(line)}[/]", highlight=False)
            continue
        if message.get("content"):
            console.print(f"[green]●[/] {escape(message['content'])}", highlight=False)
        for call in message.get("tool_calls", []):
            arguments = ", ".join(f"{name}: {value}" for name, value in call["function"]["arguments"].items())
            console.print(f"  [bold]{escape(call['function']['name'])}[/]({escape(arguments)})", highlight=False)


def ask_headline(gguf: Path, config: Config, seed: int, console: Console) -> dict[str, Any]:
    """Asks the exported model the headline question in a fresh workspace with real tools and prints the dialogue."""
    from trainer.export.llama_runtime import GgufModel, run_episode

    episode = headline_episode(seed)
    environment = LiveEnvironment(episode.workspace, episode.prompt, config.dataset.system_prompt)
    console.print(f"\n[bold cyan]❯[/] [bold]{escape(episode.prompt)}[/]", highlight=False)
    with GgufModel(gguf, n_ctx=config.dataset.max_tokens * 2) as llama:
        done = run_episode(
            llama,
            environment,
            max_turns=config.ppo.max_turns,
            max_new_tokens=config.ppo.max_new_tokens,
            on_turn=partial(show_turn, console),
        )
    answer = done.messages[-1]["content"] if done.stop == "answer" else ""
    right = check_answer(episode, answer)
    console.print(f"  [dim]{gguf.name} through llama.cpp;[/] the answer is {'right' if right else 'wrong'}\n")
    return {
        "question": HEADLINE,
        "answer": answer,
        "right": right,
        "calls": sum(len(t.message.get("tool_calls", [])) for t in done.parsed),
    }


def run_demo(config: Config, folder: Path, stages: Stages) -> dict[str, Any]:
    """Runs everything in `folder` and returns what it writes to summary.json.

    Raises:
        TrainerError, CaptureError: a stage failed; what earlier stages made stays and is used again.
    """
    live, traces, calls = prepare_world(config, folder / "world", stages)
    data = folder / "world" / "data"
    places = {"data": str(data), "runs": str(folder), "models": str(folder / "models")}
    config = config.model_copy(update=places)
    write_atomic(folder / "config.toml", config_toml(config), 0o644)  # what other commands go on with
    road = Road(config, data, stages, live)
    outcome = road.train()
    gguf = Path(outcome["gguf"]["path"])
    if not gguf.exists():
        raise TrainerError(f"{gguf}: the export left no such file")
    with stages.stage("ask") as stage:
        headline = ask_headline(gguf, config, config.demo.seed, stages.console)
        stage.went_in, stage.came_out = HEADLINE, "right answer" if headline["right"] else "wrong answer"
    summary = {"traces": traces, "tool_calls": calls, **outcome, "headline": headline, "seconds": stages.seconds}
    write_summary(folder / "summary.json", summary)
    return summary
