"""The registry remembers everything, and lets nothing unfit into service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainer.errors import TrainerError
from trainer.export.export_records import (
    Check,
    DoctorReport,
    ExportedFile,
    ExportReport,
    Provenance,
    Trial,
    WorkflowScore,
    sha256_of,
)
from trainer.export.model_card import model_card, write_model_card
from trainer.export.registry import ModelEntry, Registry, RegistryFile
from trainer.records import GateMeasure, GateReport

PASS = GateReport(passed=True, verdict="PASS", reasons=["reward 0.91 ≥ 0.80"], n=100)
FAIL = GateReport(passed=False, verdict="FAIL", reasons=["reward 0.10 < 0.80"], n=100)


def examined(status: Any = "passed") -> DoctorReport:
    checks = [Check(name="bos", status=status, detail="2 BOS | in a\nrow")]
    return DoctorReport(path="m", healthy=status != "failed", checks=checks)


def exported(folder: Path, name: str) -> ExportReport:
    files = []
    for suffix, kind in (("", "f16"), ("-q4_k_m", "q4_k_m")):
        path = folder / f"{name}{suffix}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{name}{kind}".encode())
        size, digest = path.stat().st_size, sha256_of(path)
        files.append(ExportedFile(path=str(path), type=kind, bytes=size, sha256=digest, seconds=0.1))
    return ExportReport(name=name, base="b", adapter=None, merged=0, tensors=3, plain=files[0], quantized=files[1])


def registered(folder: Path, name: str, gate: GateReport | None = PASS, **provenance: Any) -> ModelEntry:
    origin = Provenance(
        base_model="unsloth/x",
        licence="llama3.1",
        teachers=["glm-4.7 (licence: MIT)"],
        dataset_hash="abc",
        **provenance,
    )
    return Registry(folder).register(exported(folder, name), examined(), origin, gate)


def test_model_is_registered_with_its_origin_and_digests(tmp_path: Path) -> None:
    registered(tmp_path, "llama-claude-bc-v1")
    entry = registered(tmp_path, "llama-claude-ppo-v1", parent="llama-claude-bc-v1")
    registry = Registry(tmp_path)
    assert [model.name for model in registry.entries()] == ["llama-claude-bc-v1", "llama-claude-ppo-v1"]
    found = registry.get("llama-claude-ppo-v1")
    assert found == entry
    assert found.parent == "llama-claude-bc-v1"
    assert [file.path for file in found.files] == ["llama-claude-ppo-v1.gguf", "llama-claude-ppo-v1-q4_k_m.gguf"]
    assert found.quantized.type == "q4_k_m"
    assert registry.read().current is None
    assert registry.path.stat().st_mode & 0o777 == 0o600
    registry.verify("llama-claude-ppo-v1")


def test_unfit_model_is_not_registered(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="m is not registered: the doctor found bos: 2 BOS"):
        Registry(tmp_path).register(exported(tmp_path, "m"), examined("failed"), Provenance())
    assert not (tmp_path / "registry.json").exists()


@pytest.mark.parametrize(
    ("gate", "reason"), [(FAIL, "has the gate verdict FAIL"), (None, "was not gated")], ids=["failed", "ungated"]
)
def test_model_whose_gate_did_not_pass_is_promoted_only_by_insisting(
    tmp_path: Path, gate: GateReport | None, reason: str
) -> None:
    registered(tmp_path, "m", gate)
    registry = Registry(tmp_path)
    with pytest.raises(TrainerError, match=f"m is not promoted: it {reason}"):
        registry.promote("m")
    assert registry.read().current is None
    registry.promote("m", force="demo of the road, not of quality")
    assert registry.read().current == "m"
    assert registry.read().history[-1].note == "demo of the road, not of quality"


def test_rollback_walks_back_and_history_keeps_everything(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for name in ("a", "b", "c"):
        registered(tmp_path, name)
        registry.promote(name)
    registry.promote("c")
    assert registry.rollback().name == "b"
    assert registry.rollback().name == "a"
    with pytest.raises(TrainerError, match="no earlier model to return to"):
        registry.rollback()
    registry.promote("c")
    assert registry.rollback().name == "a"
    actions = [(event.action, event.model, event.previous) for event in registry.read().history]
    assert actions == [
        ("register", "a", None),
        ("promote", "a", None),
        ("register", "b", None),
        ("promote", "b", "a"),
        ("register", "c", None),
        ("promote", "c", "b"),
        ("rollback", "b", "c"),
        ("rollback", "a", "b"),
        ("promote", "c", "a"),
        ("rollback", "a", "c"),
    ]


def test_current_model_that_is_exported_again_and_fails_gives_way_to_the_one_before(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for name in ("llama-claude-bc-v1", "llama-claude-ppo-v1"):
        registered(tmp_path, name)
        registry.promote(name)
    registered(tmp_path, "llama-claude-ppo-v1")
    assert registry.read().current == "llama-claude-ppo-v1", "as good as before"
    registered(tmp_path, "llama-claude-ppo-v1", gate=FAIL)
    found = registry.read()
    assert found.current == "llama-claude-bc-v1"
    assert (found.history[-1].action, found.history[-1].note) == ("withdraw", "it has the gate verdict FAIL")
    with pytest.raises(TrainerError, match="no earlier model"):
        registry.rollback()
    registered(tmp_path, "llama-claude-bc-v1", gate=None)
    assert registry.read().current is None


def test_file_that_was_changed_is_not_promoted(tmp_path: Path) -> None:
    registered(tmp_path, "m")
    (tmp_path / "m-q4_k_m.gguf").write_bytes(b"other")
    with pytest.raises(TrainerError, match=r"m-q4_k_m\.gguf: changed since it was registered"):
        Registry(tmp_path).promote("m")
    (tmp_path / "m-q4_k_m.gguf").unlink()
    with pytest.raises(TrainerError, match=r"m-q4_k_m\.gguf: missing; export m again"):
        Registry(tmp_path).promote("m")


def test_export_of_the_same_name_replaces_the_entry(tmp_path: Path) -> None:
    registered(tmp_path, "m", FAIL)
    registered(tmp_path, "m", PASS)
    registry = Registry(tmp_path).read()
    assert [(model.name, model.gate.verdict if model.gate else None) for model in registry.models] == [("m", "PASS")]
    assert len(registry.history) == 2


def test_unknown_model_is_one_line(tmp_path: Path) -> None:
    registered(tmp_path, "m")
    with pytest.raises(TrainerError, match="no model 'n'; registered: m"):
        Registry(tmp_path).get("n")


@pytest.mark.parametrize("content", ["[1, 2", "{}x", "", "[]", '{"models": [{"name": 1}]}', "\x00\xff"])
def test_damaged_registry_says_how_to_mend_it(tmp_path: Path, content: str) -> None:
    registered(tmp_path, "a")
    registered(tmp_path, "b")
    registry = Registry(tmp_path)
    registry.path.write_text(content)
    with pytest.raises(TrainerError, match=r"registry\.json: not a model registry .*; `cp \S+ \S+` returns") as failure:
        registry.entries()
    assert "\n" not in str(failure.value)
    subprocess.run(str(failure.value).split("`")[1].split(), check=True)
    assert [model.name for model in registry.entries()] == ["a"]


def test_registry_of_a_newer_program_is_not_rewritten(tmp_path: Path) -> None:
    registered(tmp_path, "m")
    path = tmp_path / "registry.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2', 1))
    before = path.read_text()
    with pytest.raises(TrainerError, match="schema 2, newer than 1; update claude-capture"):
        Registry(tmp_path).promote("m")
    assert path.read_text() == before


@pytest.mark.parametrize("name", ["", "../m", "a/b", ".m", "m\n"])
def test_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    report = exported(tmp_path, "m").model_copy(update={"name": name})
    with pytest.raises(TrainerError, match="is no model name"):
        Registry(tmp_path).register(report, examined(), Provenance())


def test_model_that_the_doctor_now_finds_unfit_is_not_promoted(tmp_path: Path) -> None:
    registered(tmp_path, "m")
    path = tmp_path / "registry.json"
    value = json.loads(path.read_text())
    value["models"][0]["doctor"] = examined("failed").model_dump()
    path.write_text(json.dumps(value))
    with pytest.raises(TrainerError, match="m is not promoted: the doctor found bos"):
        Registry(tmp_path).promote("m")


def lineage(folder: Path, count: int) -> Registry:
    """llama-claude-ppo-v1 … vN, each the child of the one before, each promoted in turn."""
    registry = Registry(folder)
    for number in range(1, count + 1):
        parent = f"llama-claude-ppo-v{number - 1}" if number > 1 else None
        registered(folder, f"llama-claude-ppo-v{number}", parent=parent)
        registry.promote(f"llama-claude-ppo-v{number}")
    return registry


def test_gc_keeps_current_previous_parents_and_the_newest(tmp_path: Path) -> None:
    registry = lineage(tmp_path, 5)
    registered(tmp_path, "candidate", FAIL)
    present = sorted(path.name for path in tmp_path.glob("*.gguf"))
    planned = registry.gc(dry_run=True)
    assert sorted(path.name for path in tmp_path.glob("*.gguf")) == present
    assert registry.gc() == planned
    assert [row.model for row in planned] == ["llama-claude-ppo-v1", "llama-claude-ppo-v2"]
    assert sum(row.bytes for row in planned) == sum(
        f.bytes for n in (1, 2) for f in registry.get(f"llama-claude-ppo-v{n}").files
    )
    assert registry.kept() == {
        "llama-claude-ppo-v5": "current",
        "llama-claude-ppo-v4": "previous",
        "llama-claude-ppo-v3": "parent of llama-claude-ppo-v4",
        "candidate": "newest",
    }
    gone = {f"llama-claude-ppo-v{n}{suffix}.gguf" for n in (1, 2) for suffix in ("", "-q4_k_m")}
    assert {path.name for path in tmp_path.glob("*.gguf")} == set(present) - gone
    assert registry.gc() == []
    assert [event.action for event in registry.read().history][-2:] == ["gc", "gc"]
    assert registry.rollback().name == "llama-claude-ppo-v4"
    assert registry.rollback().name == "llama-claude-ppo-v3"
    with pytest.raises(TrainerError, match="`models gc` removed the files of llama-claude-ppo-v2"):
        registry.rollback()


def test_gc_that_was_killed_after_the_registry_was_written_is_finished_by_the_next(tmp_path: Path) -> None:
    registry = lineage(tmp_path, 4)
    content = (tmp_path / "llama-claude-ppo-v1.gguf").read_bytes()
    registry.gc()
    (tmp_path / "llama-claude-ppo-v1.gguf").write_bytes(content)
    assert [row.files for row in registry.gc()] == [{"llama-claude-ppo-v1.gguf": len(content)}]
    assert not (tmp_path / "llama-claude-ppo-v1.gguf").exists()


def test_gc_takes_all_that_lies_beside_a_removed_model_and_nothing_of_the_others(tmp_path: Path) -> None:
    registry = lineage(tmp_path, 4)
    removed, kept = "llama-claude-ppo-v1", "llama-claude-ppo-v4"
    beside = {"{}-lora.gguf", "{}.md", "{}-scores.json", "{}-vllm.service", "{}-vllm/model-00001-of-00001.safetensors"}
    beside |= {f"{{}}{s}{end}" for s in ("", "-q4_k_m") for end in (".Modelfile", ".jinja", ".llama-server.service")}
    for form in beside:
        for name in (removed, kept):
            path = tmp_path / form.format(name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"12345")
    own = tmp_path / f"{removed}-notes.txt"
    own.write_text("of a person")
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / "x.gguf").write_bytes(b"123")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    planned = registry.gc(dry_run=True)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
    assert planned[0].files[f"{removed}-vllm"] == planned[0].files[f"{removed}-q4_k_m.Modelfile"] == 5
    assert planned[0].bytes == 5 * len(beside) + sum(file.bytes for file in registry.get(removed).files)
    assert (planned[-1].model, planned[-1].files) == ("(refused export)", {"refused": 3})
    assert registry.gc() == planned
    assert [path.name for path in tmp_path.glob(f"{removed}*")] == [own.name]
    assert all((tmp_path / form.format(kept)).exists() for form in beside)
    assert registry.gc() == []
    assert registry.get(removed).collected_at is not None
    for name in registry.kept():
        registry.verify(name)


def test_gc_takes_what_an_earlier_export_under_the_same_name_left(tmp_path: Path) -> None:
    registered(tmp_path, "m")
    registry = Registry(tmp_path)
    registry.promote("m")
    small = exported(tmp_path, "m")
    other = small.quantized.model_copy(update={"path": str(tmp_path / "m-q8_0.gguf"), "type": "q8_0"})
    Path(other.path).write_bytes((tmp_path / "m-q4_k_m.gguf").read_bytes())
    registry.register(small.model_copy(update={"quantized": other}), examined(), Provenance(), PASS)
    assert [list(row.files) for row in registry.gc()] == [["m-q4_k_m.gguf"]]
    assert registry.verify("m").collected_at is None


def test_gc_without_a_current_model_removes_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        registered(tmp_path, name)
    with pytest.raises(TrainerError, match="no model is current, gc would spare only the newest"):
        Registry(tmp_path).gc()
    assert Registry(tmp_path / "empty").gc() == []


def test_unknown_fields_survive_a_change(tmp_path: Path) -> None:
    registered(tmp_path, "m")
    path = tmp_path / "registry.json"
    value = json.loads(path.read_text())
    value["from_the_future"] = {"a": 1}
    value["models"][0]["colour"] = "blue"
    path.write_text(json.dumps(value))
    Registry(tmp_path).promote("m")
    again = json.loads(path.read_text())
    assert again["from_the_future"] == {"a": 1}
    assert again["models"][0]["colour"] == "blue"
    assert RegistryFile.model_validate(again).current == "m"


PUBLISHER = """
import os, signal, sys
from pathlib import Path
from trainer.export.export_records import sha256_of
from trainer.export.registry import ModelEntry, Registry

