"""A loopback HTTP server that keeps Ollama's contract, good manners and bad ones alike.

What it imitates, as read in Ollama's source: blobs are checked against their digest; `create` answers in lines, and an
error after the first line comes with HTTP 200; creating a name anew deletes the blobs that only its old model used;
`copy` shares blobs; a busy server answers 503; the stored file may be re-written, so that its digest changes. Blobs are
written to disk under a temporary name and get their digest as a name once it is right, as Ollama does.

    python tests/contract/ollama_server.py --folder DIR [--port N] [--die-in-create]

runs it by itself and prints its URL: for tests that kill it, and for benchmarks that want another process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
BLOCK = 1 << 20
BUSY = "server busy, please try again.  maximum pending requests exceeded"


@dataclass
class Fault:
    """Something that goes wrong the next `times` times that `method path…` is asked.

    kind: busy (503), reset (connection cut without an answer), reset_in_body (cut after 64 KiB of the body were read),
    stream_error (an error line after HTTP 200), die_in_stream (cut between two lines), error (`status` and `text`),
    full (the body is read until its half, then there is no space left), slow (`seconds` pass before the answer),
    die (in mid-create: the line is cut and nobody listens any more).
    """

    method: str
    path: str
    kind: str
    times: int = 1
    status: int = 500
    text: str = "broken"
    seconds: float = 0.5


@dataclass
class Model:
    """A manifest: its layers and what was baked in."""

    blobs: set[str]
    parameters: dict[str, Any]
    request: dict[str, Any]
    digest: str


@dataclass
class State:
    """Everything that the server remembers."""

    folder: Path
    version: str = "0.13.5"
    rewrite: bool = False
    blobs: dict[str, Path] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    received: int = 0
    """Bytes of bodies read under /api/blobs."""
    reply: Callable[[dict[str, Any]], str] = lambda _: '<|python_tag|>{"name": "Bash", "parameters": {"command": "ls"}}'

    def put(self, content: bytes) -> str:
        """Stores a blob as if it had been sent; returns its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        path = self.folder / digest.replace(":", "-")
        path.write_bytes(content)
        self.blobs[digest] = path
        return digest


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: OllamaServer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        state = self.server.state
        with self.server.lock:
            state.requests.append((self.command, self.path))
            fault = next(
                (f for f in state.faults if f.times and f.method == self.command and self.path.startswith(f.path)), None
            )
            if fault is not None:
                fault.times -= 1
        kind = fault.kind if fault is not None else ""
        if kind == "reset":
            return self._cut()
        if kind == "reset_in_body":
            self.rfile.read(min(int(self.headers["Content-Length"]), 1 << 16))
            return self._cut()
        length = int(self.headers.get("Content-Length") or 0)
        if kind == "full":
            self._swallow(length // 2)
            self.close_connection = True
            return self._answer(500, {"error": f"write {state.folder}/blobs/sha256-x: no space left on device"})
        if kind == "slow" and fault is not None:
            time.sleep(fault.seconds)
        if kind == "busy":
            self._swallow(length)
            return self._answer(503, {"error": BUSY})
        if self.command == "POST" and self.path.startswith("/api/blobs/") and kind != "error":
            return self._receive(self.path.removeprefix("/api/blobs/"), length)
        self.body = self.rfile.read(length)
        if fault is not None and kind == "error":
            return self._answer(fault.status, {"error": fault.text})
        with self.server.lock:
            self._route(fault)

    def _route(self, fault: Fault | None) -> None:
        state = self.server.state
        if self.path.startswith("/api/blobs/"):
            return self._blob(self.path.removeprefix("/api/blobs/"))
        match self.command, self.path:
            case "GET", "/api/version":
                self._answer(200, {"version": state.version})
            case "GET", "/api/tags":
                models = [{"name": name, "digest": model.digest} for name, model in state.models.items()]
                self._answer(200, {"models": models})
            case "POST", "/api/create":
                self._create(fault)
            case "POST", "/api/copy":
                self._copy()
            case "POST", "/api/generate":
                self._generate()
            case "DELETE", "/api/delete":
                name = json.loads(self.body)["model"]
                if name not in state.models:
                    return self._answer(404, {"error": f"model '{name}' not found"})
                self._replace(name, None)
                self._answer(200, None)
            case _:
                self._answer(404, {"error": "not found"})

    def _blob(self, digest: str) -> None:
        if not DIGEST.match(digest):
            return self._answer(400, {"error": "invalid digest format"})
        self._answer(200 if digest in self.server.state.blobs else 404, None)

    def _swallow(self, length: int) -> None:
        while length and (block := self.rfile.read(min(length, BLOCK))):
            length -= len(block)

    def _receive(self, digest: str, length: int) -> None:
        """The body of a blob, to disk; its name is its digest once that is right."""
        state = self.server.state
        if not DIGEST.match(digest):
            self._swallow(length)
            return self._answer(400, {"error": "invalid digest format"})
        if digest in state.blobs:
            self._swallow(length)
            return self._answer(200, None)
        final = state.folder / digest.replace(":", "-")
        partial = final.with_name(f"{final.name}-{threading.get_ident()}")
        hasher, left = hashlib.sha256(), length
        with partial.open("wb") as stream:
            while left and (block := self.rfile.read(min(left, BLOCK))):
                hasher.update(block)
                stream.write(block)
                left -= len(block)
                state.received += len(block)
        found = f"sha256:{hasher.hexdigest()}"
        if left or found != digest:
            partial.unlink()
            return self._answer(400, {"error": f'digest mismatch, expected "{digest}", got "{found}"'})
        partial.rename(final)
        with self.server.lock:
            state.blobs[digest] = final
        self._answer(201, None)

    def _create(self, fault: Fault | None) -> None:
        state = self.server.state
        if not self.body:
            return self._answer(400, {"error": "missing request body"})
        request = json.loads(self.body)
        files = request.get("files")
        if not re.fullmatch(r"[\w.-]+(:[\w.-]+)?", request.get("model") or ""):
            return self._answer(400, {"error": "invalid model name"})
        if files is None and "from" not in request:
            return self._answer(400, {"error": "neither 'from' or 'files' was specified"})
        if not files:
            return self._answer(400, {"error": "no files provided to convert"})
        if any(name.startswith("/") or ".." in name for name in files):
            return self._answer(400, {"error": "file path must be relative"})
        (digest,) = files.values()
        if digest not in state.blobs:
            return self._answer(400, {"error": f"blob {digest} not found"})
        with state.blobs[digest].open("rb") as stream:
            magic = stream.read(4)
        if magic != b"GGUF":
            return self._answer(400, {"error": "supplied file was not in GGUF format"})
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._line({"status": "parsing GGUF"})
        if fault is not None and fault.kind == "stream_error":
            self._line({"error": fault.text})
            return self._end()
        if fault is not None and fault.kind == "die_in_stream":
            return self._cut()
        if fault is not None and fault.kind == "die":
            self.server.stop_listening()
            return self._cut()
        if state.rewrite:
            digest = state.put(state.blobs[digest].read_bytes() + b"rewritten")
        self._line({"status": f"using existing layer {digest}"})
        manifest = hashlib.sha256(json.dumps([digest, request.get("parameters")]).encode()).hexdigest()
        model = Model({digest}, request.get("parameters") or {}, request, manifest)
        self._replace(request["model"] if ":" in request["model"] else f"{request['model']}:latest", model)
        self._line({"status": "writing manifest"})
        self._line({"status": "success"})
        self._end()

    def _replace(self, name: str, model: Model | None) -> None:
        """Sets or removes a name; blobs that only its old model used are deleted."""
        state = self.server.state
        old = state.models.pop(name, None)
        if model is not None:
            state.models[name] = model
        used = {digest for other in state.models.values() for digest in other.blobs}
        for digest in (old.blobs if old is not None else set()) - used:
            path = state.blobs.pop(digest, None)
            if path is not None:
                path.unlink(missing_ok=True)

    def _copy(self) -> None:
        state = self.server.state
        request = json.loads(self.body)
        source = state.models.get(request["source"])
        if source is None:
            return self._answer(404, {"error": f'model "{request["source"]}" not found'})
        self._replace(request["destination"], source)
        self._answer(200, None)

    def _generate(self) -> None:
        state = self.server.state
        request = json.loads(self.body)
        model = state.models.get(request["model"])
        if model is None or not model.blobs <= set(state.blobs):
            return self._answer(404, {"error": f"model '{request['model']}' not found"})
        state.prompts.append(request)
        self._answer(200, {"model": request["model"], "response": state.reply(request), "done": True})

    def _answer(self, status: int, body: dict[str, Any] | None) -> None:
        content = json.dumps(body).encode() if body is not None else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _line(self, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode() + b"\n"
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


class OllamaServer(ThreadingHTTPServer):
    """Runs in a thread while the `with` block lasts; `url` is where. Blobs in `folder` are found again."""

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        folder.mkdir(parents=True, exist_ok=True)
        found = {path.name.replace("-", ":", 1): path for path in folder.iterdir()}
        self.state = State(folder, blobs={name: path for name, path in found.items() if DIGEST.match(name)})
        self.lock = threading.RLock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def stop_listening(self) -> None:
        """As a process that dies: connections are refused from now on."""
        threading.Thread(target=self.shutdown, daemon=True).start()
        self.socket.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or a connection that a fault cut, is no news."""

    def __enter__(self) -> OllamaServer:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(description="A server that keeps Ollama's contract.")
    parser.add_argument("--folder", type=Path, required=True, help="where blobs are kept")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--die-in-create", action="store_true", help="end the process after the first line of a create")
    arguments = parser.parse_args()
    server = OllamaServer(arguments.folder, arguments.port)
    if arguments.die_in_create:
        server.state.faults.append(Fault("POST", "/api/create", "die"))
        server.stop_listening = lambda: os._exit(9)  # type: ignore[method-assign]
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
