"""What the gateway does for the stages beside its requests: judges them, tidies up, and shows them at /status.

Judging reads all requests of a stage, so it has a thread and a connection of its own, and comes rarely: nothing in a
gate is urgent (what is, the rollback test sees at each request). The page is drawn by a process of its own, because
matplotlib in this one would be memory and a pause for everybody.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from pathlib import Path

from starlette.types import Send

from trainer.config import Config
from trainer.errors import TrainerError
from trainer.rollout.controller import Controller, open_rollout
from trainer.rollout.teacher_proxy import send_error

TICK_SECONDS = 600.0
"""Time between two looks at the gate."""
FRESH_SECONDS = 10.0
"""A page that is younger is shown again."""
_HEAD = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class StageWatch:
    """The controller's clock and its window; for one event loop."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._drawing = asyncio.Lock()
        self._page = b""
        self._drawn = -FRESH_SECONDS

    async def run(self) -> None:
        """Judges the current stage for ever."""
        while True:
            try:
                await asyncio.to_thread(self._tick)
            except (TrainerError, sqlite3.Error, OSError) as error:
                print(f"gateway: the stage was not judged ({error}); next try in {TICK_SECONDS:g} s", file=sys.stderr)
            await asyncio.sleep(TICK_SECONDS)

    def _tick(self) -> None:
        state = open_rollout(self._folder, self._config.rollout)
        try:
            controller = Controller(state, self._config)
            decision = controller.tick()
            controller.tidy()
        finally:
            state.close()
        if decision is not None:
            print(f"gateway: {decision.action}: {decision.why}", file=sys.stderr)

    async def show(self, send: Send) -> None:
        """Sends the page of the rollout."""
        async with self._drawing:
            if time.monotonic() - self._drawn >= FRESH_SECONDS:
                self._page, self._drawn = await self._draw(), time.monotonic()
        if not self._page:
            await send_error(send, 500, "api_error", "gateway: no page; see `claude-trainer rollout status`")
            return
        head = [*_HEAD, (b"content-length", str(len(self._page)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": self._page})

    async def _draw(self) -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "trainer.rollout.status_page", str(self._folder),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            page, _ = await process.communicate(self._config.model_dump_json().encode())
        finally:
            if process.returncode is None:
                process.kill()
        return page if process.returncode == 0 else b""