folder, left = Path(sys.argv[1]), int(sys.argv[2])

def dying(call):
    def counted(*arguments, **options):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return call(*arguments, **options)
    return counted

registry = Registry(folder)
old = registry.get("m")
staged = folder / ".m.1.partial"
staged.mkdir()
for file in old.files:
    (staged / file.path).write_text("new")
(staged / "m.md").write_text("card of the new one")
digest = sha256_of(staged / "m.gguf")
files = [file.model_copy(update={"bytes": 3, "sha256": digest}) for file in old.files]
entry = ModelEntry.model_validate({**old.model_dump(), "created_at": "new", "files": files})
for name in ("replace", "rename", "unlink", "rmdir", "open", "fsync"):
    setattr(os, name, dying(getattr(os, name)))
registry.publish(entry, staged)
"""


def test_release_killed_at_any_step_leaves_the_old_model_or_the_new_one(tmp_path: Path) -> None:
    outcomes = []
    for step in range(100):
        folder = tmp_path / str(step)
        registered(folder, "before")
        registered(folder, "m")
        registry = Registry(folder)
        registry.promote("before")
        registry.promote("m")
        (folder / "m.md").write_text("card of the old one")
        done = subprocess.run([sys.executable, "-c", PUBLISHER, str(folder), str(step)], capture_output=True, text=True)
        assert done.returncode in (0, -9), done.stderr
        entry = registry.verify("m")
        outcome = "new" if entry.created_at == "new" else "old"
        assert (folder / "m.md").read_text() == f"card of the {outcome} one"
        found = registry.read()
        assert [event.action for event in found.history].count("register") == (3 if outcome == "new" else 2)
        assert (found.current, [model.name for model in found.models]) == ("m", ["before", "m"])
        assert not list(folder.glob(".*.release"))
        registry.path.write_text("damaged")
        with pytest.raises(TrainerError, match="returns to the state before") as failure:
            registry.read()
        subprocess.run(str(failure.value).split("`")[1].split(), check=True)
        assert registry.verify("m").files == entry.files, "the digests of the state before are those of the files"
        outcomes.append(outcome)
        if done.returncode == 0:
            break
    assert outcomes == sorted(outcomes, reverse=True)
    assert (outcomes.count("old") > 2, outcomes.count("new") > 5) == (True, True), outcomes


WRITER = """
import sys
from pathlib import Path
from trainer.export.registry import Registry, Event
registry = Registry(Path(sys.argv[1]))
for number in range(20):
    with registry._changed() as file:
        file.history.append(Event(at="now", action="promote", model=f"{sys.argv[2]}-{number}"))
