"""How much the demo's student depends on its seed: base and SFT made anew for each seed, judged on held-out prompts.

    python benchmarks/tiny_seeds.py --seeds 0 1 2
    python benchmarks/tiny_seeds.py --set sft.epochs=3 --json

One seed takes about seven minutes on two quiet threads. The world is recorded once and kept in `--folder`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from trainer.config import Config, load_config
from trainer.demo.demo import prepare_world
from trainer.demo.world import LiveEnvironment, check_answer, headline_episode
from trainer.pipeline import Road
from trainer.ppo.quality_gate import judge
from trainer.student.base_model import load_adapted, load_tokenizer
from trainer.student.episodes import run_episodes
from trainer.student_versions import SFT
from trainer.terminal import Stages


def changed(config: Config, changes: list[str]) -> Config:
    """The config with `section.key=value` changes; values are JSON."""
    values = config.model_dump()
    for change in changes:
        path, value = change.split("=", 1)
        *sections, key = path.split(".")
        place = values
        for section in sections:
            place = place[section]
        if key not in place:
            raise SystemExit(f"--set {change}: no such key")
        place[key] = json.loads(value)
    return Config.model_validate(values)


def headlines_right(base: str, config: Config, adapter: str, workspaces: int) -> int:
    """In how many fresh workspaces the headline question is answered right."""
    episodes = [headline_episode(seed) for seed in range(workspaces)]
    environments = [LiveEnvironment(e.workspace, e.prompt, config.dataset.system_prompt) for e in episodes]
    done = run_episodes(
        load_adapted(base, config.student, adapter),
        load_tokenizer(base),
        environments,
        max_turns=config.ppo.max_turns,
        max_new_tokens=config.ppo.max_new_tokens,
    )
    return sum(
        result.stop == "answer" and check_answer(episode, result.messages[-1]["content"])
        for episode, result in zip(episodes, done, strict=True)
    )


def of_seed(config: Config, folder: Path, seed: int, workspaces: int) -> dict[str, Any]:
    """One seed: base, SFT, held-out scores, gate."""
    stages = Stages()
    world = folder / "world"
    live, _, _ = prepare_world(config, world, stages)
    config = config.model_copy(
        update={
            "student": config.student.model_copy(update={"seed": seed}),
            "data": str(world / "data"),
            "runs": str(folder / "runs"),
        }
    )
    road = Road(config, world / "data", stages, live)
    road.dataset()
    result = road.sft()
    scored = road.heldout(SFT)
    summary = scored.summary
    return {
        "seed": seed,
        "sft_loss": result["loss_last"],
        "sft_steps": result["steps"],
        "sft_seconds": result["seconds"],
        "reward": summary.reward,
        "ci": [summary.ci_low, summary.ci_high],
        "exact": summary.exact_sequences,
        "gate": judge(scored.breakdowns, config.gate).verdict,
        "headline": headlines_right(result["base"], config, result["adapter"], workspaces),
        "workspaces": workspaces,
    }


def main() -> int:
    """Runs the seeds one after the other; 1 where one of them misses the gate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--config", default="configs/tiny.toml")
    parser.add_argument("--folder", type=Path, default=Path("runs/tiny-seeds"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--headlines", type=int, default=10, help="Workspaces for the headline question")
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE", help="Changes of the config")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    config = changed(load_config(options.config), options.set)
    rows = [of_seed(config, options.folder, seed, options.headlines) for seed in options.seeds]
    if options.json:
        print(json.dumps(rows))
    else:
        print("| seed | SFT loss | held-out reward [95 %] | exact | gate | headline | SFT s |")
        print("|---|---|---|---|---|---|---|")
        for row in rows:
            print(
                f"| {row['seed']} | {row['sft_loss']:.4f} | {row['reward']:.3f} [{row['ci'][0]:.3f}, "
                f"{row['ci'][1]:.3f}] | {row['exact']:.0%} | {row['gate']} | {row['headline']} of "
                f"{row['workspaces']} | {row['sft_seconds']:.0f} |"
            )
    return 0 if all(row["gate"] == "PASS" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
