"""The demo world, whole: episodes with a workspace, a prompt and the scripted teacher's way of answering it."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from trainer.demo import database_tasks, file_tasks
from trainer.demo.live_environment import LiveEnvironment, live_environment
from trainer.demo.scripted_teacher import (
    HEADLINE,
    Call,
    DemoEpisode,
    Desk,
    EntityKey,
    Step,
    Task,
    facts,
    is_held_out,
)
from trainer.demo.session_recorder import record_sessions, session_id_of
from trainer.demo.tools import TOOLS
from trainer.demo.workspace import WorkspaceSpec, draw_workspace
from trainer.errors import TrainerError

__all__ = [
    "FAMILIES",
    "HEADLINE",
    "TOOLS",
    "Call",
    "DemoEpisode",
    "EntityKey",
    "LiveEnvironment",
    "Step",
    "WorkspaceSpec",
    "check_answer",
    "check_workspace",
    "headline_episode",
    "is_held_out",
    "live_environment",
    "make_episode",
    "make_episodes",
    "record_sessions",
    "session_id_of",
]

FAMILIES: dict[str, Callable[[random.Random, WorkspaceSpec], Task]] = {
    "diff": database_tasks.diff,
    "count": database_tasks.count,
    "const": file_tasks.const,
    "conf": file_tasks.conf,
    "chain": database_tasks.chain,
    "readonly": file_tasks.readonly,
}
_MIX = ("diff", "conf", "count", "chain", "const", "diff", "readonly", "conf")
"""Families in the order in which `make_episodes` deals them; the two hardest come twice."""


def _work(seed: int, held_out: bool, family: str, workspace: WorkspaceSpec, task: Task) -> DemoEpisode:
    """Lets the teacher do the task in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        folder = workspace.materialise(Path(name))
        desk = Desk(folder, task.constraint)
        answer = task.solve(desk)
        changed = {path: (folder / path).read_text("utf-8") for path in workspace.files_changed(folder)}
    return DemoEpisode(
        seed=seed,
        held_out=held_out,
        family=family,
        key=task.key,
        workspace=workspace,
        prompt=task.prompt,
        plan=tuple(desk.steps),
        answer=answer,
        changed_files=changed,
        constraint=task.constraint,
    )


def make_episode(seed: int, held_out: bool, family: str | None = None) -> DemoEpisode:
    """Makes the episode of a seed: the same arguments give the same episode.

    Args:
        held_out: side of the split; the entities of one side never appear together on the other.
        family: one of FAMILIES; drawn where None.

    Raises:
        TrainerError: the family is not known.
    """
    if family is not None and family not in FAMILIES:
        raise TrainerError(f"unknown family {family!r} of demo tasks; known: {', '.join(FAMILIES)}")
    rng = random.Random(f"{seed}/{held_out}/{family}")
    chosen = family or rng.choice(_MIX)
    while True:
        workspace = draw_workspace(rng)
        task = FAMILIES[chosen](rng, workspace)
        if is_held_out(task.key) == held_out:
            return _work(seed, held_out, chosen, workspace, task)


def make_episodes(n: int, held_out: bool, seed: int) -> list[DemoEpisode]:
    """Makes `n` episodes, every eight of which hold each family once and `diff` and `conf` twice."""
    families = itertools.islice(itertools.cycle(_MIX), n)
    return [make_episode(1_000_000 * seed + index, held_out, family) for index, family in enumerate(families)]


def headline_episode(seed: int) -> DemoEpisode:
    """The episode of the headline question, in a workspace of its own that holds transformers 1 and 2. Held out."""
    rng = random.Random(f"{seed}/headline")
    workspace = draw_workspace(rng, ids=(1, 2))
    return _work(seed, True, "diff", workspace, database_tasks.diff(rng, workspace, headline=True))


def check_answer(episode: DemoEpisode, text: str) -> bool:
    """Whether an answer is right: the facts of the teacher's answer, all of them, in order, and no other ones."""
    return facts(text) == facts(episode.answer)


def check_workspace(episode: DemoEpisode, folder: Path) -> bool:
    """Whether a workspace ended as the teacher left it: the same files changed, to the same text, and no other."""
    if episode.workspace.files_changed(folder) != sorted(episode.changed_files):
        return False
    return all((folder / path).read_text("utf-8") == text for path, text in episode.changed_files.items())
