"""Kills at random moments, full disks, two at once: the registry stays readable, nothing half-done is promoted."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ollama_server import OllamaServer

from trainer.config import DeployConfig
from trainer.deploy.admission import Candidate, admit
from trainer.deploy.ollama_deployer import deploy, read_log
from trainer.errors import TrainerError
from trainer.export.atomic_file import locked
from trainer.export.export_records import DoctorReport, ExportedFile, ExportReport, Provenance, sha256_of
from trainer.export.registry import Registry
from trainer.records import GateReport

SERVER = Path(__file__).parents[2] / "contract" / "ollama_server.py"
FEW, MANY = 3, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])
LATEST = "cc-claude-agent:latest"
PASS = GateReport(passed=True, verdict="PASS", n=50)

DEPLOYER = """
import sys
from pathlib import Path
from trainer.config import DeployConfig
from trainer.deploy.admission import admit
from trainer.deploy.ollama_deployer import deploy
print("ready", flush=True)
deploy(admit(sys.argv[1], Path(sys.argv[2])), DeployConfig(host=sys.argv[3]), backoff=0.01)
"""

WRITER = """
import itertools, sys
from pathlib import Path
from trainer.export.export_records import DoctorReport, ExportedFile, ExportReport, Provenance, sha256_of
from trainer.export.registry import Registry
from trainer.records import GateReport
folder = Path(sys.argv[1])
registry = Registry(folder)
print("ready", flush=True)
for number in itertools.count(len(registry.entries())):
    path = folder / f"m{number}.gguf"
    path.write_bytes(b"GGUF" * 100)
    file = ExportedFile(path=str(path), type="f16", bytes=400, sha256=sha256_of(path), seconds=0)
    made = ExportReport(name=f"m{number}", base="", adapter=None, merged=0, tensors=1, plain=file, quantized=file)
    doctor = DoctorReport(path=str(path), healthy=True, checks=[])
    registry.register(made, doctor, Provenance(), GateReport(passed=True, verdict="PASS", n=50))
    registry.promote(f"m{number}")
    registry.gc()
    if number % 3 == 2:
        registry.rollback()
