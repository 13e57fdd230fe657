"""Ray does what processes of this machine do, to the byte: a local cluster with two workers."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from test_dataset_scale import CONFIG, built, write_traces

from trainer.config import Config, EngineConfig, with_engine
from trainer.dataset.chunk_tasks import run_tasks
from trainer.errors import TrainerError
from trainer.reward.behavioral_reward_model import BehavioralRewardModel

HERE = Path(sys.executable).parent
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `ray`)")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of two workers on this machine; it and nothing else is ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"--head --block --num-cpus 2 --node-ip-address 127.0.0.1 --port {port} --include-dashboard false"
    head = subprocess.Popen(
        [HERE / "ray", "start", *options.split(), "--disable-usage-stats"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert head.stdout is not None
    try:
        said = list(takewhile(lambda line: "Ray runtime started" not in line, head.stdout))
        assert head.poll() is None, said
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)
            head.stdout.close()


def on(address: str, config: Config = CONFIG) -> Config:
    return config.model_copy(update={"engine": EngineConfig(name="ray", ray_address=address)})


@needs_ray
@pytest.mark.slow
def test_dataset_of_a_cluster_is_the_same_to_the_byte(cluster: str, tmp_path: Path) -> None:
    source = write_traces(tmp_path / "traces.jsonl")
    _, here = built(tmp_path / "here", source, workers=1, chunk_bytes=4096)
    done: list[int] = []
    _, there = built(
        tmp_path / "there",
        source,
        on(cluster),
        workers=2,
        chunk_bytes=4096,
        progress=lambda name, count, total: done.append(count),
    )
    assert here == there
    assert max(done) > 2  # several chunks


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_results_come_in_the_order_of_the_items(cluster: str, count: int) -> None:
    assert run_tasks(str, range(count), 2, engine=on(cluster).engine) == [str(number) for number in range(count)]


@needs_ray
@pytest.mark.slow
def test_scores_of_a_cluster_are_the_same(cluster: str) -> None:
    from dataset_traces import transformer_trace

    model = BehavioralRewardModel()
    pairs = [(transformer_trace(n + 5), [transformer_trace(n)]) for n in range(12)]
    there = model.score_many(pairs, workers=2, engine=EngineConfig(name="ray", ray_address=cluster))
    assert there == model.score_many(pairs)


@needs_ray
@pytest.mark.slow
def test_error_of_a_task_is_the_tasks_own(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text("{}\n")
    with pytest.raises(TrainerError, match="no") as here:
        built(tmp_path / "here", tmp_path / "traces.jsonl")
    with pytest.raises(TrainerError, match="no") as there:
        built(tmp_path / "there", tmp_path / "traces.jsonl", on(cluster))
    assert str(here.value) == str(there.value)
    with pytest.raises(ZeroDivisionError):
        run_tasks((1).__floordiv__, [0], 2, engine=on(cluster).engine)


@needs_ray
def test_no_cluster_is_one_line() -> None:
    with pytest.raises(TrainerError, match=r"^no Ray cluster answers at 127\.0\.0\.1:9 \(.*`ray start --head`"):
        run_tasks(str, [1, 2], 2, engine=EngineConfig(name="ray", ray_address="127.0.0.1:9"))


def test_ray_without_an_address_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(TrainerError, match=r"set \[engine\] ray_address"):
        run_tasks(str, [1, 2], 2, engine=EngineConfig(name="ray"))


def test_ray_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TrainerError, match=r"pip install 'claude-capture\[ray\]'"):
        run_tasks(str, [1, 2], 2, engine=EngineConfig(name="ray", ray_address="auto"))


def test_option_takes_the_place_of_the_configs_engine() -> None:
    config = Config(engine=EngineConfig(ray_address="head:6379"))
    assert with_engine(config, "ray").engine == EngineConfig(name="ray", ray_address="head:6379")
    assert with_engine(config, None) is config
