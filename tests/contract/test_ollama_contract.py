"""What the deployer relies on, asked of the contract server and, where `ollama` is on the PATH, of the real one too."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import httpx2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ollama_server import OllamaServer

SERVERS = ["contract", *(["ollama"] if shutil.which("ollama") else [])]
"""Who is asked; the names of the tests say who was."""


def _real(folder: Path) -> Iterator[str]:
    """An `ollama serve` with models of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "OLLAMA_HOST": address, "OLLAMA_MODELS": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["ollama", "serve"], env=environment, stdout=log, stderr=log)
        try:
            for _ in range(300):
                try:
                    if httpx2.get(f"http://{address}/api/version", trust_env=False).status_code == 200:
                        break
                except httpx2.TransportError:
                    time.sleep(0.1)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(params=SERVERS)
def api(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[httpx2.Client]:
    if request.param == "contract":
        with OllamaServer(tmp_path) as server, httpx2.Client(base_url=server.url, trust_env=False) as client:
            yield client
        return
    for url in _real(tmp_path):
        with httpx2.Client(base_url=url, trust_env=False, timeout=60) as client:
            yield client


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    """A Llama of one layer with a vocabulary of bytes: small, and whole enough for llama.cpp to read its header."""
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([chr(33 + number) for number in range(64)])
    writer.add_tensor("token_embd.weight", np.zeros((64, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def put(api: httpx2.Client, content: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert api.post(f"/api/blobs/{digest}", content=content).status_code == 201
    return digest


def create(api: httpx2.Client, name: str, **body: Any) -> tuple[int, list[dict[str, Any]]]:
    response = api.post("/api/create", json={"model": name, "stream": True, **body})
    return response.status_code, [json.loads(line) for line in response.text.splitlines() if line.strip()]


def test_blob_is_asked_for_sent_and_found_again(api: httpx2.Client) -> None:
    content = b"some bytes"
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert api.head(f"/api/blobs/{digest}").status_code == 404
    assert api.post(f"/api/blobs/{digest}", content=content).status_code == 201
    assert api.head(f"/api/blobs/{digest}").status_code == 200
    assert api.post(f"/api/blobs/{digest}", content=content).status_code == 200


def test_blob_with_other_bytes_is_refused_and_not_kept(api: httpx2.Client) -> None:
    digest = f"sha256:{hashlib.sha256(b'a').hexdigest()}"
    answer = api.post(f"/api/blobs/{digest}", content=b"b")
    assert answer.status_code == 400
    assert "digest mismatch" in answer.json()["error"]
    assert api.head(f"/api/blobs/{digest}").status_code == 404
    assert api.head("/api/blobs/sha256:nonsense").status_code == 400


def test_create_answers_in_lines_and_ends_with_success(api: httpx2.Client, model: bytes) -> None:
    digest = put(api, model)
    parameters = {"num_ctx": 256, "stop": ["<|eot_id|>"]}
    status, lines = create(api, "m:abc", files={"m.gguf": digest}, parameters=parameters)
    assert status == 200
    assert all("error" not in line for line in lines), lines
    assert lines[-1] == {"status": "success"}
    assert "m:abc" in [row["name"] for row in api.get("/api/tags").json()["models"]]


def test_create_refuses_before_the_first_line_with_a_status(api: httpx2.Client, model: bytes) -> None:
    digest = put(api, model)
    assert api.post("/api/create", content=b"").status_code == 400
    assert create(api, "m:abc")[0] == 400
    assert create(api, "m:abc", files={})[0] == 400
    assert create(api, "m:abc", files={"../m.gguf": digest})[0] == 400
    assert create(api, "", files={"m.gguf": digest})[0] == 400


def test_file_that_is_no_gguf_never_becomes_a_model(api: httpx2.Client) -> None:
    status, lines = create(api, "m:abc", files={"m.gguf": put(api, b"hello, this is no model")})
    assert status == 400 or any("error" in line for line in lines)
    assert {"status": "success"} not in lines
    assert api.get("/api/tags").json()["models"] in ([], None)


def test_copy_shares_and_deleting_one_name_leaves_the_other(api: httpx2.Client, model: bytes) -> None:
    assert create(api, "m:abc", files={"m.gguf": put(api, model)})[0] == 200
    assert api.post("/api/copy", json={"source": "m:abc", "destination": "m:latest"}).status_code == 200
    digests = {row["name"]: row["digest"] for row in api.get("/api/tags").json()["models"]}
    assert digests["m:abc"] == digests["m:latest"]
    assert api.request("DELETE", "/api/delete", json={"model": "m:abc"}).status_code == 200
    assert [row["name"] for row in api.get("/api/tags").json()["models"]] == ["m:latest"]
    missing = api.post("/api/copy", json={"source": "m:gone", "destination": "m:latest"})
    assert (missing.status_code, "not found" in missing.json()["error"]) == (404, True)


def test_creating_a_name_anew_deletes_what_only_its_old_model_used(api: httpx2.Client, model: bytes) -> None:
    """Why `latest` is only ever copied to."""
    first = put(api, model)
    create(api, "m:latest", files={"m.gguf": first})
    names = {row["name"]: row["digest"] for row in api.get("/api/tags").json()["models"]}
    create(api, "m:latest", files={"m.gguf": put(api, model + b"\0" * 32)}, parameters={"num_ctx": 128})
    again = {row["name"]: row["digest"] for row in api.get("/api/tags").json()["models"]}
    assert names["m:latest"] != again["m:latest"]
    assert api.head(f"/api/blobs/{first}").status_code == 404
