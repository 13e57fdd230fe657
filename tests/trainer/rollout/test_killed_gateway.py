"""The gateway is killed under load again and again: no session changes sides, and the state stays whole."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import threading
from pathlib import Path

import aiohttp
import pytest
from gateway_requests import CALL, TEACHER_SAYS, question, until
from loopback_servers import SERVE, Upstream, reply

from trainer.rollout.gateway import DECISIONS
from trainer.rollout.rollout_state import DATABASE


class Load:
    """Clients that ask as fast as they are answered; every answer's side is remembered."""

    def __init__(self) -> None:
        self.sides: dict[str, set[str]] = {}
        self.answered = 0
        self.broken = 0

    async def run(self, url: str, stop: threading.Event, seed: int) -> None:
        draw = random.Random(seed)

        async def client() -> None:
            async with aiohttp.ClientSession() as session:
                while not stop.is_set():
                    name = f"s{draw.randrange(400)}"
                    headers = {"x-claude-code-session-id": name}
                    try:
                        async with session.post(f"{url}/v1/messages", json=question(), headers=headers) as response:
                            answer = await response.json(content_type=None)
                    except (aiohttp.ClientError, OSError, ValueError):
                        self.broken += 1
                        return
                    side = "student" if answer.get("model") else "teacher"
                    self.sides.setdefault(name, set()).add(side)
                    self.answered += 1

        await asyncio.gather(*(client() for _ in range(8)))


def kill_under_load(folder: Path, kills: int) -> Load:
    """Starts the real command, loads it, kills it at a random moment; `kills` times."""
    load = Load()
    draw = random.Random(7)
    with Upstream(lambda _: [TEACHER_SAYS]) as teacher, Upstream(lambda _: [reply([CALL])]) as local:
        config = folder / "config.toml"
        config.write_text(
            f'models = "{folder}"\n[rollout]\nweights = [50]\n'
            f'teacher_url = "{teacher.url}"\nlocal_url = "{local.url}"\n'
        )
        command = [*SERVE, "--config", str(config), "--state", str(folder / "state")]
        for number in range(kills):
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
                assert process.stdout is not None
                url = process.stdout.readline().strip().removeprefix("ANTHROPIC_BASE_URL=")
                stop = threading.Event()
                clients = threading.Thread(target=lambda: asyncio.run(load.run(url, stop, number)))  # noqa: B023
                clients.start()
                wanted = load.answered + 10
                until(lambda: load.answered >= wanted, 60)  # noqa: B023
                stop.wait(draw.uniform(0.05, 0.6))
                process.send_signal(signal.SIGKILL)
                process.wait()
                stop.set()
                clients.join(60)
                assert not clients.is_alive()
    return load


def check(folder: Path, load: Load, kills: int) -> None:
    assert load.sides
    assert load.broken, "the gateway was killed while it worked"
    assert {name: sides for name, sides in load.sides.items() if len(sides) > 1} == {}
    assert {side for sides in load.sides.values() for side in sides} == {"student", "teacher"}
    connection = sqlite3.connect(folder / "state" / DATABASE)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    pins = dict(connection.execute("SELECT session, side FROM pin"))
    connection.close()
    assert {name: sides for name, sides in load.sides.items() if sides != {pins[name]}} == {}
    lines = (folder / "state" / DECISIONS).read_bytes().splitlines()
    whole = [line for line in lines if line.endswith(b"}")]
    assert all(json.loads(line)["session"] in pins for line in whole), "a torn line takes no other with it"
    assert len(lines) - len(whole) <= kills


def test_three_kills(tmp_path: Path) -> None:
    check(tmp_path, kill_under_load(tmp_path, 3), 3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_kills_at_random_moments(tmp_path: Path) -> None:
    check(tmp_path, kill_under_load(tmp_path, 50), 50)
