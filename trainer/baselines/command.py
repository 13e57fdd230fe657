"""`claude-trainer baselines`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trainer.pipeline import Road
    from trainer.records import BaselineReport


@click.command()
@click.option("--config", "config_path", type=click.Path(), help="TOML file; see configs/.")
@click.option("--data", type=click.Path(), help="Data root; holds datasets/bc_dataset.jsonl.")
@click.option(
    "--students",
    default="untrained,sft,best-of-n,ppo,grpo",
    show_default=True,
    help="Who is compared, separated by commas.",
)
@click.option("--seeds", default="0,1,2", show_default=True, help="Seeds of PPO, GRPO and sampling.")
@click.option("--prompts", type=click.IntRange(1), help="At most so many held-out prompts; default: all.")
@click.option("--samples", type=click.IntRange(2), default=4, show_default=True, help="n of best of n.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def baselines(
    config_path: str | None,
    data: str | None,
    students: str,
    seeds: str,
    prompts: int | None,
    samples: int,
    as_json: bool,
) -> None:
    """Does PPO earn its place? Untrained, SFT, best of n, PPO and TRL's GRPO on the same held-out prompts.

    Needs a finished SFT run. What was scored before is not made again. The table also goes into the road's report.html.
    """
    from claude_capture.data_root import resolve_data_root
    from trainer.config import load_config
    from trainer.pipeline import Road
    from trainer.report.baseline_section import left_out_sentence
    from trainer.terminal import Stages

    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise click.BadParameter(f"{seeds!r} is not a list of whole numbers like 0,1,2", param_hint="--seeds") from None
    config = load_config(config_path)
    road = Road(config, resolve_data_root(data or config.data), Stages())
    wanted = [student.strip() for student in students.split(",")]
    report = _compare(road, wanted, numbers, prompts, samples)
    if as_json:
        click.echo(report.model_dump_json(indent=1))
        return
    for row in report.rows:
        gain = f"  {row.gain.mean:+.3f} [{row.gain.low:+.3f}, {row.gain.high:+.3f}] over sft" if row.gain else ""
        click.echo(f"{row.student:<22} {row.reward:+.3f} [{row.low:+.3f}, {row.high:+.3f}]{gain}")
    click.echo(report.sentence)
    if left_out := left_out_sentence(report):
        click.echo(left_out)
    click.echo(f"report: {road.baselines_folder(prompts, samples) / 'baselines.html'}")


def _compare(
    road: Road, students: Sequence[str], seeds: Sequence[int], prompts: int | None, samples: int
) -> BaselineReport:
    """Lays out what the students have in common, from the road's own stages."""
    from trainer.baselines.baseline_run import Bench, compare_students
    from trainer.reward.behavioral_reward_model import BehavioralRewardModel
    from trainer.run_folder import RunFolder
    from trainer.student_versions import SFT, Student

    first, sft = Student("ppo", 1), road.versions.adapter(SFT)
    assert sft is not None
    test = road.cases("test")
    folder = road.baselines_folder(prompts, samples)
    bench = Bench(
        config=road.config,
        base=road.base(),
        sft=sft,
        train=road.cases("train", road.config.ppo.mode),
        validation=road.cases("validation"),
        test=test[:: max(1, -(-len(test) // prompts))] if prompts else test,
        reward=BehavioralRewardModel(road.config.reward),
        run=RunFolder(folder.parent, folder.name, road.config),
        samples=samples,
        finished_ppo=road.versions.run(first) if road.versions.finished(first) else None,
    )
    with road.stages.stage("baselines") as stage:
        report = compare_students(
            bench, students, seeds, lambda name, done, total, note: stage.progress(done, total, f"{name} {note}")
        )
        stage.went_in, stage.came_out = f"{report.prompts} prompts, {len(report.seeds)} seeds", report.sentence
    return report
