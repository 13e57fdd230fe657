"""Independent tasks on a Ray cluster that is already running.

Every node has this package installed, and sees data and runs at the same paths: tasks are sent, files are not.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from trainer.errors import TrainerError

Item = TypeVar("Item")
Result = TypeVar("Result")


def ray_tasks(task: Callable[[Item], Result], items: Sequence[Item], most: int, address: str) -> Iterator[Result]:
    """Results in the order of the items; Ray carries out a task again whose node was lost.

    Args:
        most: tasks that are handed over at the same time.
        address: `host:port` of the head node, a `ray://` URL, or `auto` for the cluster of this machine.

    Raises:
        TrainerError: no Ray, no cluster, or a worker was lost for good. And whatever the task raises.
    """
    address = address or os.environ.get("RAY_ADDRESS", "")
    if not address:
        raise TrainerError("--engine ray needs the address of a cluster: set [engine] ray_address, or RAY_ADDRESS")
    try:
        import ray
    except ModuleNotFoundError:
        raise TrainerError("--engine ray needs Ray, on every node: pip install 'claude-capture[ray]'") from None
    from ray.exceptions import RayError, RayTaskError

    mine = not ray.is_initialized()
    if mine:
        _connect(ray, address)
    try:
        remote: Any = ray.remote(num_cpus=1, max_retries=3)(_carried_out)
        waiting: list[Any] = []
        handed_over = iter(items)

        def hand_over(count: int) -> None:
            waiting.extend(remote.remote(task, item) for item in islice(handed_over, count))

        hand_over(most)
        while waiting:
            yield ray.get(waiting.pop(0))
            hand_over(1)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        reason = str(error).strip().split("\n")[0]
        raise TrainerError(f"Ray at {address}: a worker was lost ({reason}); run the same command again") from None
    finally:
        if mine:
            ray.shutdown()


def _carried_out(task: Callable[[Item], Result], item: Item) -> Result:
    return task(item)


def _connect(ray: Any, address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and "/" not in host:  # Ray itself tries for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=20).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise TrainerError(
            f"no Ray cluster answers at {address} ({reason}); start one with `ray start --head`, or leave --engine out"
        ) from None
