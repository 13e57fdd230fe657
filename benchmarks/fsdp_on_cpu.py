"""A program with FSDP2 on CPU: what accelerate does on GPUs alone, over gloo.

    ACCELERATE_USE_CPU=true accelerate launch --config_file configs/accelerate/fsdp2.yaml \\
        benchmarks/fsdp_on_cpu.py trainer.cli sft --config C

accelerate 1.15 reads the FSDP settings of its launcher on a GPU only; on CPU it falls back to whole copies without a
word. Here it takes them on CPU too. Nothing else is touched: the parts of the weights, their collectives, the optimiser
on them and their checkpoints are PyTorch's.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

_plain = AcceleratorState.__init__


def _with_fsdp(self: Any, *arguments: Any, fsdp_plugin: Any = None, **options: Any) -> None:
    _plain(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP


AcceleratorState.__init__ = _with_fsdp

if __name__ == "__main__":
    module = sys.argv.pop(1)
    sys.argv[0] = module
    runpy.run_module(module, run_name="__main__", alter_sys=True)
