"""Plays the teacher's sessions once more as Claude Code would: real tools, real session files, the real hook.

    <projects>/<slug of the workspace's path>/<session>.jsonl     written by `session_file`
    <data>/events/<session>.jsonl                                 written by hooks/capture_hook.sh, one process an event

Which call fires which hook follows what was measured with Claude Code 2.1.330: a success fires PreToolUse and
PostToolUse, a failure PreToolUse and PostToolUseFailure, a call that is refused before it runs neither; all of them
stand in the message's PostToolBatch.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import claude_capture
from trainer.demo.scripted_teacher import Call, DemoEpisode
from trainer.demo.session_file import SessionFile, uuid_from
from trainer.demo.tools import ToolResult, WorkspaceTools
from trainer.errors import TrainerError
from trainer.student.workspace_paths import to_absolute, to_relative

WORKERS = 2
HOOK_TIMEOUT = 30.0
"""Seconds after which a hook that does not return is an error."""
_FIRST_SESSION = datetime(2026, 1, 5, 8, tzinfo=UTC)
_BETWEEN_SESSIONS = timedelta(minutes=7)


def default_hook() -> Path:
    """The hook executable: of the checkout, else of the installed package.

    Raises:
        TrainerError: neither exists.
    """
    package = Path(claude_capture.__file__).parent
    candidates = [package.parent / "hooks" / "capture_hook.sh", package / "_hooks" / "capture_hook.sh"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise TrainerError(f"hook executable not found; looked at {' and '.join(map(str, candidates))}; reinstall")


def project_slug(folder: str) -> str:
    """The name that Claude Code gives a project's folder of sessions."""
    return re.sub(r"[^A-Za-z0-9]", "-", folder)


def _generator(episode: DemoEpisode) -> random.Random:
    return random.Random(f"session/{episode.seed}/{episode.held_out}/{episode.family}/{episode.prompt}")


def session_id_of(episode: DemoEpisode) -> str:
    """The id of the session in which an episode is recorded: how a trace finds back to its workspace."""
    return uuid_from(_generator(episode))


class _Session:
    """One session: what is common to all its hook payloads, and the way to fire them."""

    def __init__(self, file: SessionFile, hook: Path, data_root: Path) -> None:
        self.file = file
        self._hook = hook
        self._common = {"session_id": file.session_id, "transcript_path": str(file.path), "cwd": file.cwd}
        self._turn = {"prompt_id": file.prompt_id, "permission_mode": "bypassPermissions"}
        self._effort = {"effort": {"level": "medium"}}
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.environ.get("HOME", "/"),
            "CLAUDECODE": "1",
            "CLAUDE_CODE_ENTRYPOINT": "sdk-cli",
            "CLAUDE_CODE_SESSION_ID": file.session_id,
            "CLAUDE_PROJECT_DIR": file.cwd,
            "CLAUDE_CAPTURE_DATA": str(data_root),
        }

    def fire(self, event: str, *, turn: bool = True, effort: bool = True, **fields: Any) -> None:
        """Runs the hook with one payload on stdin and waits for it, as Claude Code does."""
        shared = self._common | (self._turn if turn else {}) | (self._effort if effort else {})
        payload = json.dumps({**shared, "hook_event_name": event, **fields}, ensure_ascii=False, separators=(",", ":"))
        finished = subprocess.run(
            [str(self._hook)],
            input=payload.encode(),
            env=self._environment,
            cwd=self.file.cwd,
            capture_output=True,
            timeout=HOOK_TIMEOUT,
            check=False,
        )
        if finished.returncode != 0 or finished.stdout:
            said = (finished.stderr or finished.stdout).decode("utf-8", "replace").strip()[:200]
            raise TrainerError(f"hook {self._hook} at {event}: exit {finished.returncode}, {said or 'no message'}")

    def call(self, tools: WorkspaceTools, identity: str, call: Call) -> ToolResult:
        """Runs one call between its hooks."""
        named: dict[str, Any] = {"tool_name": call.name, "tool_input": call.arguments, "tool_use_id": identity}
        result = tools.run(call.name, call.arguments)
        took = self.file.advance(2, 90)
        if result.validation:
            return result
        self.fire("PreToolUse", **named)
        if result.is_error:
            self.fire("PostToolUseFailure", **named, error=result.text, is_interrupt=False, duration_ms=took)
        else:
            self.fire("PostToolUse", **named, tool_response=result.structured, duration_ms=took)
        return result


