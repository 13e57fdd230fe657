"""Gateway and controller are killed under load again and again: decisions, pins and the rollback test stay whole."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import aiohttp
import pytest
from gateway_requests import CALL, TEACHER_SAYS, question, until
from loopback_servers import SERVE, Asked, Upstream, reply

from trainer.config import RolloutConfig, load_config
from trainer.rollout.controller import open_rollout
from trainer.rollout.rollout_state import LOG
from trainer.rollout.stage_figures import score_path

BAD = "a prompt that the student always fails"
DECIDE = """
import random, sys, time
from pathlib import Path
from trainer.config import load_config
from trainer.errors import TrainerError
from trainer.rollout.controller import Controller, open_rollout
config = load_config(sys.argv[1])
state = open_rollout(Path(sys.argv[2]), config.rollout)
controller = Controller(state, config)
while True:
    try:
        on = state.current().weight > 0
        visit = controller.abort(who="kim") if on else controller.advance(who="kim", force="test")
    except TrainerError as error:
        assert "changed meanwhile" in str(error), error
        continue
    print(visit.id, visit.weight, visit.action, flush=True)
    time.sleep(random.uniform(0, 0.1))
"""


class Load:
    """Clients that ask as fast as they are answered; each has sessions of its own, and one request at a time."""

    def __init__(self) -> None:
        self.sides: dict[str, list[str]] = defaultdict(list)
        self.answered = 0
        self.broken = 0

    async def run(self, url: str, stop: threading.Event, seed: int) -> None:
        async def client(number: int) -> None:
            draw = random.Random(f"{seed} {number}")
            async with aiohttp.ClientSession() as session:
                while not stop.is_set():
                    place = draw.randrange(10 * seed + 10)
                    bad = number == 0 and place % 3 == 0
                    name = f"{number}-{place}{'-bad' if bad else ''}"
                    body = question(messages=[{"role": "user", "content": BAD if bad else "Read it."}])
                    headers = {"x-claude-code-session-id": name}
                    try:
                        async with session.post(f"{url}/v1/messages", json=body, headers=headers) as response:
                            answer = await response.json(content_type=None)
                    except (aiohttp.ClientError, OSError, ValueError):
                        self.broken += 1
                        return
                    self.sides[name].append("student" if answer.get("model") else "teacher")
                    self.answered += 1

        await asyncio.gather(*map(client, range(6)))


def kill_both(folder: Path, kills: int) -> tuple[Load, set[tuple[int, float, str]]]:
    """Starts both, loads them, kills them at random moments; returns what clients and the controller saw."""
    load, draw = Load(), random.Random(7)
    decided: set[tuple[int, float, str]] = set()

    def local(asked: Asked) -> list[bytes]:
        return [reply([CALL | {"name": "Nothing"} if BAD.encode() in asked.body else CALL])]

    with Upstream(lambda _: [TEACHER_SAYS]) as teacher, Upstream(local) as student:
        config = folder / "config.toml"
        config.write_text(
            f'models = "{folder}"\n[rollout]\nweights = [0, 50]\nshadow = false\n'
            f'teacher_url = "{teacher.url}"\nlocal_url = "{student.url}"\n'
        )
        state = folder / "state"
        for number in range(kills):
            serve = subprocess.Popen(
                [*SERVE, "--config", str(config), "--state", str(state)],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            decide = subprocess.Popen(
                [sys.executable, "-c", DECIDE, str(config), str(state)], stdout=subprocess.PIPE, text=True
            )
            assert serve.stdout is not None
            assert decide.stdout is not None
            url = serve.stdout.readline().strip().removeprefix("ANTHROPIC_BASE_URL=")
            first = decide.stdout.readline()
            stop = threading.Event()
            clients = threading.Thread(target=lambda: asyncio.run(load.run(url, stop, number)))  # noqa: B023
            clients.start()
            wanted = load.answered + 10
            until(lambda: load.answered >= wanted, 60)  # noqa: B023
            for process in draw.sample([serve, decide], 2):
                stop.wait(draw.uniform(0.03, 0.4))
                process.send_signal(signal.SIGKILL)
                process.wait()
            stop.set()
            for line in [first, *decide.stdout.read().splitlines(keepends=True)]:
                if line.endswith("\n"):
                    visit, weight, action = line.split()
                    decided.add((int(visit), float(weight), action))
            serve.stdout.close()
            decide.stdout.close()
            clients.join(60)
            assert not clients.is_alive()
    return load, decided


def check(folder: Path, load: Load, decided: set[tuple[int, float, str]]) -> None:
    rollout: RolloutConfig = load_config(folder / "config.toml").rollout
    state = open_rollout(folder / "state", rollout)
    visits = {(visit.id, visit.weight, visit.action) for visit in state.visits()}
    assert decided
    assert decided <= visits, "what was said to be decided is decided"
    log = [json.loads(line) for line in (folder / "state" / LOG).read_bytes().splitlines()]
    assert [line["id"] for line in log] == list(range(1, len(log) + 1)), "each once, none torn"
    assert log == state.decisions()
    assert [(line["to"], line["action"]) for line in log] == [(v.weight, v.action) for v in state.visits()]
    assert load.broken, "the gateway was killed while it worked"
    for name, sides in load.sides.items():
        rescued = name.endswith("-bad")  # answered by the teacher, whosever it is
        assert rescued or sides == sorted(sides), f"{name} came back to the student"
    assert {side for sides in load.sides.values() for side in sides} == {"student", "teacher"}
    assert {visit.action for visit in state.visits()} >= {"start", "force", "abort"}
    for visit in state.visits():
        assert score_path(state, visit, rollout)[-1] == pytest.approx(state.walk(visit.id).score)
    state.close()


def test_three_kills_of_both(tmp_path: Path) -> None:
    check(tmp_path, *kill_both(tmp_path, 3))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_kills_of_both_at_random_moments(tmp_path: Path) -> None:
    check(tmp_path, *kill_both(tmp_path, 50))
