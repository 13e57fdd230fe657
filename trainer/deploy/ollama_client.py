"""Ollama's REST API, as far as a deployment needs it: retried where that is safe, read to the last line.

Two traps are handled here and nowhere else: an error after the first line of a stream comes with HTTP 200, and a busy
server answers 503 and means "later".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx2

from trainer.errors import TrainerError
from trainer.export.export_records import Progress

DEFAULT_PORT = 11434
OLDEST = (0, 5, 5)
"""First version whose /api/create takes `files` by digest."""
BLOCK = 1 << 20
_ADDRESS = f"give host:port, e.g. 127.0.0.1:{DEFAULT_PORT}"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_BROKEN = (
    httpx2.ConnectError,
    httpx2.ReadError,
    httpx2.WriteError,
    httpx2.RemoteProtocolError,
    httpx2.TimeoutException,
)
T = TypeVar("T")


def server_url(host: str) -> str:
    """What OLLAMA_HOST may hold → a URL that a client can use, read as Ollama reads it.

    `host`, `:port`, `host:port`, a bare or bracketed IPv6 address, a URL with a path, any of them in quotes; a port
    that is none becomes the default one. Addresses that servers listen on (`0.0.0.0`, `::`) become the loopback one.
    """
    scheme, found, rest = host.strip().strip("\"'").strip().partition("://")
    if not found:
        scheme, rest = "http", scheme
    default = {"https": "443"}.get(scheme, "80" if found else str(DEFAULT_PORT))
    address, _, path = rest.partition("/")
    name, separator, port = address.rpartition(":")
    if not separator or address.endswith("]") or (":" in name.strip("[]") and not name.startswith("[")):
        name, port = address, default  # a colon within an IPv6 address parts nothing
    if not port.isdigit() or int(port) > 65535:
        port = default
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(name.strip("[]"), name.strip("[]"))
    path = path.strip("/")
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}{'/' + path if path else ''}"


class OllamaError(TrainerError):
    """The server answered with an error; `status` is its HTTP status, 200 for one in mid-stream."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class OllamaClient:
    """One server.

    Args:
        host: see `server_url`.
        attempts: how often a step is tried where the connection breaks or the server is busy.
        backoff: seconds before the second try; doubled each time.

    Raises:
        TrainerError: the host is no address.
    """

    def __init__(self, host: str, *, attempts: int = 5, backoff: float = 0.5) -> None:
        self.url = server_url(host)
        self._attempts = attempts
        self._backoff = backoff
        try:
            address = httpx2.URL(self.url)
        except httpx2.InvalidURL as error:
            raise TrainerError(f"OLLAMA_HOST or deploy.host {host!r} is no address ({error}); {_ADDRESS}") from None
        if address.scheme not in ("http", "https"):
            raise TrainerError(f"OLLAMA_HOST or deploy.host {host!r} is neither http nor https; {_ADDRESS}")
        loopback = address.host.strip("[]") in _LOOPBACK
        # Creating and loading a model may take minutes between two lines; only connecting has to be quick.
        timeout = httpx2.Timeout(600.0, connect=5.0)
        # certificates take longer to load than a small model to be sent; plain HTTP needs none
        tls = self.url.startswith("https:")
        self._http = httpx2.Client(base_url=self.url, timeout=timeout, trust_env=not loopback, verify=tls)

    def __enter__(self) -> OllamaClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def version(self) -> str:
        """The server's version.

        Raises:
            TrainerError: it does not answer, or is too old.
        """
        found = str(self._json("GET", "/api/version").get("version", ""))
        numbers = tuple(int(part) for part in found.split("-")[0].split(".") if part.isdigit())
        if (0, 0, 0) != numbers < OLDEST:  # 0.0.0 is a build from source
            oldest = ".".join(map(str, OLDEST))
            raise TrainerError(f"Ollama at {self.url} is version {found}; {oldest} or newer is needed: update it")
        return found

    def tags(self) -> dict[str, str]:
        """Model name with tag → digest of its manifest."""
        models = self._json("GET", "/api/tags").get("models") or []
        return {model["name"]: model["digest"] for model in models}

    def upload(self, path: Path, sha256: str, progress: Progress | None = None) -> bool:
        """Brings a file to the server unless it is there already; returns True where bytes were sent.

        A broken connection starts over with the question whether the file has arrived after all.
        """

        def once() -> bool:
            status = self._http.head(f"/api/blobs/sha256:{sha256}").status_code
            if status == 200:
                return False
            if status != 404:
                raise OllamaError(f"Ollama at {self.url} refuses the digest of {path} (HTTP {status})", status)
            total = path.stat().st_size
            response = self._http.post(
                f"/api/blobs/sha256:{sha256}",
                content=_blocks(path, total, progress),
                headers={"Content-Length": str(total), "Content-Type": "application/octet-stream"},
            )
            self._raise_for(response, f"upload of {path}")
            return True

        return self._retried(once, f"upload of {path}")

    def create(self, request: dict[str, Any]) -> None:
        """Creates a model and reads every line of the answer; only `success` is success."""
        what = f"create {request['model']}"

        def once() -> None:
            with self._http.stream("POST", "/api/create", json={**request, "stream": True}) as response:
                if response.status_code != 200:
                    response.read()
                    self._raise_for(response, what)
                status = ""
                for line in response.iter_lines():
                    if not line.strip():
                        continue
                    answer = _object(line)
                    if "error" in answer:
                        raise OllamaError(self._explain(what, str(answer["error"])), 200)
                    status = str(answer.get("status", status))
            if status != "success":
                raise httpx2.RemoteProtocolError(f"the answer ended with {status!r} and without success")

        self._retried(once, what)

    def generate(self, model: str, prompt: str, *, max_tokens: int) -> str:
        """Greedy raw completion: the server applies no template of its own."""
        options = {"temperature": 0, "num_predict": max_tokens}
        request = {"model": model, "prompt": prompt, "raw": True, "stream": False, "options": options}
        return str(self._json("POST", "/api/generate", request).get("response", ""))

    def copy(self, source: str, destination: str) -> None:
        """Gives a model a second name."""
        self._json("POST", "/api/copy", {"source": source, "destination": destination})

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        what = f"{method} {path}"

        def once() -> dict[str, Any]:
            response = self._http.request(method, path, json=body)
            self._raise_for(response, what)
            return _object(response.text) if response.content else {}

        return self._retried(once, what)

    def _retried(self, action: Callable[[], T], what: str) -> T:
        delay = self._backoff
        for attempt in range(1, self._attempts + 1):
            try:
                return action()
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = TrainerError(
                    f"Ollama does not answer at {self.url} ({error}); start it with `ollama serve`, or set OLLAMA_HOST"
                )
            except _BROKEN as error:
                failure = TrainerError(f"{what}: the connection to {self.url} broke: {error or type(error).__name__}")
            except OllamaError as error:
                if error.status != 503:
                    raise
                failure = error
            if attempt < self._attempts:
                time.sleep(delay)
                delay *= 2
        raise failure from None

    def _raise_for(self, response: httpx2.Response, what: str) -> None:
        if response.status_code < 400:
            return
        try:
            reason = str(_object(response.text).get("error", response.text))
        except TrainerError:
            reason = response.text.strip().split("\n")[0][:200]
        raise OllamaError(self._explain(what, f"HTTP {response.status_code}: {reason}"), response.status_code)

    def _explain(self, what: str, reason: str) -> str:
        """The server's words and what to do about them."""
        advice = ""
        lower = reason.lower()
        if "no space left" in lower:
            advice = "; free disk space where Ollama keeps its models (OLLAMA_MODELS)"
        elif "digest mismatch" in lower:
            advice = "; the file changed while it was read: run the doctor on it and deploy again"
        elif "not in gguf format" in lower or "unknown type" in lower:
            advice = "; run `claude-trainer doctor` on the file"
        elif "quantization" in lower:
            advice = "; this Ollama does not know the type: update it, or export another export.quantization"
        elif "503" in reason:
            advice = "; the server is busy: try again later"
        return f"Ollama at {self.url}, {what}: {reason}{advice}"


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise TrainerError(f"not an answer of Ollama: {text[:80]!r}; is another program at this address?") from None
    return value if isinstance(value, dict) else {"value": value}


def _blocks(path: Path, total: int, progress: Progress | None) -> Iterator[bytes]:
    done = 0
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block
            done += len(block)
            if progress is not None:
                progress("uploading", done, total)
