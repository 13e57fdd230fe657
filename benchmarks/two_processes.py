"""Do two processes learn what one learns? The loss curves of SFT and PPO, 50 steps each, with the same global batch.

    python benchmarks/two_processes.py [--steps N] [--only ddp|fsdp2] [--stages sft,ppo] [--folder DIR] [--json]

A small world is recorded, a tiny base made, and `claude-trainer sft` and `ppo` are run in one process and in two,
started by `accelerate launch` from configs/accelerate/: DDP, and FSDP2 with its weights in parts, on CPU over gloo.
SFT's curve is the loss per token that the teacher wrote, PPO's the sum of policy and value loss of each update. Printed
is the largest relative difference over all steps, between the curves and between the adapters that came out. accelerate
knows FSDP on GPUs only, hence fsdp_on_cpu.py. Ten minutes on two quiet cores.

PPO learns from tokens that it draws. Sums are rounded otherwise in two processes, and sooner or later a draw falls
between the two: from then on they learn from other episodes, and no curve can tell right from wrong. The learning rate
and temperature here are low so that this does not happen within 50 updates (with 1e-4 and 1 it did after 29, up to
which the curves were 2e-5 apart).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from claude_capture.ingest import import_sessions
from trainer.demo.world import make_episodes, record_sessions

ROOT = Path(__file__).resolve().parent.parent
WANTED = 1e-4
SESSIONS, GLOBAL_BATCH = 24, 4
STUDENT_STEPS = 300
"""SFT of the student that PPO starts from: it must earn something, or there is nothing to learn and nothing differs."""
ENVIRONMENT = {
    **os.environ,
    "ACCELERATE_USE_CPU": "true",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    "PYTHONPATH": str(ROOT),
}
CONFIG = """
data = "{data}"
runs = "{runs}"
[[teachers]]
match = "scripted-teacher-*"
basis = "own work"
[dataset]
max_tokens = 1024
validation_fraction = 0.1
test_fraction = 0.0
[student.tiny]
layers = 2
copy_steps = 20
[sft]
lora_r = 32
lora_alpha = 32
learning_rate = 2e-3
adam_beta2 = 0.98
batch_size = {batch}
max_steps = {sft_steps}
logging_steps = 1
bf16 = false
train_embeddings = true
[ppo]
updates = {steps}
episodes_per_update = 5
minibatch_size = 3
learning_rate = 2e-5
value_warmup = 2
temperature = 0.5
max_turns = 2
max_new_tokens = 40
eval_every = 1000
eval_prompts = 2
target_kl = 1.0
runaway_kl = 1000.0
runaway_length = 100.0
runaway_malformed = 1.0
runaway_gap = 2.0
runaway_patience = 1000
bf16 = false
"""


def run(stage: str, config: Path, engine: str | None) -> None:
    """One run of `claude-trainer`, in this many processes: one, or two of an engine."""
    program = [str(ROOT / "benchmarks" / "fsdp_on_cpu.py")] if engine == "fsdp2" else ["-m"]
    program.append("trainer.cli")
    command = [sys.executable, *program]
    if engine is not None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        file = str(ROOT / "configs" / "accelerate" / f"{engine}.yaml")
        launcher = ["-m", "accelerate.commands.launch", "--config_file", file, "--num_processes", "2"]
        command = [sys.executable, *launcher, "--main_process_port", port, *program]
    done = subprocess.run(
        [*command, stage, "--config", str(config), "--json"], env=ENVIRONMENT, cwd=config.parent, capture_output=True
    )
    if done.returncode:
        sys.exit(f"{stage} on {engine or 'one process'}: {done.stderr.decode()[-3000:]}")
    json.loads(done.stdout)  # the main process alone has spoken


def write_config(folder: Path, data: Path, steps: int, sft_steps: int, batch: int = GLOBAL_BATCH) -> Path:
    """A folder of its own for each engine, so that none goes on with another's run."""
    folder.mkdir(parents=True)
    file = folder / "config.toml"
    file.write_text(CONFIG.format(data=data, runs=folder / "runs", steps=steps, sft_steps=sft_steps, batch=batch))
    return file


