"""What the stages have left on disk, and where the next one puts its part: the road without its stages.

Nothing is made here: paths and hashes are arithmetic on the config, records are read once and kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from claude_capture.claude_trace_schema import Trace
from claude_capture.trace_storage import TraceStore
from trainer.config import Config
from trainer.records import BCSample
from trainer.run_folder import RunFolder, content_hash
from trainer.student_versions import Student, Versions

if TYPE_CHECKING:
    from trainer.student.episodes import Environment

SCORES = "scores.json"
"""Held-out scores of a student, in its test's run folder."""
LiveEnvironments = Callable[[Trace], "Callable[[], Environment] | None"]
"""Gives what makes a fresh workspace with real tools for a trace's prompt, or None: then the trace is replayed."""


class RoadFiles:
    """Dataset, traces and run folders of one config and one data root.

    Args:
        live: what opens real workspaces for held-out prompts; scores in those do not compare with replayed ones.
    """

    def __init__(self, config: Config, data: Path, live: LiveEnvironments | None = None) -> None:
        self.config = config
        self.data = data
        self.live = live
        self.runs = Path(config.runs)
        self.models = Path(config.models)
        self.dataset_file = data / "datasets" / "bc_dataset.jsonl"
        self.forget()

    def forget(self) -> None:
        """Reads everything again when it is next asked for: the dataset was built anew."""
        self._versions: Versions | None = None
        self._samples: list[BCSample] | None = None
        self._traces: list[Trace] | None = None

    @property
    def traces(self) -> list[Trace]:
        """All recorded traces, the newest version of each."""
        if self._traces is None:
            self._traces = TraceStore.of(self.data).load()
        return self._traces

    @property
    def samples(self) -> list[BCSample]:
        """The dataset.

        Raises:
            TrainerError: there is none.
        """
        if self._samples is None:
            from trainer.dataset import read_dataset

            self._samples = read_dataset(self.dataset_file)
        return self._samples

    def split(self, name: str) -> list[BCSample]:
        """The samples of one split."""
        return [sample for sample in self.samples if sample.split == name]

    @property
    def versions(self) -> Versions:
        """The students on this dataset and config, and where their runs are."""
        if self._versions is None:
            _ = self.samples
            self._versions = Versions(self.runs, self.dataset_file, self.config)
        return self._versions

    def test_run(self, student: Student) -> RunFolder:
        """Run folder of a student's held-out episodes."""
        parts = ["untrained" if student.kind == "untrained" else self.versions.folder(student).name, self.measured]
        name = f"test-{student.slug}-{content_hash(self.dataset_file, self.config.student, *parts)}"
        return RunFolder(self.runs, name, self.config)

    @property
    def measured(self) -> str:
        """Hash of what a held-out score depends on beside student and prompt: scores of another one do not compare."""
        ppo, live = self.config.ppo, "replayed" if self.live is None else "live"
        limits = [ppo.max_turns, ppo.max_new_tokens, ppo.max_patches, ppo.patch_penalty]
        limits += filter(None, [ppo.window])  # without one, scores of before there was such a limit still compare
        return content_hash(self.config.reward, self.config.dataset.system_prompt, limits, live)

    def baselines_folder(self, prompts: int | None = None, samples: int = 4) -> Path:
        """Where version 1's recipe is compared with its baselines; see trainer/baselines."""
        first = self.versions.folder(Student("ppo", 1)).name
        return self.runs / f"baselines-{content_hash(first, self.measured, prompts, samples)}"
