"""What PPO adds to a weak student: mean reward on prompts that no training session resembles, before and after.

    python benchmarks/ppo_gain.py [--seeds N] [--quick] [--folder DIR] [--json]
    python benchmarks/ppo_gain.py --join SEED0.json SEED1.json …     # of --seeds 1 --first-seed N --json

The demo world is recorded once. Per seed an SFT student is trained on it and stopped early, while its learning rate is
still high. PPO goes on from there on the training prompts, in replays of the recorded sessions. Both students then work
on the held-out prompts with real tools in fresh workspaces. The gain is paired by prompt. A part of it is what any
small steps after an interrupted SFT would bring; `claude-trainer baselines` puts PPO beside other ways of learning.

Two intervals: `seeds and prompts` resamples both at once (crossed bootstrap), `seeds` is Student's t over the means of
the seeds, which is what is left when only the seeds count (wide: three of them). KL is the mean over an update's
episodes of Σ log π - log π_SFT, in nats; the highest and the last of the run are shown. Weak students are kept in the
folder and used again; PPO and the tests are always run anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from claude_capture.claude_trace_schema import Trace
from claude_capture.ingest import import_sessions
from trainer.config import Config, load_config
from trainer.demo.world import live_environment, make_episodes, record_sessions, session_id_of
from trainer.pipeline import Road
from trainer.report.statistics import crossed_interval, mean_interval
from trainer.run_folder import RunFolder, content_hash
from trainer.student.episodes import Case

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path.home() / ".cache" / "claude-capture" / "ppo-gain"
SFT_STEPS, TAKEN_AT = 900, 600
"""SFT is set up for so many steps; the weak student is the one of this step, stopped while it still learned fast."""
PPO = {
    "updates": 30,
    "episodes_per_update": 64,
    "episodes_per_prompt": 4,
    "learning_rate": 2e-4,
    "value_warmup": 1,
    "temperature": 0.6,  # at 1 two of three calls of a weak student are errors, greedily one of five
    "kl_coefficient": 0.05,
    "eval_every": 6,
    "eval_prompts": 60,
}
"""What differs from configs/tiny.toml."""
WANTED_GAIN, WANTED_LOW, WANTED_KL, WANTED_SECONDS = 0.25, 0.10, 10.0, 900.0


@dataclass(frozen=True)
class SeedResult:
    """One seed: the weak student, its PPO and both scores. Rewards in [-1, 1], one per held-out prompt."""

    seed: int
    validation: float
    """Mean reward of the weak student on the validation prompts."""
    before: list[float]
    after: list[float]
    components_before: dict[str, float | None]
    components_after: dict[str, float | None]
    kl_highest: float
    kl_last: float
    best_update: int
    seconds: float
    """Of the whole PPO run, its validations included."""

    @property
    def gains(self) -> list[float]:
        """After minus before, prompt by prompt."""
        return [after - before for before, after in zip(self.before, self.after, strict=True)]


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


def prepare(folder: Path, base: str, quick: bool) -> Road:
    """The recorded world, its dataset and the base; made where they are not there yet.

    Args:
        base: `student.base_model`; all seeds start from the same one.
        quick: 40 held-out prompts instead of 100.
    """
    config = with_base(load_config(ROOT / "configs" / "tiny.toml"), base)
    demo = config.demo
    training = make_episodes(demo.train_sessions, False, demo.seed)
    held_out = make_episodes(demo.heldout_sessions, True, demo.seed)
    world = folder / f"world-{content_hash([repr(episode) for episode in (*training, *held_out)])}"
    if not (world / "recorded").exists():
        say("recording the demo world")
        shutil.rmtree(world, ignore_errors=True)
        record_sessions([*training, *held_out], world / "data", world / "claude" / "projects")
        (world / "recorded").touch()
    import_sessions([world / "claude" / "projects"], world / "data")
    known = {session_id_of(episode): episode for episode in held_out[: 40 if quick else None]}

    def live(trace: Trace) -> Any:
        episode = known.get(trace.session_id)
        return episode and partial(live_environment, episode, config.dataset.system_prompt)

    places = {"data": str(world / "data"), "runs": str(folder / "runs")}
    dataset = config.dataset.model_copy(update={"validation_fraction": 0.1})
    config = config.model_copy(update=places | {"dataset": dataset})
    road = Road(config, world / "data", None, live)
    road.dataset()
    road.config = with_base(config, road.make_base())
    return road


def with_base(config: Config, base: str) -> Config:
    """The config with another base."""
    return config.model_copy(update={"student": config.student.model_copy(update={"base_model": base})})


def score(road: Road, adapter: Path, cases: list[Case]) -> Any:
    """A student's greedy episodes on the cases, as `Heldout`."""
    from trainer.ppo.heldout import score_cases
    from trainer.reward.behavioral_reward_model import BehavioralRewardModel
    from trainer.student.base_model import load_adapted, load_tokenizer

    config, base = road.config, road.config.student.base_model
    return score_cases(
        load_adapted(base, config.student, adapter),
        load_tokenizer(base),
        cases,
        BehavioralRewardModel(config.reward),
        config.ppo,
    )


