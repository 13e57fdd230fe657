"""One turn of the student: the request as it was trained to read it, its whole reply, checked, as the client wants it.

The local server (`claude-trainer serve`, llama-server, Ollama) speaks the Messages API. No header of the client's is
sent there. The reply is read to its end before anything is decided: after the first byte no other could answer.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import orjson

from claude_capture.message_values import is_student
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.export.student_prompt import KEY, StudentPrompt
from trainer.rollout.reply_check import fault
from trainer.rollout.served_model import ServedModel, names_another
from trainer.rollout.student_view import STRICT_HEADER, client_reply, current_turn, project_root, student_request
from trainer.rollout.upstreams import Upstream

if TYPE_CHECKING:
    from trainer.export.registry import Registry

MAX_REPLY = 8 * 1024 * 1024
"""Longest reply, in bytes."""
_CONTEXT_FULL = (b"exceed_context_size_error", b"prompt is too long")  # llama-server, `claude-trainer serve`
_MALFORMED_CALL = b"malformed tool call"
_HEADERS = {"content-type": "application/json", "anthropic-version": "2023-06-01", STRICT_HEADER: "1"}


class Fallback(Exception):
    """The student cannot answer this request; its text is the reason that is counted."""


class Student(NamedTuple):
    """Who the student is."""

    model: str
    """Its name at the local server."""
    version: str
    """What replies and traces name; always recognised as a student's name."""
    prompt: StudentPrompt
    digests: frozenset[str] = frozenset()
    """First 12 digits of the SHA-256 of its files; none where no registry knows it."""


class LocalStudent:
    """The way to the student.

    Args:
        seconds: longest wait for a complete reply.
        repeats: see `reply_check.fault`.
    """

    def __init__(
        self, student: Student, server: Upstream, client: aiohttp.ClientSession, *, seconds: float, repeats: int
    ) -> None:
        self._student = student
        self._server = server
        self._client = client
        self._seconds = seconds
        self._repeats = repeats
        self.served = ServedModel(server, client, student.model, student.version, student.digests)

    async def turn(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The message for the client.

        Args:
            asked: a Messages request of the client that offers tools.

        Raises:
            Fallback: for every reason not to release one.
        """
        student = self._student
        try:
            outgoing, root = await asyncio.to_thread(
                lambda: (student_request(asked, student.prompt, student.model), project_root(asked))
            )
        except (TypeError, AttributeError, KeyError):
            raise Fallback("unreadable_request") from None
        if not outgoing["messages"]:
            raise Fallback("unreadable_request")
        if not outgoing["tools"]:
            raise Fallback("no_tools")
        if await self.served.is_another():
            raise Fallback("wrong_model")
        reply = await self._ask(outgoing)
        answered: Any = reply.get("model") if isinstance(reply, dict) else None
        if names_another(answered, student.version):
            raise Fallback("wrong_model")
        turn = current_turn(outgoing["messages"])[1]
        if reason := fault(reply, asked["tools"], turn, self._repeats):
            raise Fallback(reason)
        exact = isinstance(answered, str) and is_student(answered) and answered != student.model
        return client_reply(reply, root, answered if exact else student.version)

    async def _ask(self, outgoing: dict[str, Any]) -> Any:
        """The parsed reply of the local server."""
        data = bytearray()
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._client.post(
                    self._server.at("/v1/messages"),
                    data=orjson.dumps(outgoing),
                    headers=_HEADERS,
                    allow_redirects=False,
                    proxy=self._server.proxy,
                ) as response,
            ):
                async for chunk in response.content.iter_any():
                    data += chunk
                    if len(data) > MAX_REPLY:
                        raise Fallback("endless_reply")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise Fallback("unreachable") from None
        except TimeoutError:
            raise Fallback("timeout") from None
        except (aiohttp.ClientError, OSError):
            raise Fallback("reset") from None
        except TypeError:  # half of a surrogate pair is no Unicode
            raise Fallback("unreadable_request") from None
        if response.status != 200:
            if response.status == 400 and any(text in data for text in _CONTEXT_FULL):
                raise Fallback("context_overflow")
            raise Fallback("malformed_call" if _MALFORMED_CALL in data else f"http_{response.status}")
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            raise Fallback("malformed_reply") from None


def student_of(config: Config) -> Student:
    """Who the student is, by the config and the registry.

    `rollout.student` names a model of the registry or a GGUF; without it the registry's current model is meant, and
    without a registry nothing is known but the config: then the student is shown all tools that the client offers.

    Raises:
        TrainerError: there is no such model, or its file cannot be read.
    """
    plain = Student(config.deploy.model, _version(config.deploy.model), StudentPrompt(config.dataset))
    registry, name = _chosen(config)
    if not name:
        return plain
    if name.endswith(".gguf"):
        path, entry = Path(name), registry.entry_of(Path(name))
    else:
        entry = registry.get(name)
        path = registry.folder / entry.quantized.path
    digests = frozenset(file.sha256[:12] for file in entry.files) if entry else frozenset[str]()
    named = plain._replace(version=_version(path.stem if name.endswith(".gguf") else name), digests=digests)
    if not path.is_file():
        if config.rollout.student:
            raise TrainerError(f"rollout.student: {path} does not exist; export the model again, or name another")
        return named
    from trainer.export.gguf_file import GgufFile

    stored = GgufFile(path).get(KEY)
    return named._replace(prompt=StudentPrompt.from_json(stored)) if stored else named


def model_of(config: Config) -> str:
    """Name and fingerprint of the model that config and registry mean: another text, another model.

    Raises:
        TrainerError: there is no such model, or the registry cannot be read.
    """
    registry, name = _chosen(config)
    if not name:
        return _version(config.deploy.model)
    if not name.endswith(".gguf"):
        return f"{name} {registry.get(name).quantized.sha256[:12]}"
    path = Path(name)
    if entry := registry.entry_of(path):
        return f"{entry.name} {entry.quantized.sha256[:12]}"
    size = path.stat().st_size if path.is_file() else 0
    return f"{path.stem} {size:,} bytes"


def _chosen(config: Config) -> tuple[Registry, str | None]:
    """The registry, and the name or file of the model that is meant; None: nothing is known but the config."""
    from trainer.export.registry import Registry

    registry = Registry(Path(config.models))
    return registry, config.rollout.student or registry.read().current


def _version(name: str) -> str:
    """A name that every reader of traces recognises as a student's."""
    return name if is_student(name) else f"cc-claude-agent/{name}"
