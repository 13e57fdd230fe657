"""Which students there are, in which run folders, and how one version follows from the one before.

    untrained → llama-claude-bc-v1 (SFT) → llama-claude-ppo-v1 → llama-claude-ppo-v2 → …

Version N of the PPO student starts from version N-1's adapter (version 1 from SFT's) and practises what mining found
with version N-1's student; that file lies in version N's run folder, so the folder says all about how it came about.
A version's folder is named by the hash of dataset, config and the folder before it: nothing else has to be remembered
to go on after an interruption, and another config starts versions of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.config import Config
from trainer.errors import TrainerError
from trainer.run_folder import RunFolder, content_hash, write_atomic

Kind = Literal["untrained", "sft", "ppo"]
KINDS: tuple[Kind, ...] = ("untrained", "sft", "ppo")
NO_OTHER_PRACTICE = {"iterations", "generation_server", "episodes_at_once", "gradient_checkpointing"}
"""Settings of PPO that may change between two updates of a run: they are not part of its name."""


@dataclass(frozen=True)
class Student:
    """One student; `version` counts the rounds of PPO, from 1."""

    kind: Kind
    version: int = 1

    @property
    def name(self) -> str:
        """As the registry and the GGUF files call it."""
        return {"untrained": "untrained", "sft": "llama-claude-bc-v1"}.get(
            self.kind, f"llama-claude-ppo-v{self.version}"
        )

    @property
    def slug(self) -> str:
        """As folders and tables call it: untrained, sft, ppo-v2."""
        return f"ppo-v{self.version}" if self.kind == "ppo" else self.kind

    @property
    def before(self) -> Student:
        """The student that this one was made from."""
        if self.kind == "ppo":
            return Student("ppo", self.version - 1) if self.version > 1 else Student("sft")
        return Student("untrained")


UNTRAINED, SFT = Student("untrained"), Student("sft")


class Versions:
    """The run folders of the students of one dataset and config."""

    def __init__(self, runs: Path, dataset: Path, config: Config) -> None:
        self.runs = runs
        self.config = config
        self._dataset = dataset

    def folder(self, student: Student) -> Path:
        """Where a student's run is, whether it was begun or not.

        Raises:
            TrainerError: the untrained student has no run.
        """
        config = self.config
        if student.kind == "untrained":
            raise TrainerError("the untrained student was not trained; it has no run folder")
        if student.kind == "sft":
            return self.runs / f"sft-{content_hash(self._dataset, config.student, config.sft)}"
        practice = config.ppo.model_dump(mode="json", exclude=NO_OTHER_PRACTICE)
        parts: list[Any] = [config.student, config.sft, practice, config.reward]
        if student.version > 1:
            parts += [self.folder(student.before).name, config.mining]
        return self.runs / f"{student.slug}-{content_hash(self._dataset, *parts)}"

    def run(self, student: Student) -> RunFolder:
        """The run folder, made where there is none."""
        folder = self.folder(student)
        return RunFolder(folder.parent, folder.name, self.config)

    def finished(self, student: Student) -> bool:
        """Whether its training has ended."""
        return student.kind == "untrained" or (self.folder(student) / "result.json").exists()

    def adapter(self, student: Student) -> Path | None:
        """Folder of a student's adapter; None for the untrained one.

        Raises:
            TrainerError: it was not trained yet. Who only wants to judge a student does not train one by accident.
        """
        if student.kind == "untrained":
            return None
        if not self.finished(student):
            again = f"{student.kind} --version {student.version}" if student.version > 1 else student.kind
            raise TrainerError(
                f"{self.folder(student)}: no finished {student.kind} run on this config and dataset; run "
                f"`claude-trainer {again}` with the same --config and --data first (the demo's are in its folder's "
                "config.toml)"
            )
        return self.run(student).output("adapter")

    def latest(self) -> int:
        """The newest finished version of the PPO student; 0 where there is none."""
        version = 0
        while self.finished(Student("ppo", version + 1)):
            version += 1
        return version

    def find(self, kind: str, version: int | None = None) -> Student:
        """A student by its kind; of `ppo` the newest finished version where none is asked for.

        Raises:
            TrainerError: a version of a student that has none.
        """
        if kind not in KINDS:
            raise TrainerError(f"{kind!r} is no student; there are {', '.join(KINDS)}")
        if kind != "ppo":
            if version is not None:
                raise TrainerError(f"--version is for the ppo student; {kind} has only one")
            return Student(kind)
        return Student("ppo", version or max(1, self.latest()))

    def practised(self, student: Student) -> Path:
        """The prompts that a version practises more often, as mining found them with the student before it."""
        return self.folder(student) / f"mined-v{student.version - 1}.jsonl"

    def next_for(self, mined: Path | None) -> Student:
        """Which version `claude-trainer ppo` means without --version.

        A version that was begun is gone on with. A mined file asks for the version that practises it, which is a new
        one unless the newest does already; without a file it is the newest, or the first.
        """
        latest = self.latest()
        begun = Student("ppo", latest + 1)
        if mined is None:
            return begun if latest == 0 or (self.folder(begun) / "checkpoints").exists() else Student("ppo", latest)
        if latest and _same(self.practised(Student("ppo", latest)), mined):
            return Student("ppo", latest)
        return begun

    def practise(self, student: Student, mined: Path) -> None:
        """Puts a mined file into a version's run folder, as what it practises.

        Raises:
            TrainerError: the file is not there, or the version was begun with another one.
        """
        place = self.practised(student)
        if not mined.is_file():
            raise TrainerError(f"{mined}: not there; run `claude-trainer mine` first")
        if _same(place, mined):
            return
        if place.exists() or (place.parent / "checkpoints").exists():
            raise TrainerError(
                f"{place.parent}: {student.name} was begun with other prompts than those of {mined}; go on without "
                "--mined, make the next version, or delete that folder"
            )
        self.run(student)
        write_atomic(place, mined.read_bytes())


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.read_bytes() == other.read_bytes()
