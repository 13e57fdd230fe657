"""Export of a 1B Llama beside llama.cpp's convert_hf_to_gguf.py: seconds and peak memory of both.

    python benchmarks/export_speed.py [--repeats N] [--layers N] [--type f16|bf16] [--folder DIR] [--json]

The checkpoint is random, has the shapes of Llama 3.2 1B (2.5 GB in bfloat16, 128,256 tokens) and is made on the spot;
both sides turn it into a GGUF, in turn, each in a process of its own. Ours also checks every value, hashes the file and
syncs it to the disk; the converter does none of that. A third row is ours with a LoRA adapter of rank 16 on all linear
layers merged on the way, which has no peer. Needs 8 GB of free disk, and takes about two minutes a repeat.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llama_converter import command, converter_source, peak_megabytes
from random_llama import LLAMA_1B, tensor_shapes, write_llama

NEEDED_BYTES = 8 << 30
TARGET_SPEED, TARGET_MEMORY = 1.0, 1.3
"""Ours may take at most as long as the converter, and 1.3 times its memory."""


def export(checkpoint: Path, output: Path, float_type: str, adapter: Path | None) -> None:
    """The measured process: the plain file of an export, whole and synced under its final name."""
    from trainer.config import ExportConfig
    from trainer.export.atomic_file import partial_file
    from trainer.export.gguf_exporter import write_plain

    config = ExportConfig.model_validate({"float_type": float_type, "context_length": 131_072})
    with partial_file(output) as path:
        write_plain(checkpoint, adapter, path, "random-1b", config)


def write_adapter(folder: Path, base: Path, rank: int = 16) -> Path:
    """Random factors for every linear layer of the checkpoint, in the form that peft saves."""
    import torch
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(1)
    factors = {}
    for name, shape in tensor_shapes(json.loads((base / "config.json").read_text())).items():
        if "_proj" in name:
            key = f"base_model.model.{name.removesuffix('.weight')}"
            factors[f"{key}.lora_A.weight"] = torch.randn(rank, shape[1], generator=draw) * 0.01
            factors[f"{key}.lora_B.weight"] = torch.randn(shape[0], rank, generator=draw) * 0.01
    folder.mkdir()
    save_file(factors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 32, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def measured(arguments: list[str]) -> dict[str, float]:
    """Runs a process that ends with a line of JSON; `wall` is measured from outside, start and imports included."""
    started = time.monotonic()
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments[1]} failed:\n{done.stderr[-2000:]}")
    return {"wall": time.monotonic() - started, "peak_mb": json.loads(done.stdout.splitlines()[-1])["peak_mb"]}


def benchmark(folder: Path, repeats: int, layers: int, float_type: str) -> dict[str, Any]:
    """Makes the checkpoint and measures all three in turn."""
    # In a process of its own: what this one has held counts into the peak of those that it starts.
    subprocess.run([sys.executable, str(Path(__file__).resolve()), "--make", str(folder), str(layers)], check=True)
    base, adapter = folder / "base", folder / "adapter"
    converter_source()
    output = folder / "out.gguf"
    mine = [sys.executable, str(Path(__file__).resolve()), "--export", str(base), str(output), float_type]
    sides = {
        "converter": command("hf", base, output, float_type),
        "ours": mine,
        "ours + LoRA": [*mine, str(adapter)],
    }
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, arguments in sides.items():
            runs[side].append(measured(arguments))
            output.unlink()
    table = {
        side: {
            "seconds": round(statistics.median(run["wall"] for run in found), 1),
            "peak_mb": round(max(run["peak_mb"] for run in found)),
        }
        for side, found in runs.items()
    }
    speed = statistics.median(
        theirs["wall"] / ours["wall"] for theirs, ours in zip(runs["converter"], runs["ours"], strict=True)
    )
    memory = table["ours"]["peak_mb"] / table["converter"]["peak_mb"]
    checkpoint = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    return {
        "type": float_type,
        "repeats": repeats,
        "checkpoint_gb": round(checkpoint / 1e9, 2),
        "sides": table,
        "speed_ratio": round(speed, 2),
        "memory_ratio": round(memory, 2),
        "met": speed >= TARGET_SPEED and memory <= TARGET_MEMORY,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, default=LLAMA_1B["num_hidden_layers"], help="16 make 1.24 billion values")
    parser.add_argument("--type", choices=("f16", "bf16"), default="f16", dest="float_type")
    parser.add_argument("--folder", type=Path, help="where the checkpoint and the files go; default: a temporary one")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--export", nargs="+", metavar="ARGUMENT", help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        folder, layers = arguments.make
        base = write_llama(Path(folder) / "base", "{{ messages }}", num_hidden_layers=int(layers))
        write_adapter(Path(folder) / "adapter", base)
        return
    if arguments.export:
        checkpoint, output, float_type, *adapter = arguments.export
        export(Path(checkpoint), Path(output), float_type, Path(adapter[0]) if adapter else None)
        print(json.dumps({"peak_mb": peak_megabytes()}))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="export-speed-") as scratch:
        free = shutil.disk_usage(scratch).free
        if free < NEEDED_BYTES:
            raise SystemExit(f"export_speed: {scratch} has {free / 1e9:.1f} GB free, 8 GB are needed; give --folder")
        found = benchmark(Path(scratch), arguments.repeats, arguments.layers, arguments.float_type)
    if arguments.as_json:
        print(json.dumps(found))
        return
    print(f"checkpoint of {found['checkpoint_gb']} GB in bf16 → {found['type']} GGUF, median of {found['repeats']}")
    for side, row in found["sides"].items():
        print(f"{side:<12} {row['seconds']:7.1f} s   peak {row['peak_mb']:6,} MB")
    print(f"speed  {found['speed_ratio']:.2f} times the converter's (wanted: {TARGET_SPEED:.1f} or more)")
    print(f"memory {found['memory_ratio']:.2f} of the converter's (wanted: {TARGET_MEMORY:.1f} or less)")
    print("met" if found["met"] else "missed")


if __name__ == "__main__":
    main()