def the_run(folder: Path, stage: str) -> Path:
    """The one run folder of a stage."""
    (found,) = (folder / "runs").glob(f"{stage}-*")
    return found


def curve(run_folder: Path) -> list[float]:
    """Loss by step; PPO's first line scores the student that it was given."""
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    if "loss" in rows[0]:
        return [row["loss"] for row in rows]
    return [row.get("policy_loss", 0.0) + row["value_loss"] for row in rows if row["update"]]


def largest_difference(one: list[float], other: list[float]) -> float:
    """Largest |a - b| / |a| over the steps.

    Raises:
        ValueError: the curves are not equally long, or nothing was learned: two zeros are alike whatever happens.
    """
    if not all(one):
        raise ValueError(f"the loss is 0 at step {one.index(0) + 1}: nothing was learned, so nothing can differ")
    return max(abs(a - b) / max(abs(a), abs(b), 1e-9) for a, b in zip(one, other, strict=True))


def adapter_difference(one: Path, other: Path) -> float:
    """Largest norm of the difference of a weight, as a share of its norm."""
    from safetensors.torch import load_file

    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, other))
    return max(float((w - second[n]).norm() / w.norm().clamp(min=1e-12)) for n, w in first.items() if w.any())


def measure(folder: Path, steps: int, engines: list[str], stages: list[str]) -> list[dict[str, Any]]:
    """Runs everything; one row per engine and stage."""
    world = folder / "world"
    record_sessions(make_episodes(SESSIONS, False, 0), world / "data", world / "claude" / "projects")
    import_sessions([world / "claude" / "projects"], world / "data")
    rows = []
    for stage in stages:
        alone, sft_steps = folder / f"one-{stage}", steps if stage == "sft" else STUDENT_STEPS
        config = write_config(alone, world / "data", steps, sft_steps)
        run("sft", config, None)
        if stage == "ppo":
            run("ppo", config, None)
        for engine in engines:
            mine = folder / f"{engine}-{stage}"
            batch = GLOBAL_BATCH // 2 if stage == "sft" else GLOBAL_BATCH
            shared = write_config(mine, world / "data", steps, sft_steps, batch)
            if stage == "ppo":  # from the same student
                shutil.copytree(the_run(alone, "sft"), mine / "runs" / the_run(alone, "sft").name)
            run(stage, shared, engine)
            one, two = the_run(alone, stage), the_run(mine, stage)
            rows.append(
                {
                    "engine": engine,
                    "stage": stage,
                    "steps": len(curve(one)),
                    "loss_first": curve(one)[0],
                    "loss_last": curve(one)[-1],
                    "largest_difference": largest_difference(curve(one), curve(two)),
                    "adapter_difference": adapter_difference(one, two),
                }
            )
    return rows


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=50, help="steps of SFT and updates of PPO")
    parser.add_argument("--only", choices=["ddp", "fsdp2"], help="one engine; default both")
    parser.add_argument("--stages", default="sft,ppo", help="sft, ppo or both")
    parser.add_argument("--folder", type=Path, help="where runs are left to be looked at; default: nowhere")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    engines = [asked.only] if asked.only else ["ddp", "fsdp2"]
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(asked.folder or Path(scratch), asked.steps, engines, asked.stages.split(","))
    if asked.json:
        print(json.dumps(rows))
        return
    print(f"{'engine':8}{'stage':7}{'steps':>6}{'loss':>20}{'largest difference':>22}{'of the adapter':>18}")
    for row in rows:
        verdict = "PASS" if row["largest_difference"] <= WANTED else "MISS"
        loss = f"{row['loss_first']:.4f} → {row['loss_last']:.4f}"
        figures = f"{row['largest_difference']:>15.1e} {verdict:>6}{row['adapter_difference']:>18.1e}"
        print(f"{row['engine']:8}{row['stage']:7}{row['steps']:>6}{loss:>20}{figures}")


if __name__ == "__main__":
    main()
