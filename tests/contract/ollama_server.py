"""A loopback HTTP server that keeps Ollama's contract, good manners and bad ones alike.

What it imitates, as read in Ollama's source: blobs are checked against their digest; `create` answers in lines, and an
error after the first line comes with HTTP 200; creating a name anew deletes the blobs that only its old model used;
`copy` shares blobs; a busy server answers 503; the stored file may be re-written, so that its digest changes.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
BUSY = "server busy, please try again.  maximum pending requests exceeded"


@dataclass
class Fault:
    """Something that goes wrong the next `times` times that `method path…` is asked.

    kind: busy (503), reset (connection cut without an answer), reset_in_body (cut after 64 KiB of the body were read),
    stream_error (an error line after HTTP 200), die_in_stream (cut between two lines), error (`status` and `text`).
    """

    method: str
    path: str
    kind: str
    times: int = 1
    status: int = 500
    text: str = "broken"


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

    version: str = "0.13.5"
    rewrite: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    reply: Callable[[dict[str, Any]], str] = lambda _: '<|python_tag|>{"name": "Bash", "parameters": {"command": "ls"}}'


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
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if kind == "busy":
            return self._answer(503, {"error": BUSY})
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
        blobs = self.server.state.blobs
        if not DIGEST.match(digest):
            return self._answer(400, {"error": "invalid digest format"})
        if self.command == "HEAD":
            return self._answer(200 if digest in blobs else 404, None)
        if digest in blobs:
            return self._answer(200, None)
        found = f"sha256:{hashlib.sha256(self.body).hexdigest()}"
        if found != digest:
            return self._answer(400, {"error": f'digest mismatch, expected "{digest}", got "{found}"'})
        blobs[digest] = self.body
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
        content = state.blobs[digest]
        if not content.startswith(b"GGUF"):
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
        if state.rewrite:
            content += b"rewritten"
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            state.blobs[digest] = content
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
            state.blobs.pop(digest, None)

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
    """Runs in a thread while the `with` block lasts; `url` is where."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.state = State()
        self.lock = threading.RLock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

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