def record_session(
    episode: DemoEpisode, folder: Path, data_root: Path, projects_folder: Path, hook: Path, started: datetime
) -> Path:
    """Plays one session in a workspace made at `folder` (absolute, removed afterwards) and returns its session file.

    Raises:
        TrainerError: the tools gave another output than in the plan, or the hook failed.
    """
    if folder.exists():
        shutil.rmtree(folder)
    cwd = str(folder)
    try:
        tools = WorkspaceTools(episode.workspace.materialise(folder))
        sessions = projects_folder / project_slug(cwd)
        sessions.mkdir(parents=True, exist_ok=True)
        file = SessionFile(sessions, cwd, _generator(episode), started)
        file.path.unlink(missing_ok=True)
        file.path.touch(mode=0o600)
        session = _Session(file, hook, data_root)
        session.fire("SessionStart", turn=False, effort=False, source="startup")
        session.fire("UserPromptSubmit", effort=False, prompt=episode.prompt)
        file.user_prompt(episode.prompt)
        for step in episode.plan:
            calls = [(file.draw_id("toolu_"), Call(call.name, to_absolute(call.arguments, cwd))) for call in step.calls]
            lines = file.assistant(step.text, calls)
            file.flush()
            results = [session.call(tools, identity, call) for identity, call in calls]
            for (identity, call), line, result in zip(calls, lines, results, strict=True):
                file.tool_result(identity, line, call.name, result)
            outputs = tuple(to_relative(result.text, cwd) for result in results)
            if outputs != step.outputs:
                raise TrainerError(
                    f"the replay of {episode.prompt!r} gave {outputs!r} instead of {step.outputs!r}; "
                    "is the workspace's folder used by another program?"
                )
            batch = [
                {"tool_name": c.name, "tool_input": c.arguments, "tool_use_id": i, "tool_response": r.text}
                for (i, c), r in zip(calls, results, strict=True)
            ]
            session.fire("PostToolBatch", tool_calls=batch)
            file.flush()
        file.assistant(episode.answer)
        finished: dict[str, Any] = {
            "last_assistant_message": episode.answer,
            "background_tasks": [],
            "session_crons": [],
        }
        session.fire("Stop", stop_hook_active=False, **finished)
        file.end(episode.prompt)
        file.flush()
        session.fire("SessionEnd", effort=False, reason="other")
        return file.path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def record_sessions(
    episodes: Sequence[DemoEpisode],
    data_root: Path,
    projects_folder: Path,
    progress: Callable[[int], None] | None = None,
    *,
    hook: Path | None = None,
) -> None:
    """Records every episode as a session of its own project, two at a time.

    Projects lie beside `projects_folder` under `workspaces/` while their session lasts and are called `train-0001`…
    and `heldout-0001`…, numbered in the order of `episodes`, so that `test_projects = ["heldout-*"]` finds the latter.
    Ids, times and texts depend only on the episodes and the folders; the hook stamps its events with the real time.

    Args:
        data_root: where the hook writes, under `events/`.
        projects_folder: as Claude Code's `<config>/projects`.
        progress: called with 1 for each session that is done.
        hook: executable that is given each event; None for this project's own.

    Raises:
        TrainerError: see `record_session`; sessions that were recorded before stay.
    """
    executable = hook or default_hook()
    workspaces = projects_folder.resolve().parent / "workspaces"
    counts = {False: 0, True: 0}
    tasks: list[tuple[DemoEpisode, Path, datetime]] = []
    for index, episode in enumerate(episodes):
        counts[episode.held_out] += 1
        name = f"{'heldout' if episode.held_out else 'train'}-{counts[episode.held_out]:04d}"
        tasks.append((episode, workspaces / name, _FIRST_SESSION + index * _BETWEEN_SESSIONS))

    def record(task: tuple[DemoEpisode, Path, datetime]) -> None:
        episode, folder, started = task
        record_session(episode, folder, data_root.resolve(), projects_folder.resolve(), executable, started)
        if progress is not None:
            progress(1)

    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for _ in pool.map(record, tasks):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if workspaces.is_dir() and not any(workspaces.iterdir()):
        workspaces.rmdir()