"""


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "ab"]
    assert [process.wait() for process in running] == [0, 0]
    names = [event.model for event in Registry(tmp_path).read().history]
    assert sorted(names) == sorted(f"{name}-{number}" for name in "ab" for number in range(20))


def test_model_card_says_where_it_comes_from_and_how_it_was_judged(tmp_path: Path) -> None:
    entry = registered(tmp_path, "llama-claude-ppo-v2", parent="llama-claude-bc-v1")
    text = write_model_card(entry, tmp_path).read_text()
    _, front, body = text.split("---\n", 2)
    head = yaml.safe_load(front)
    assert (head["license"], head["base_model"]) == ("llama3.1", "unsloth/x")
    assert "It continues `llama-claude-bc-v1`." in body
    assert "- glm-4.7 (licence: MIT)" in body
    assert "Verdict **PASS** on 100 held-out prompts." in body
    assert entry.quantized.sha256 in body
    assert "| bos | passed | 2 BOS \\| in a row |" in body


def test_model_card_is_read_by_the_hub_library(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    measures = [GateMeasure(name="reward", threshold=0.8, mean=0.9, low=0.85, high=0.95, n=100, verdict="PASS")]
    gate = PASS.model_copy(update={"measures": measures})
    doctor = examined().model_copy(
        update={"trial": Trial(gate=gate, workflows={"database": WorkflowScore(n=9, reward=0.5, exact_sequences=0.1)})}
    )
    origin = Provenance(base_model="unsloth/x", licence="llama3.1", dataset_hash="abc")
    entry = Registry(tmp_path).register(exported(tmp_path, "m"), doctor, origin, gate)
    data: Any = ModelCard(model_card(entry)).data
    assert (data.license, data.base_model, data.datasets) == ("llama3.1", "unsloth/x", ["bc_dataset-abc"])
    assert [(r.metric_type, r.metric_value, r.dataset_revision) for r in data.eval_results or []] == [
        ("reward", 0.9, "abc"),
        ("reward", 0.9, "abc"),
    ]
    assert "| database | 9 | 0.500 | 10% |" in model_card(entry)


def test_model_card_without_a_gate_says_so(tmp_path: Path) -> None:
    entry = Registry(tmp_path).register(exported(tmp_path, "m"), examined(), Provenance())
    assert "Not gated: how well it works is not known." in model_card(entry)
    assert yaml.safe_load(model_card(entry).split("---\n")[1])["library_name"] == "gguf"
