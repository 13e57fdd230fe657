"""FSDP2: each process holds a part of every weight, and layers are put together while they are looked through.

All processes must go through the layers equally often, or they wait for each other for ever. Learning does (see
`rollout_buffer.minibatches`), episodes do not: for those the weights are put together once and stay whole until the
last episode ends. With a generation server nothing is written here and they never have to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shards_weights(accelerator: Accelerator) -> bool:
    """Whether the launcher asked for FSDP."""
    return bool(accelerator.distributed_type == DistributedType.FSDP)


def shard(actor: nn.Module, accelerator: Accelerator) -> None:
    """Splits an actor's weights in place: one unit per decoder layer, one around them for the rest.

    4-bit weights stay whole in each process: their bytes mean nothing in parts. Autocast does the casting, and not
    FSDP, which would round log-probabilities to 16 bits on their way out.
    """
    plugin = accelerator.state.fsdp_plugin
    options = {
        "offload_policy": plugin.cpu_offload,
        "ignored_params": {weight for weight in actor.parameters() if not weight.is_floating_point()},
    }
    for layer in actor.policy.get_base_model().get_decoder().layers:
        fully_shard(layer, reshard_after_forward=True, **options)
    fully_shard(actor, reshard_after_forward=False, **options)


def open_shards(actor: nn.Module, device: Any) -> None:
    """Sends one token through: the first pass must begin at the outermost unit, which then knows the others."""
    one = torch.ones(1, dtype=torch.long, device=device)
    with torch.no_grad():
        actor(torch.zeros(1, 2, dtype=torch.long, device=device), one - 1, one)
    actor.reshard()


@contextmanager
def whole_weights(actor: nn.Module) -> Iterator[None]:
    """Within the block every process holds all weights, and may go through them as often as it likes."""
    units = [module for module in actor.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(unit is not actor, recurse=False)
            unit.reshard()


def whole(value: Tensor) -> Tensor:
    """A weight, put together where the processes hold it in parts; all of them have to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(value: Tensor, weight: Tensor) -> Tensor:
    """This process's part of a whole value, where `weight` is held in parts; all processes have the same value."""
    if not isinstance(weight, DTensor):
        return value
    mesh = weight.device_mesh
    return distribute_tensor(value.to(mesh.device_type), mesh, weight.placements, src_data_rank=None)
