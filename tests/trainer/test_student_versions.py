"""Versions of the PPO student: which comes next, what it starts from and practises, and with what it is compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from claude_capture.ingest import import_sessions
from trainer.config import Config, PpoConfig, RewardConfig
from trainer.demo.session_recorder import record_sessions
from trainer.demo.world import make_episodes
from trainer.errors import TrainerError
from trainer.export.export_records import DoctorReport, ExportedFile
from trainer.export.registry import Event, ModelEntry, RegistryFile
from trainer.previous_version import is_exported, previous_model
from trainer.run_folder import RunFolder
from trainer.student_versions import SFT, UNTRAINED, Student, Versions

V1, V2, V3 = (Student("ppo", number) for number in (1, 2, 3))


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    dataset = tmp_path / "bc_dataset.jsonl"
    dataset.write_text("{}\n")
    return Versions(tmp_path / "runs", dataset, Config())


def finish(versions: Versions, *students: Student) -> None:
    for student in students:
        run = versions.run(student)
        (run.path / "adapter").mkdir()
        run.finish(adapter="adapter")


def test_names_and_parents() -> None:
    assert [one.name for one in (UNTRAINED, SFT, V1, V2)] == [
        "untrained",
        "llama-claude-bc-v1",
        "llama-claude-ppo-v1",
        "llama-claude-ppo-v2",
    ]
    assert [one.before for one in (SFT, V1, V2, V3)] == [UNTRAINED, SFT, V1, V2]


def test_another_iteration_keeps_the_versions_that_there_are(versions: Versions) -> None:
    more = Versions(versions.runs, versions._dataset, Config(ppo=PpoConfig(iterations=3)))
    assert [more.folder(one) for one in (SFT, V1, V2)] == [versions.folder(one) for one in (SFT, V1, V2)]
    other = Versions(versions.runs, versions._dataset, Config(reward=RewardConfig(depth=0.2)))
    assert other.folder(SFT) == versions.folder(SFT)
    assert other.folder(V1) != versions.folder(V1)
    assert other.folder(V2) != versions.folder(V2), "a version is another one where the one before is"
    assert len({versions.folder(one) for one in (SFT, V1, V2, V3)}) == 4
    assert not versions.runs.exists(), "asking makes no folder"


def test_which_version_a_command_means(versions: Versions, tmp_path: Path) -> None:
    mined, other = tmp_path / "mined.jsonl", tmp_path / "other.jsonl"
    mined.write_text("one\n")
    other.write_text("two\n")
    assert (versions.latest(), versions.next_for(None), versions.find("ppo")) == (0, V1, V1)
    finish(versions, SFT, V1)
    assert (versions.latest(), versions.next_for(None), versions.find("ppo")) == (1, V1, V1)
    assert versions.next_for(mined) == V2
    versions.practise(V2, mined)
    assert versions.practised(V2).read_bytes() == mined.read_bytes()
    (versions.folder(V2) / "checkpoints").mkdir()
    assert versions.next_for(None) == V2, "what was begun is gone on with"
    assert versions.find("ppo") == V1, "only a finished one is judged"
    versions.practise(V2, mined)
    with pytest.raises(TrainerError, match="llama-claude-ppo-v2 was begun with other prompts"):
        versions.practise(V2, other)
    finish(versions, V2)
    assert versions.next_for(mined) == V2, "the same command again trains nothing again"
    assert versions.next_for(other) == V3
    assert versions.find("ppo", 1) == V1
    with pytest.raises(TrainerError, match="run `claude-trainer mine` first"):
        versions.practise(V3, tmp_path / "none.jsonl")
    with pytest.raises(TrainerError, match="sft has only one"):
        versions.find("sft", 2)


def test_adapter_lies_in_the_run_folder_wherever_the_command_is_given(versions: Versions, tmp_path: Path) -> None:
    finish(versions, SFT)
    assert versions.adapter(SFT) == versions.folder(SFT) / "adapter"
    old = RunFolder(tmp_path, "old", Config())
    old.finish(adapter="runs/demo/old/adapter")  # before: from the working directory of then
    assert old.output("adapter") == tmp_path / "old" / "adapter"
    assert versions.adapter(UNTRAINED) is None


def entry(name: str, adapter: Path | None) -> ModelEntry:
    file = ExportedFile(path=f"{name}.gguf", type="f16", bytes=1, sha256="0" * 64, seconds=0)
    doctor = DoctorReport(path=file.path, healthy=True, checks=[])
    return ModelEntry(
        name=name, created_at="", files=[file], doctor=doctor, adapter=None if adapter is None else str(adapter)
    )


def registry(models: Path, current: str | None, history: list[tuple[str, str | None]], **adapters: Path) -> None:
    models.mkdir(exist_ok=True)
    entries = [entry(f"llama-claude-{name.replace('_', '-')}", adapter) for name, adapter in adapters.items()]
    events = [Event(at="", action="promote", model=model, previous=previous) for model, previous in history]
    (models / "registry.json").write_text(
        RegistryFile(current=current, models=entries, history=events).model_dump_json()
    )


def test_version_is_compared_with_the_model_in_service(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    models = tmp_path / "models"
    assert previous_model(models, V1, one) is None, "nothing in service: the SFT student"
    names = [SFT.name, V1.name, V2.name]
    history: list[tuple[str, str | None]] = [(names[0], None), (names[1], names[0]), (names[2], names[1])]
    registry(models, names[0], history[:1], bc_v1=tmp_path)
    assert previous_model(models, V1, one) is None
    registry(models, names[1], history[:2], bc_v1=tmp_path, ppo_v1=one)
    found = previous_model(models, V2, two)
    assert found is not None
    assert found.name == V1.name
    assert previous_model(models, V1, one) is None, "who is in service is compared with what was before"
    stranger = previous_model(models, V1, two)
    assert stranger is not None, "the same name from another dataset is another model"
    assert (is_exported(models, V1, one), is_exported(models, V1, two), is_exported(models, V2, two)) == (
        True,
        False,
        False,
    )
    registry(models, names[2], history, bc_v1=tmp_path, ppo_v1=one, ppo_v2=two)
    again = previous_model(models, V2, two)
    assert again is not None
    assert again.name == V1.name


CONFIG = """
runs = "{folder}/runs"
models = "{folder}/models"
[[teachers]]
match = "scripted-teacher-*"
basis = "own work"
[dataset]
max_tokens = 1024
test_projects = ["heldout-*"]
validation_fraction = 0.1
test_fraction = 0.0
[student.tiny]
copy_steps = 2
[sft]
lora_r = 4
train_embeddings = true
learning_rate = 2e-3
max_steps = 4
save_steps = 2
[ppo]
iterations = 2
updates = 3
episodes_per_update = 2
minibatch_size = 2
value_warmup = 1
checkpoint_every = 1
eval_every = 3
eval_prompts = 1
max_turns = 2
max_new_tokens = 12
[mining]
samples = 2
prompts = 3
top = 2
[gate]
min_prompts = 2
min_workflow_prompts = 2
"""


class Train:
    """`claude-trainer train` in a process of its own, on one folder."""

    def __init__(self, folder: Path, data: Path, cache: Path) -> None:
        folder.mkdir()
        self.folder = folder
        (folder / "c.toml").write_text(CONFIG.format(folder=folder))
        self.command = [sys.executable, "-m", "trainer.cli", "train", "--json", "--data", str(data)]
        self.command += ["--config", str(folder / "c.toml")]
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}

    def finish(self) -> dict[str, Any]:
        done = subprocess.run(
            self.command, env=self.environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def kill_at(self, pattern: str, number: signal.Signals) -> int:
        """Ends it with a signal as soon as a file of this pattern is there; returns its exit status."""
        said = self.folder / "stderr"
        with said.open("wb") as stderr:
            process = subprocess.Popen(self.command, env=self.environment, stdout=subprocess.DEVNULL, stderr=stderr)
        deadline = time.monotonic() + 600
        try:
            while not list(self.folder.glob(pattern)):
                assert process.poll() is None, said.read_text()[-3000:]
                assert time.monotonic() < deadline, f"no {pattern}"
                time.sleep(0.01)
            process.send_signal(number)
            return process.wait(120)
        finally:
            process.kill()
            process.wait()

    def facts(self) -> dict[str, Any]:
        """What must not depend on interruptions: metrics without times, what was practised, what was registered."""
        metrics = {}
        for file in sorted(self.folder.glob("runs/*/metrics.jsonl")):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            timed = {"time", "seconds", "validation_seconds", "tokens_per_second", "outside_step", "memory"}
            metrics[file.parent.name] = [{k: v for k, v in row.items() if k not in timed} for row in rows]
        registered = json.loads((self.folder / "models" / "registry.json").read_text())
        return {
            "metrics": metrics,
            "mined": {file.name: file.read_text() for file in self.folder.glob("runs/*/mined-v*.jsonl")},
            "models": [(model["name"], model["parent"], model["gate"]) for model in registered["models"]],
            "scores": {file.name: file.read_text() for file in self.folder.glob("models/*-scores.json")},
        }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_road_that_is_killed_again_and_again_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    data = tmp_path / "data"
    record_sessions([*make_episodes(10, False, 0), *make_episodes(6, True, 0)], data, tmp_path / "projects")
    import_sessions([tmp_path / "projects"], data)
    straight = Train(tmp_path / "straight", data, tmp_path / "cache")
    summary = straight.finish()
    assert list(summary["heldout"]) == ["untrained", "sft", "ppo-v1", "ppo"]
    facts = straight.facts()
    assert [model[:2] for model in facts["models"]] == [
        ("llama-claude-bc-v1", None),
        ("llama-claude-ppo-v1", "llama-claude-bc-v1"),
        ("llama-claude-ppo-v2", "llama-claude-ppo-v1"),
    ]
    assert facts["models"][2][2]["previous"] == "llama-claude-bc-v1", "version 1 failed its gate and is not in service"
    assert list(facts["mined"]) == ["mined-v1.jsonl"]
    assert sorted(path.name for path in straight.folder.glob("models/*-q4_k_m.gguf")) == [
        f"{name}-q4_k_m.gguf" for name in ("llama-claude-bc-v1", "llama-claude-ppo-v1", "llama-claude-ppo-v2")
    ]

    killed = Train(tmp_path / "killed", data, tmp_path / "cache")
    assert killed.kill_at("runs/sft-*/checkpoints/checkpoint-2", signal.SIGKILL) == -signal.SIGKILL
    assert killed.kill_at("runs/ppo-v1-*/checkpoints/000001.pt", signal.SIGTERM) == 1
    assert killed.kill_at("runs/test-ppo-v1-*/result.json", signal.SIGKILL) == -signal.SIGKILL
    first = next(killed.folder.glob("runs/ppo-v1-*/adapter/adapter_model.safetensors"))
    written = first.stat().st_mtime_ns
    assert killed.kill_at("runs/ppo-v2-*/config.toml", signal.SIGKILL) == -signal.SIGKILL  # while mining
    assert killed.kill_at("runs/ppo-v2-*/checkpoints/000002.pt", signal.SIGKILL) == -signal.SIGKILL
    again = killed.finish()
    assert first.stat().st_mtime_ns == written, "a finished version is not trained again"
    assert again["heldout"] == summary["heldout"]
    assert killed.facts() == facts
    exported = subprocess.run(
        [*killed.command[:3], "export", "--student", "ppo", "--version", "1", *killed.command[4:]],
        env=killed.environment, capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    report = json.loads(exported.stdout)
    assert report["entry"]["name"] == "llama-claude-ppo-v1"
    assert report["entry"]["gate"] == facts["models"][1][2]
    assert killed.facts()["models"][-1] == facts["models"][1], "registered anew, with the parent and the gate it had"
