"""A real `llama-server`, where there is one on the PATH: does llama.cpp's own Jinja render the trainer's bytes?

llama-cpp-python renders templates in Python; llama-server has a template engine of its own, written in C++.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2

from trainer.errors import TrainerError
from trainer.export.doctor_corpus import conversations
from trainer.export.export_records import Check, not_run
from trainer.student.chat_format import render

PROGRAM = "llama-server"
START_SECONDS = 300.0


def free_port() -> int:
    """A loopback port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(command: Sequence[str], url: str) -> Iterator[httpx2.Client]:
    """Runs a llama-server while the block lasts; yields a client once it is ready.

    Raises:
        TrainerError: it ended, or was not ready in time; with its last words.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            with httpx2.Client(base_url=url, timeout=120.0, trust_env=False) as client:
                deadline = time.monotonic() + START_SECONDS
                while not _ready(client):
                    if process.poll() is not None or time.monotonic() > deadline:
                        log.seek(0)
                        words = log.read().decode("utf-8", "replace").strip().split("\n")
                        raise TrainerError(f"{command[0]} did not start: {words[-1][:200]}")
                    time.sleep(0.1)
                yield client
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx2.TransportError:
        return False


def check_llama_server(path: Path) -> Check:
    """Every conversation, up to its last assistant turn, rendered by llama-server's `/apply-template`."""
    name = "template_in_llama_server"
    program = shutil.which(PROGRAM)
    if program is None:
        return not_run(name, "no llama-server on the PATH")
    port = free_port()
    command = [
        program,
        "--model",
        str(path),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--ctx-size",
        "512",
        "--jinja",
        "--no-webui",
    ]
    every = conversations()
    try:
        with running(command, f"http://127.0.0.1:{port}") as client:
            for messages, tools in every:
                # a closing assistant turn would be taken as the beginning of the answer
                asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
                answer = client.post("/apply-template", json={"messages": asked, "tools": tools or None})
                if answer.json().get("prompt") != render(asked, tools, generation_prompt=True):
                    detail = f"differs for {asked[1]['content'][:40]!r}: {answer.text[:120]!r}"
                    advice = "this llama-server asks another prompt than was trained: use `claude-trainer serve`"
                    return Check(name=name, status="warning", detail=detail, advice=advice)
    except (TrainerError, httpx2.HTTPError, ValueError) as error:
        return not_run(name, str(error) or type(error).__name__)
    return Check(name=name, status="passed", detail=f"{len(every)} conversations equal to the trainer's bytes")
