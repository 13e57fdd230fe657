"""SIGKILL at random moments of an export, a quantisation, a merge, a release: is anything broken, does a re-run finish?

    python benchmarks/export_kills.py [--kills N] [--seed S] [--json]

A small random Llama with an adapter is exported, quantised and merged over and over in a process of its own, which is
killed at a random moment; then everything under a final name must be whole, byte for byte what an undisturbed run
makes, and no more may lie beside it than the last run left. The kills are shared evenly between the three. At the end
one run of each must finish and leave nothing but the finished files. Half as many kills more hit releases: two students
take turns under one name, and after each kill the registry, the two GGUF files and the card must be those of one of
them. About two minutes for 50 kills on a quiet machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

QUANTIZED = "m-q4_k_m.gguf"
TASKS = ("export", "quantise", "merge")


def make_model(folder: Path) -> None:
    """A random Llama of 6 million values with a tokenizer of its own, and an adapter on it."""
    import torch
    from export_speed import write_adapter
    from transformers import LlamaConfig, LlamaForCausalLM

    from trainer.student.tiny_llama import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer([Path(__file__).read_text("utf-8")] * 4, 1024)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=2,
        num_attention_heads=8,
        head_dim=64,
        num_key_value_heads=8,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
    )
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    write_adapter(folder / "adapter", folder / "base")


def work(task: str, folder: Path) -> None:
    """One run of a task; its results lie in `folder / "out"`."""
    from trainer.config import ExportConfig
    from trainer.export.atomic_file import partial_file
    from trainer.export.gguf_exporter import export_model
    from trainer.export.lora_merge import write_merged_checkpoint
    from trainer.export.quantization import quantize

    base, adapter, out = folder / "base", folder / "adapter", folder / "out"
    if task == "export":
        export_model(base, adapter, out, "m", ExportConfig(context_length=512))
    elif task == "quantise":
        with partial_file(out / QUANTIZED) as partial:
            quantize(folder / "plain.gguf", partial, "q4_k_m")
    else:
        write_merged_checkpoint(base, adapter, out / "merged", shard_bytes=4 << 20)


def release_turns(folder: Path, turns: Iterable[Path | None]) -> None:
    """Releases one student after the other under the same name."""
    from trainer.config import ExportConfig
    from trainer.export.release import release

    for adapter in turns:
        if release(folder / "base", adapter, folder / "models", "m", ExportConfig(context_length=512)).entry is None:
            raise SystemExit("export_kills: the doctor refused a sound model")


def release_state(models: Path) -> tuple[str, ...]:
    """Digests of the registered files, once they are as registered and the card names them.

    Raises:
        TrainerError: registry, files and card are not of one release.
    """
    from trainer.errors import TrainerError
    from trainer.export.registry import Registry

    entry = Registry(models).verify("m")
    if any(file.sha256 not in (models / "m.md").read_text() for file in entry.files):
        raise TrainerError(f"{models}/m.md: not the card of the registered model")
    return tuple(file.sha256 for file in entry.files)


def kill_releases(folder: Path, kills: int, draw: random.Random) -> dict[str, Any]:
    """Kills releases and looks at what is registered."""
    from trainer.errors import TrainerError

    students = (None, folder / "adapter")
    whole = []
    began = time.monotonic()
    for student in students:
        in_child(lambda student=student: release_turns(folder, [student]))  # type: ignore[misc]
        whole.append(release_state(folder / "models"))
    seconds = (time.monotonic() - began) / len(students)
    broken, seen = [], []
    for number in range(kills):
        endless = itertools.cycle(students if number % 2 else students[::-1])
        in_child(lambda turns=endless: release_turns(folder, turns), draw.uniform(0, 3 * seconds))  # type: ignore[misc]
        try:
            seen.append(release_state(folder / "models"))
        except TrainerError as error:
            broken.append(str(error))
    broken += [f"unknown files: {state}" for state in set(seen) - set(whole)]
    in_child(lambda: release_turns(folder, students[1:]))
    left = [path.name for path in (folder / "models").glob(".*") if path.name != ".registry.lock"]
    return {
        "releases_killed": kills,
        "releases_broken": broken,
        "release_outcomes": [seen.count(state) for state in whole],
        "release_leftovers": left,
        "release_rerun_finishes": release_state(folder / "models") == whole[1],
    }


def finished(out: Path) -> dict[str, str]:
    """Digest of everything under a final name."""
    from trainer.export.export_records import sha256_of

    files = [path for path in out.rglob("*") if path.is_file() and not _leftover(path.relative_to(out))]
    return {str(path.relative_to(out)): sha256_of(path) for path in files}


def _leftover(path: Path) -> bool:
    return path.parts[0].startswith(".")


def in_child(action: Callable[[], None], seconds: float | None = None) -> None:
    """Runs an action in a forked process; kills it after `seconds`, or lets it end."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{error}\n")
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if seconds is None and status != 0:
        raise SystemExit("export_kills: an undisturbed run failed")