def weak_student(road: Road, config: Config) -> tuple[Path, float]:
    """The student that SFT has made by step TAKEN_AT: its adapter and its mean reward on the validation prompts."""
    from trainer.sft.sft_trainer import train_sft

    weights = Path(config.student.base_model) / "model.safetensors"
    sft = config.sft.model_copy(update={"max_steps": SFT_STEPS, "save_steps": TAKEN_AT})
    config = config.model_copy(update={"sft": sft})
    run = RunFolder(
        config.runs, f"weak-{content_hash(road.dataset_file, weights, config.student.seed, sft, TAKEN_AT)}", config
    )
    if run.result is None:
        train_sft(road.split("train"), config.student.base_model, config, run)
    adapter = run.path / "checkpoints" / f"checkpoint-{TAKEN_AT}"
    return adapter, score(road, adapter, road.cases("validation")).summary.reward


def measure(road: Road, seed: int, ppo: dict[str, Any], quick: bool) -> SeedResult:
    """One seed, from SFT to the scores of both students."""
    from trainer.ppo.ppo_trainer import train_ppo
    from trainer.reward.behavioral_reward_model import BehavioralRewardModel
    from trainer.student.base_model import load_adapted, load_tokenizer

    student = road.config.student.model_copy(update={"seed": seed})
    settings = road.config.ppo.model_copy(update=ppo)
    road.config = config = road.config.model_copy(update={"student": student, "ppo": settings})
    say(f"seed {seed}")
    weak, validation = weak_student(road, config)
    test = road.cases("test")[: 40 if quick else None]
    before = score(road, weak, test)
    say(f"  weak student: held-out reward {before.summary.reward:.3f}")
    shutil.rmtree(Path(config.runs) / f"ppo-seed-{seed}", ignore_errors=True)
    run = RunFolder(config.runs, f"ppo-seed-{seed}", config)

    def progress(update: int, updates: int, metrics: dict[str, Any]) -> None:
        found = f", validation {metrics['validation']['reward']:.3f}" if "validation" in metrics else ""
        say(
            f"  PPO {update}/{updates}: reward {metrics['reward']:.3f}, KL {metrics['kl']:.2f}, "
            f"malformed {metrics['malformed']:.2f}, {metrics['seconds']['update']:.1f} s{found}"
        )

    began = time.perf_counter()
    result = train_ppo(
        load_adapted(student.base_model, student, weak, trainable=True),
        load_tokenizer(student.base_model),
        road.cases("train", settings.mode),
        road.cases("validation"),
        BehavioralRewardModel(config.reward),
        config,
        run,
        progress=progress,
    )
    seconds = time.perf_counter() - began
    after = score(road, result.adapter, test)
    say(f"  kept update {result.best_update}: held-out reward {after.summary.reward:.3f}")
    kl = [row["kl"] for row in run.metrics() if "kl" in row]
    return SeedResult(
        seed=seed,
        validation=validation,
        before=[breakdown.total for breakdown in before.breakdowns],
        after=[breakdown.total for breakdown in after.breakdowns],
        components_before=before.summary.components,
        components_after=after.summary.components,
        kl_highest=max(kl),
        kl_last=kl[-1],
        best_update=result.best_update,
        seconds=seconds,
    )


