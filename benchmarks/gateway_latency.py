"""What the gateway costs on the way to the teacher, beside the same upstream asked directly (and LiteLLM's proxy).

    python benchmarks/gateway_latency.py [--requests N] [--peer] [--json]

The real `claude-trainer rollout serve` runs on one core; a scripted Messages API and the clients share the others.
Everything is on loopback; a request is 50 KB, as Claude Code's first one is.
- Added latency: 50 streams at a time, each of eleven events over half a second. From the request's last byte to the
  reply's first event; direct and proxied rounds alternate, and the quantiles of both sides are subtracted.
- Requests per second: 50 connections, short replies, as fast as they are answered.
- CPU milliseconds per request of the proxy's process, which a busy machine does not change much.
- Memory: resident size of the gateway over `--requests` of these, of ever new sessions.
`--peer` installs litellm[proxy] (large) into an environment of its own under ~/.cache/claude-capture/peers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STREAMS = 50
WANTED = {"added_p50_ms": 2.0, "added_p99_ms": 10.0, "requests_per_second": 300.0}
_PEER = "litellm[proxy]"
_HOME = Path.home() / ".cache" / "claude-capture" / "peers" / "litellm-proxy"
_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
_USAGE = {"stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 3}}


def _event(kind: str, **fields: Any) -> bytes:
    data = f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def _parts(events: int) -> list[bytes]:
    """A streamed reply in chunked encoding: the first part as soon as a request is read."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    head += _event("message_start", message=_MESSAGE | _USAGE)
    head += _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    delta = _event("content_block_delta", index=0, delta={"type": "text_delta", "text": "word " * 20})
    end = _event("content_block_stop", index=0)
    end += _event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=_USAGE["usage"])
    return [head, *[delta] * events, end + _event("message_stop") + b"0\r\n\r\n"]


class Scripted(asyncio.Protocol):
    """The upstream: short replies at once, or, where the path says so, events 50 ms apart."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._data = bytearray()

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._data[:end]).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
        if len(self._data) < end + 4 + length:
            return
        del self._data[: end + 4 + length]
        if b"slow=1" in head:
            self._say(_SLOW, 0)
        else:
            self._transport.write(_SHORT)

    def _say(self, parts: list[bytes], place: int) -> None:
        self._transport.write(parts[place])
        if place + 1 < len(parts):
            asyncio.get_running_loop().call_later(0.05, self._say, parts, place + 1)


_SLOW, _SHORT = _parts(10), b"".join(_parts(1))


def _upstream(port: int) -> None:
    """The upstream's process."""

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Scripted, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    asyncio.run(serve())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextmanager
def process(command: list[str], port: int, core: int | None = None, **env: str) -> Iterator[int]:
    """A server of its own process, on one core where asked; gives its process id."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | env) as child:
        try:
            if core is not None:
                os.sched_setaffinity(child.pid, {core})
            _wait_for(port)
            yield child.pid
        finally:
            child.kill()


def _body() -> bytes:
    """A request of the size of Claude Code's first one."""
    tools = [
        {"name": f"Tool{n}", "description": "Does something. " * 100, "input_schema": {"type": "object"}}
        for n in range(18)
    ]
    body = {"model": "claude-x", "max_tokens": 1000, "stream": True, "tools": tools}
    system = [{"type": "text", "text": "You are an agent. " * 400}]
    messages = [{"role": "user", "content": [{"type": "text", "text": "word " * 2000}]}]
    return json.dumps(body | {"system": system, "messages": messages}).encode()


BODY = _body()


def _request(session: str, query: str) -> bytes:
    fields = {
        "host": "127.0.0.1", "accept": "application/json", "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14", "authorization": "Bearer sk-x",
        "content-type": "application/json", "user-agent": "claude-cli/2.1.330", "x-app": "cli",
        "x-claude-code-session-id": session, "x-stainless-lang": "js", "x-stainless-os": "Linux",
        "content-length": str(len(BODY)),
    }  # fmt: skip
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST /v1/messages?{query} HTTP/1.1\r\n{head}\r\n".encode() + BODY


async def load(port: int, query: str, count: int, session: Callable[[int], str], pause: float = 0.0) -> list[float]:
    """Seconds to the first event of each of `count` requests over STREAMS connections."""
    times: list[float] = []
    left = iter(range(count))

    async def client(seed: int) -> None:
        draw = random.Random(seed)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            if pause:
                await asyncio.sleep(draw.uniform(0, pause))
            writer.write(_request(session(number), query))
            began = time.perf_counter()
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readuntil(b"message_start")
            times.append(time.perf_counter() - began)
            await reader.readuntil(b"message_stop")
            await reader.readuntil(b"0\r\n\r\n")
        writer.close()

    await asyncio.gather(*(client(seed) for seed in range(STREAMS)))
    return times


def quantile(times: list[float], share: float) -> float:
    """Of sorted or unsorted times, in milliseconds."""
    return 1000 * statistics.quantiles(times, n=1000, method="inclusive")[round(share * 1000) - 1]


def _session(number: int) -> str:
    return f"session-{number // 20}"


