"""Does the local server serve the model that is meant, or another one? No stage may be judged on a stranger's work.

A registry says which model is current, not which one was started or deployed. The server is believed where it names
another one, and only there:

    Ollama                 GET /api/tags: `deploy` names each file <model>:<first 12 digits of its SHA-256>, for good
    llama-server           GET /props: the path of its file
    claude-trainer serve   GET /v1/models: its name, which each of its replies bears, too
    vLLM                   GET /v1/models: the folder of its model, as `root`
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from trainer.rollout.upstreams import Upstream

CHECK_SECONDS = 60.0
"""Time until a server is asked again; it may have been started anew with another file."""
ANSWER_SECONDS = 3.0
"""Longest wait for its answer; a server that gives none has named nothing."""
_MOST = 4 * 1024 * 1024
_VERSION = re.compile(r"llama-claude-[a-z]+-v\d+")
_DIGEST = re.compile(r"[0-9a-f]{12}")


def names_another(said: object, version: str) -> bool:
    """Whether a name, or the name of a file, is that of another version than this one."""
    one, other = _VERSION.match(str(said)), _VERSION.match(version)
    return one is not None and other is not None and one[0] != other[0]


def is_another_tag(tags: dict[str, str], model: str, digests: frozenset[str]) -> bool:
    """Whether Ollama's `model` is a file that `deploy` has brought there, and none of those that are meant.

    Args:
        tags: name → digest of its manifest, as /api/tags lists them.
        model: name with or without a tag.
        digests: first 12 digits of the SHA-256 of the files that are meant.
    """
    name, _, tag = model.partition(":")
    served = tags.get(f"{name}:{tag or 'latest'}")
    names = [other.removeprefix(f"{name}:") for other, digest in tags.items() if digest == served]
    files = set(filter(_DIGEST.fullmatch, names))
    return bool(files) and digests.isdisjoint(files)


class ServedModel:
    """What one local server says of itself; for one event loop.

    Args:
        model: its name for the student.
        version: who the student is.
        digests: see `is_another_tag`; none: nobody knows the student's files, and the server is not asked.
    """

    def __init__(
        self, server: Upstream, client: aiohttp.ClientSession, model: str, version: str, digests: frozenset[str]
    ) -> None:
        self._server = server
        self._client = client
        self._model = model
        self._version = version
        self._digests = digests
        self._asking = asyncio.Lock()
        self._asked = -CHECK_SECONDS
        self._another = False

    async def is_another(self) -> bool:
        """Whether it said so when it was last asked. Says it once on standard error."""
        async with self._asking:
            if self._digests and time.monotonic() - self._asked >= CHECK_SECONDS:
                before, self._another = self._another, await self._ask()
                self._asked = time.monotonic()
                if self._another and not before:
                    print(
                        f"gateway: {self._server.url} serves another model than {self._version}; the teacher answers "
                        "until it serves that one: see `claude-trainer deploy` and `claude-trainer models promote`",
                        file=sys.stderr,
                    )
        return self._another

    async def _ask(self) -> bool:
        listed = (await self._get("/api/tags")).get("models")
        cards = [card for card in listed if isinstance(card, dict)] if isinstance(listed, list) else []
        tags = {str(card.get("name")): str(card["digest"]) for card in cards if card.get("digest")}
        if tags:  # llama-server has this list, too, without digests
            return is_another_tag(tags, self._model, self._digests)
        said = [(await self._get("/props")).get("model_path")]
        listed = (await self._get("/v1/models")).get("data")
        for card in listed if isinstance(listed, list) else []:
            said += [card.get("id"), card.get("root")] if isinstance(card, dict) else []
        return any(names_another(Path(str(name)).name, self._version) for name in said)

    async def _get(self, target: str) -> dict[str, Any]:
        """What it answers; nothing where it does not, or not with an object."""
        data = bytearray()
        where = self._server.at(target)
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._client.get(where, allow_redirects=False, proxy=self._server.proxy) as response,
            ):
                async for chunk in response.content.iter_any():
                    data += chunk
                    if len(data) > _MOST:
                        return {}
            told = orjson.loads(data)
        except (aiohttp.ClientError, OSError, TimeoutError, orjson.JSONDecodeError):
            return {}
        return told if response.status == 200 and isinstance(told, dict) else {}