def again_and_again(task: str, folder: Path) -> None:
    """Until somebody kills it."""
    while True:
        work(task, folder)


def benchmark(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kills and looks; see the top of this file."""
    out = folder / "out"
    subprocess.run([sys.executable, str(Path(__file__).resolve()), "--make", str(folder)], check=True)
    import torch

    import trainer.export.gguf_exporter
    import trainer.export.lora_merge
    import trainer.export.release  # noqa: F401 - loaded once, before the forks

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    seconds: dict[str, float] = {}
    for task in TASKS:
        began = time.monotonic()
        in_child(lambda task=task: work(task, folder))  # type: ignore[misc]
        seconds[task] = time.monotonic() - began
        if task == "export":
            (folder / "plain.gguf").write_bytes((out / "m.gguf").read_bytes())
    whole = finished(out)
    draw = random.Random(seed)
    broken: list[str] = []
    most = ended_within = 0
    for number in range(kills):
        task = TASKS[number % len(TASKS)]
        in_child(lambda task=task: again_and_again(task, folder), draw.uniform(0, 1.5 * seconds[task]))  # type: ignore[misc]
        found = finished(out)
        broken += [f"{task}: {name}" for name, digest in found.items() if whole.get(name) != digest]
        merged = {name for name in found if name.startswith("merged/")}
        if merged and merged != {name for name in whole if name.startswith("merged/")}:
            broken.append(f"{task}: merged/ lacks files")
        leftovers = [path for path in out.iterdir() if _leftover(path.relative_to(out))]
        most = max(most, len(leftovers))
        ended_within += bool(leftovers)
    for task in TASKS:
        in_child(lambda task=task: work(task, folder))  # type: ignore[misc]
    left = [path.name for path in out.iterdir() if _leftover(path.relative_to(out))]
    releases = kill_releases(folder, kills // 2, draw)
    released = (
        not releases["releases_broken"] and not releases["release_leftovers"] and releases["release_rerun_finishes"]
    )
    return {
        "kills": kills,
        "in_the_middle_of_writing": ended_within,
        "broken": broken,
        "most_leftovers": most,
        "leftovers_after_a_rerun": left,
        "rerun_finishes": finished(out) == whole,
        **releases,
        "met": not broken and not left and most <= 2 and finished(out) == whole and released,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make_model(arguments.make)
        return
    with tempfile.TemporaryDirectory(prefix="export-kills-") as folder:
        found = benchmark(Path(folder), arguments.kills, arguments.seed)
    if arguments.as_json:
        print(json.dumps(found))
    else:
        print(f"{found['kills']} kills, {found['in_the_middle_of_writing']} of them while a file was being written")
        print(f"broken under a final name: {len(found['broken'])}  {', '.join(found['broken'][:5])}")
        print(
            f"most partial files at a time: {found['most_leftovers']}; "
            f"after a re-run: {len(found['leftovers_after_a_rerun'])}"
        )
        print(f"re-run finishes with the same bytes: {'yes' if found['rerun_finishes'] else 'NO'}")
        first, second = found["release_outcomes"]
        print(
            f"{found['releases_killed']} kills of releases: {first} left one student, {second} the other, "
            f"mixed or broken {len(found['releases_broken'])}  {', '.join(found['releases_broken'][:3])}"
        )
        print(f"re-run finishes, nothing is left behind: {'yes' if found['release_rerun_finishes'] else 'NO'}")
    if not found["met"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
