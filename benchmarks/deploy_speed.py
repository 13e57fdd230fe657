"""What a deployment costs over the raw copying of its blob.

    python benchmarks/deploy_speed.py [--mb N] [--repeats N] [--json]

Both sides send the same random GGUF to the same server (tests/contract/ollama_server.py, in a process of its own, which
hashes what arrives and writes it to disk, as Ollama does), in turn, each time into an empty folder:
- raw: one POST of the file with `http.client`, in blocks of 1 MiB, and nothing else;
- deploy: all of `claude-trainer deploy` for a registered model, from the look into the registry to the copy to
  `latest` and the check that it took effect.
Beside them the time of a plain copy of the file on this disk.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import gguf
import numpy as np

from trainer.config import DeployConfig
from trainer.deploy.admission import admit
from trainer.deploy.ollama_deployer import deploy
from trainer.export.export_records import DoctorReport, ExportedFile, ExportReport, Provenance, sha256_of
from trainer.export.registry import Registry
from trainer.records import GateReport

WANTED = 0.10
SERVER = Path(__file__).resolve().parents[1] / "tests" / "contract" / "ollama_server.py"


def random_gguf(path: Path, megabytes: int) -> None:
    """A GGUF whose one tensor is noise."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    noise = np.random.default_rng(0).integers(0, 256, (megabytes << 20) // 4096 * 4096, dtype=np.uint8)
    writer.add_tensor("token_embd.weight", noise.view(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def register(path: Path) -> str:
    """Enters the file with a passed gate and a healthy doctor; returns its digest."""
    digest = sha256_of(path)
    file = ExportedFile(path=str(path), type="f16", bytes=path.stat().st_size, sha256=digest, seconds=0.0)
    report = ExportReport(name="m", base="", adapter=None, merged=0, tensors=1, plain=file, quantized=file)
    doctor = DoctorReport(path=str(path), healthy=True, checks=[])
    Registry(path.parent).register(report, doctor, Provenance(), GateReport(passed=True, verdict="PASS", n=50))
    return digest


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The contract server in a process of its own; its blobs are gone afterwards."""
    command = [sys.executable, str(SERVER), "--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()
            shutil.rmtree(folder, ignore_errors=True)


def raw(url: str, path: Path, digest: str) -> None:
    """The bytes and nothing else."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, blocksize=1 << 20)
    with path.open("rb") as stream:
        size = {"Content-Length": str(path.stat().st_size)}
        connection.request("POST", f"/api/blobs/sha256:{digest}", body=stream, headers=size)
        answer = connection.getresponse()
        answer.read()
    assert answer.status == 201, answer.status


def measure(megabytes: int, repeats: int) -> dict[str, float]:
    """Seconds of each side, medians over the repeats, and the overhead."""
    os.environ.pop("OLLAMA_HOST", None)
    times: dict[str, list[float]] = {"raw": [], "deploy": [], "copy": []}
    with tempfile.TemporaryDirectory(prefix="deploy-speed-") as scratch:
        path = Path(scratch) / "models" / "m.gguf"
        path.parent.mkdir()
        random_gguf(path, megabytes)
        digest = register(path)
        for number in range(repeats):
            for side in ("raw", "deploy") if number % 2 == 0 else ("deploy", "raw"):
                with server(Path(scratch) / "blobs") as url:
                    started = time.perf_counter()
                    if side == "raw":
                        raw(url, path, digest)
                    else:
                        deploy(admit("m", path.parent), DeployConfig(host=url))
                    times[side].append(time.perf_counter() - started)
                (path.parent / "deployments.json").unlink(missing_ok=True)
            started = time.perf_counter()
            shutil.copyfile(path, Path(scratch) / "copy")
            times["copy"].append(time.perf_counter() - started)
        began = time.perf_counter()
        with path.open("rb") as stream:
            hashlib.file_digest(stream, "sha256")
        hashing = time.perf_counter() - began
    overheads = [d / r - 1 for d, r in zip(times["deploy"], times["raw"], strict=True)]
    return {
        "megabytes": megabytes,
        **{f"{side}_s": round(statistics.median(values), 3) for side, values in times.items()},
        "one_pass_of_sha256_s": round(hashing, 3),
        "overhead": round(statistics.median(overheads), 4),
        "overhead_least": round(min(overheads), 4),
        "overhead_most": round(max(overheads), 4),
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=1024, help="size of the file (default 1024)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.mb, arguments.repeats)
    if arguments.json:
        print(json.dumps({**found, "wanted": WANTED}))
        return
    print(f"{found['megabytes']} MB to the contract server, median of {arguments.repeats} pairs")
    print(f"  raw POST of the bytes   {found['raw_s']:8.3f} s")
    print(f"  claude-trainer deploy   {found['deploy_s']:8.3f} s")
    print(f"  cp on this disk         {found['copy_s']:8.3f} s")
    print(f"  one pass of sha256      {found['one_pass_of_sha256_s']:8.3f} s (not part of the others)")
    verdict = "met" if found["overhead"] < WANTED else "MISSED"
    span = f"[{found['overhead_least']:+.1%}, {found['overhead_most']:+.1%}]"
    print(f"overhead of deploy over raw: {found['overhead']:+.1%} {span}, wanted below {WANTED:.0%}: {verdict}")


if __name__ == "__main__":
    main()