def report(results: list[SeedResult]) -> dict[str, Any]:
    """All figures as plain values."""
    gains = [result.gains for result in results]
    return {
        "seeds": len(results),
        "prompts": len(gains[0]),
        "gain": float(np.mean(gains)),
        "interval_seeds_and_prompts": list(crossed_interval(gains)[1:3]),
        "interval_seeds": list(mean_interval([float(np.mean(g)) for g in gains], method="t", bounds=(-2.0, 2.0))[1:3]),
        "kl_highest": max(result.kl_highest for result in results),
        "seconds_longest": max(result.seconds for result in results),
        "runs": [asdict(result) for result in results],
    }


def show(found: dict[str, Any]) -> None:
    """The table and the verdicts."""
    print(f"{found['seeds']} seeds, {found['prompts']} held-out prompts each; rewards in [-1, 1]\n")
    heads = ["seed", "validation", "before", "after", "gain", "KL highest", "KL last", "kept", "PPO s"]
    print("".join(f"{head:>11}" for head in heads))
    for run in found["runs"]:
        before, after = np.mean(run["before"]), np.mean(run["after"])
        cells = [
            str(run["seed"]),
            f"{run['validation']:.3f}",
            f"{before:.3f}",
            f"{after:.3f}",
            f"{after - before:+.3f}",
        ]
        cells += [f"{run['kl_highest']:.2f}", f"{run['kl_last']:.2f}", f"{run['best_update']}", f"{run['seconds']:.0f}"]
        print("".join(f"{cell:>11}" for cell in cells))
    print("\ncomponents, mean over seeds   before    after")
    for name in found["runs"][0]["components_before"]:
        means = [
            [run[key][name] for run in found["runs"] if run[key][name] is not None]
            for key in ("components_before", "components_after")
        ]
        print(f"{name:28}" + "".join(f"{np.mean(values):>9.3f}" if values else f"{'–':>9}" for values in means))
    low, high = found["interval_seeds_and_prompts"]
    print(f"\ngain {found['gain']:+.3f} (wanted {WANTED_GAIN:+.2f}) {verdict(found['gain'] >= WANTED_GAIN)}")
    print(
        f"  95 % over seeds and prompts [{low:.3f}, {high:.3f}] (wanted above {WANTED_LOW}) {verdict(low > WANTED_LOW)}"
    )
    low, high = found["interval_seeds"]
    print(
        f"  95 % over seeds alone (t)   [{low:.3f}, {high:.3f}] (wanted above {WANTED_LOW}) {verdict(low > WANTED_LOW)}"
    )
    kl, seconds = found["kl_highest"], found["seconds_longest"]
    print(f"KL at most {kl:.2f} nats per episode (wanted below {WANTED_KL:g}) {verdict(kl < WANTED_KL)}")
    print(
        f"PPO of one seed at most {seconds:.0f} s (wanted below {WANTED_SECONDS:g}) {verdict(seconds < WANTED_SECONDS)}"
    )


def verdict(good: bool) -> str:
    """PASS or MISS."""
    return "PASS" if good else "MISS"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default 3)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="40 held-out prompts, 8 updates: does it run?")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"world, weak students and runs (default {FOLDER})")
    parser.add_argument("--base", default="tiny", help="'tiny' (made where it is not there), or a folder")
    parser.add_argument("--ppo", type=json.loads, default={}, help="other [ppo] settings, as JSON")
    parser.add_argument("--join", type=Path, nargs="+", help="put together what runs of single seeds printed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.join:
        runs = [run for file in options.join for run in json.loads(file.read_bytes())["runs"]]
        found = report([SeedResult(**run) for run in sorted(runs, key=lambda run: int(run["seed"]))])
    else:
        ppo = PPO | ({"updates": 8} if options.quick else {}) | options.ppo
        road = prepare(options.folder, options.base, options.quick)
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        found = report([measure(road, seed, ppo, options.quick) for seed in seeds])
    if options.json:
        print(json.dumps(found))
        return
    show(found)


if __name__ == "__main__":
    main()