def _memory(pid: int) -> float:
    """Resident megabytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _cpu(pid: int) -> float:
    """Seconds of processor time that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_way(direct: int, port: int, pid: int, rounds: int) -> dict[str, float]:
    """Added latency and throughput of the proxy at `port`, beside the upstream at `direct`."""
    times: dict[int, list[float]] = {direct: [], port: []}
    asyncio.run(load(port, "", 200, _session))
    for _ in range(rounds):
        for one in times:
            times[one] += asyncio.run(load(one, "slow=1", 6 * STREAMS, _session, pause=0.2))
    count = 3000
    began, used = time.perf_counter(), _cpu(pid)
    asyncio.run(load(port, "", count, _session))
    seconds, used = time.perf_counter() - began, _cpu(pid) - used
    found = {"requests_per_second": count / seconds, "cpu_ms_per_request": 1000 * used / count}
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        through, straight = quantile(times[port], share), quantile(times[direct], share)
        found |= {f"direct_{name}_ms": straight, f"{name}_ms": through, f"added_{name}_ms": through - straight}
    return found


def measure_memory(port: int, pid: int, requests: int) -> list[float]:
    """Resident megabytes after each tenth of the requests."""
    sizes = []
    for part in range(10):
        asyncio.run(load(port, "", requests // 10, lambda n, part=part: f"memory-{part}-{n // 20}"))  # type: ignore[misc]
        sizes.append(_memory(pid))
    return sizes


def peer_command(folder: Path, upstream: int, port: int) -> list[str] | None:
    """LiteLLM's proxy before the same upstream; None where it cannot be installed."""
    python = _HOME / "bin" / "python"
    if not (_HOME / "complete").exists():
        venv.create(_HOME, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", _PEER]
        if subprocess.run(install, check=False, capture_output=True, timeout=1200).returncode != 0:
            return None
        (_HOME / "complete").touch()
    config = folder / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: claude-x\n    litellm_params:\n      model: anthropic/claude-x\n"
        f"      api_base: http://127.0.0.1:{upstream}\n      api_key: sk-x\n"
    )
    return [str(_HOME / "bin" / "litellm"), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]


def measure(rounds: int, requests: int, peer: bool) -> dict[str, Any]:
    """All figures."""
    cores = sorted(os.sched_getaffinity(0))
    core = cores[-1] if len(cores) > 1 else None
    if core is not None:
        os.sched_setaffinity(0, set(cores[:-1]))
    direct, port, other = _free_port(), _free_port(), _free_port()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "config.toml"
        config.write_text(
            f'models = "{folder}"\n[rollout]\nweights = [0]\nshadow = false\n'
            f'teacher_url = "http://127.0.0.1:{direct}"\nlocal_url = "http://127.0.0.1:9"\n'
        )
        serve = [sys.executable, "-m", "trainer.cli", "rollout", "serve", "--config", str(config)]
        serve += ["--state", str(folder / "state"), "--port", str(port)]
        with process([sys.executable, __file__, "--upstream", str(direct)], direct):
            with process(serve, port, core) as pid:
                found["gateway"] = measure_way(direct, port, pid, rounds)
                if requests:
                    found["memory_mb"] = measure_memory(port, pid, requests)
            if peer:
                command = peer_command(folder, direct, other)
                if command is None:
                    found["litellm"] = {"failed": "cannot be installed here"}
                else:
                    quiet = {"LITELLM_TELEMETRY": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
                    quiet["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"
                    with process(command, other, core, **quiet) as pid:
                        found["litellm"] = measure_way(direct, other, pid, rounds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of 300 streams on each side")
    parser.add_argument("--requests", type=int, default=20_000, help="requests of the memory run; 0 leaves it out")
    parser.add_argument("--peer", action="store_true", help="LiteLLM's proxy, too")
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.upstream:
        _upstream(options.upstream)
        return
    found = measure(options.rounds, options.requests, options.peer)
    if options.json:
        print(json.dumps(found))
        return
    for name in ("gateway", "litellm"):
        figures = found.get(name)
        if figures and "failed" in figures:
            print(f"{name}: {figures['failed']}")
        elif figures:
            print(f"{name}, {STREAMS} streams at a time, one core")
            for share in ("p50", "p99"):
                added = figures[f"added_{share}_ms"]
                verdict = "PASS" if added < WANTED[f"added_{share}_ms"] else "MISS"
                both = f"{figures[f'{share}_ms']:.2f} ms, direct {figures[f'direct_{share}_ms']:.2f}"
                print(
                    f"  first byte {share}: {both}: {added:+.2f} "
                    f"(wanted below {WANTED[f'added_{share}_ms']:g}) {verdict}"
                )
            rate = figures["requests_per_second"]
            wanted = WANTED["requests_per_second"]
            print(f"  {rate:,.0f} requests/s (wanted {wanted:g}) {'PASS' if rate >= wanted else 'MISS'}")
            print(f"  {figures['cpu_ms_per_request']:.2f} CPU ms per request")
    if sizes := found.get("memory_mb"):
        shown = " ".join(f"{size:.1f}" for size in sizes)
        print(f"gateway, MB resident after each tenth of {options.requests:,} requests: {shown}")
        print(f"  from the second tenth to the last: {sizes[-1] - sizes[1]:+.1f} MB")


if __name__ == "__main__":
    main()
