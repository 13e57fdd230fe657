"""A workspace that answers a student's calls for real: the counterpart of the replay environment of PPO."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

from trainer.demo.scripted_teacher import DemoEpisode
from trainer.demo.tools import TOOLS, WorkspaceTools
from trainer.demo.workspace import WorkspaceSpec
from trainer.ppo.tool_errors import unreadable_call
from trainer.records import Message
from trainer.student.chat_format import ParsedTurn
from trainer.student.workspace_paths import to_relative


class LiveEnvironment:
    """Implements `Environment` with real tools in a folder of its own, which `reset` makes anew.

    The folder lives until `close`, the next `reset`, or the end of the object, so that it can be looked at after
    the episode. Results name paths relative to it, whichever way the student wrote them.
    """

    def __init__(self, workspace: WorkspaceSpec, prompt: str, system_prompt: str) -> None:
        self.workspace = workspace
        self.tools = TOOLS
        self._opening: list[Message] = [
            {"role": "system", "content": system_prompt},
            {"role": "user", "content": prompt},
        ]
        self._folder: Path | None = None
        self._remove: weakref.finalize[[str], LiveEnvironment] | None = None

    @property
    def folder(self) -> Path:
        """Where the episode takes place; made on first use."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="demo-live-")).resolve()
            self._remove = weakref.finalize(self, shutil.rmtree, str(self._folder), ignore_errors=True)
            self.workspace.materialise(self._folder)
        return self._folder

    def reset(self) -> list[Message]:
        """Throws away what was changed and returns the system and user messages."""
        self.close()
        return [dict(message) for message in self._opening]

    def step(self, turn: ParsedTurn) -> list[Message] | None:
        """Runs the calls of a turn in order: one tool message each, then one for each call that cannot be read.

        None where the turn holds no call at all: the student has answered.
        """
        calls = turn.message.get("tool_calls") or []
        if not calls and not turn.malformed:
            return None
        tools = WorkspaceTools(self.folder)
        results: list[Message] = []
        for call in calls:
            result = tools.run(call["function"]["name"], call["function"]["arguments"])
            content = to_relative(result.text, str(self.folder))
            results.append({"role": "tool", "tool_call_id": call["id"], "content": content})
        results += [{"role": "tool", "content": unreadable_call(text)} for text in turn.malformed]
        return results

    def files_changed(self) -> list[str]:
        """Relative paths that the student changed, added or removed since `reset`, sorted."""
        return self.workspace.files_changed(self.folder)

    def close(self) -> None:
        """Removes the folder."""
        if self._remove is not None:
            self._remove()
        self._folder, self._remove = None, None


def live_environment(episode: DemoEpisode, system_prompt: str) -> LiveEnvironment:
    """The environment in which a student meets an episode's prompt."""
    return LiveEnvironment(episode.workspace, episode.prompt, system_prompt)