"""


def register(path: Path, name: str) -> None:
    file = ExportedFile(path=str(path), type="q4_k_m", bytes=path.stat().st_size, sha256=sha256_of(path), seconds=0.1)
    report = ExportReport(name=name, base="", adapter=None, merged=0, tensors=1, plain=file, quantized=file)
    doctor = DoctorReport(path=str(path), healthy=True, checks=[])
    Registry(path.parent).register(report, doctor, Provenance(), PASS)


@contextmanager
def server(folder: Path, *options: str, port: int = 0) -> Iterator[str]:
    """The contract server as a process, killed at the end."""
    command = [sys.executable, str(SERVER), "--folder", str(folder), "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def killed(code: str, *arguments: str, after: float) -> bool:
    """Runs Python code and kills it so many seconds after it said that it is ready; True where it was still at work."""
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(after)
        process.kill()
        return process.wait() == -signal.SIGKILL


def digest_of(url: str, name: str) -> str | None:
    models = httpx2.get(f"{url}/api/tags", trust_env=False).json()["models"]
    return {model["name"]: model["digest"] for model in models}.get(name)


@pytest.mark.parametrize("kills", [FEW, MANY])
def test_deployment_killed_at_any_moment_is_finished_by_the_next(tmp_path: Path, make_gguf: Any, kills: int) -> None:
    draw = random.Random(kills)
    first, second = make_gguf("one"), make_gguf("two", size=16 << 20)
    register(first, "one")
    register(second, "two")
    folder = first.parent
    interrupted = 0
    with server(tmp_path / "blobs") as url:
        config = DeployConfig(host=url)
        deploy(admit("one", folder), config)
        old = digest_of(url, LATEST)
        started = time.monotonic()
        whole = deploy(admit("two", folder), config)
        took = time.monotonic() - started
        new = digest_of(url, whole.tag)
        for number in range(kills):
            deploy(admit("one", folder), config)
            httpx2.request("DELETE", f"{url}/api/delete", json={"model": whole.tag}, trust_env=False)
            interrupted += killed(DEPLOYER, "two", str(folder), url, after=took * (number + draw.random()) / kills)
            assert [entry.name for entry in Registry(folder).entries()] == ["one", "two"]
            assert all(entry.model == "cc-claude-agent" for entry in read_log(folder))
            assert digest_of(url, LATEST) in (old, new)
            report = deploy(admit("two", folder), config)
            assert digest_of(url, LATEST) == digest_of(url, report.tag) == new
    assert interrupted > 0


@pytest.mark.parametrize("kills", [FEW, MANY])
def test_registry_is_readable_whenever_its_writer_is_killed(tmp_path: Path, kills: int) -> None:
    draw = random.Random(kills)
    registry = Registry(tmp_path)
    known: set[str] = set()
    for _ in range(kills):
        assert killed(WRITER, str(tmp_path), after=draw.uniform(0, 0.4))
        found = registry.read()
        names = {entry.name for entry in found.models}
        assert known <= names, "an entry was lost"
        assert found.current is None or found.current in names
        known = names
    path = tmp_path / "last.gguf"
    path.write_bytes(b"GGUF")
    register(path, "last")
    registry.promote("last")
    assert registry.read().current == "last"
    registry.gc()
    left = {file.name for file in tmp_path.glob("*.gguf")}
    assert left <= {Path(f.path).name for name in registry.kept() for f in registry.get(name).files} | unfinished(
        registry
    )
    assert list(tmp_path.glob(".registry*.partial")) == []


def unfinished(registry: Registry) -> set[str]:
    """The one file that was written when its process died before it could be registered."""
    names = {Path(file.path).name for entry in registry.entries() for file in entry.files}
    return {path.name for path in registry.folder.glob("*.gguf")} - names


def test_server_that_dies_in_mid_create_is_one_line_and_its_successor_finishes(tmp_path: Path, make_gguf: Any) -> None:
    path = make_gguf("one", size=1 << 20)
    register(path, "one")
    command = [
        sys.executable,
        "-c",
        "from trainer.cli import main; main()",
        "deploy",
        "one",
        "--models",
        str(path.parent),
    ]
    with server(tmp_path / "blobs", "--die-in-create") as url:
        port = int(url.rpartition(":")[2])
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "OLLAMA_HOST": f"127.0.0.1:{port}"}
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "start it with `ollama serve`" in done.stderr
    assert read_log(path.parent) == []
    assert Registry(path.parent).read().current is None
    with server(tmp_path / "blobs", port=port) as url:
        report = deploy(admit("one", path.parent), DeployConfig(host=url))
        assert not report.uploaded
        assert digest_of(url, LATEST) == digest_of(url, report.tag)


def test_full_disk_leaves_the_registry_as_it_was(
    tmp_path: Path, make_gguf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_gguf("one")
    register(path, "one")
    registry = Registry(path.parent)
    before = registry.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TrainerError, match=r"registry\.json: no room on the disk .*nothing was changed") as failure:
            registry.promote("one")
    assert "\n" not in str(failure.value)
    assert registry.path.read_bytes() == before
    assert registry.promote("one").name == "one"


def test_deployments_at_once_take_turns_and_lose_no_line_of_the_log(ollama: OllamaServer, make_gguf: Any) -> None:
    first, second = make_gguf("one"), make_gguf("two")
    config = DeployConfig(host=ollama.url)
    with ThreadPoolExecutor(1) as other:
        with locked(first.parent / ".deployments.json.lock"):  # the other one is between its log and its copy
            waiting = other.submit(deploy, Candidate(second), config, backoff=0.01)
            while ("POST", "/api/generate") not in ollama.state.requests:
                time.sleep(0.01)
            with pytest.raises(TimeoutError):
                waiting.result(0.5)
            assert (digest_of(ollama.url, LATEST), read_log(first.parent)) == (None, [])
        waiting.result(30)
    deploy(Candidate(first), config)
    assert [entry.tag for entry in read_log(first.parent)] == [
        f"cc-claude-agent:{sha256_of(path)[:12]}" for path in (second, first)
    ]


def test_full_disk_beside_the_model_is_one_line_and_latest_stays(
    ollama: OllamaServer, make_gguf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DeployConfig(host=ollama.url)
    deploy(Candidate(make_gguf("zero")), config)
    before, path = digest_of(ollama.url, LATEST), make_gguf("one")
    sync = os.fsync

    def full(handle: int) -> None:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        room.pop()
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    for files in (0, 1):
        room = [None] * files
        with pytest.raises(TrainerError, match=r"no room on the disk \(No space left on device\)") as failure:
            deploy(Candidate(path), config)
        assert "\n" not in str(failure.value)
        assert (digest_of(ollama.url, LATEST), [entry.tag for entry in read_log(path.parent)][1:]) == (before, [])
