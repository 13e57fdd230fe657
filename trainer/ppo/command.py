"""`claude-trainer ppo`, `mine` and `gate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trainer.pipeline import Road

STUDENTS = ("untrained", "sft", "ppo")
version_option = click.option(
    "--version", type=click.IntRange(1), help="Version of the ppo student; default: the newest finished one."
)


def _road(config_path: str | None, data: str | None) -> Road:
    from claude_capture.data_root import resolve_data_root
    from trainer.config import load_config
    from trainer.pipeline import Road
    from trainer.terminal import Stages

    config = load_config(config_path)
    return Road(config, resolve_data_root(data or config.data), Stages())


@click.command()
@click.option("--config", "config_path", type=click.Path(), help="TOML file; see configs/.")
@click.option("--data", type=click.Path(), help="Data root; holds datasets/bc_dataset.jsonl.")
@click.option("--version", type=click.IntRange(1), help="Which one to train; default: the one begun, else the newest.")
@click.option(
    "--mined",
    type=click.Path(path_type=Path),
    help="mined.jsonl: the next version practises what `mine` found more often.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def ppo(config_path: str | None, data: str | None, version: int | None, mined: Path | None, as_json: bool) -> None:
    """PPO against the behavioural reward; continues where an earlier run was stopped.

    Version 1 starts from the SFT student, version N from version N-1.
    """
    import json

    from trainer.processes import is_main_process

    road = _road(config_path, data)
    result = road.ppo(version, mined)
    if not is_main_process():
        return
    if as_json:
        click.echo(json.dumps(result))
        return
    scores = ""
    if result["start_score"] is not None:
        scores = f" (validation reward {result['start_score']:.3f} → {result['best_score']:.3f})"
    click.echo(f"{result['student']}: {result['adapter']}, of update {result['best_update']}{scores}")


@click.command()
@click.option("--config", "config_path", type=click.Path(), help="TOML file; see configs/.")
@click.option("--data", type=click.Path(), help="Data root; holds datasets/bc_dataset.jsonl.")
@click.option("--student", type=click.Choice(STUDENTS[1:]), default="sft", show_default=True, help="Whose prompts.")
@version_option
@click.option("--samples", type=click.IntRange(2), help="Episodes per prompt; default: the config's [mining].")
@click.option("--prompts", type=click.IntRange(1), help="Training prompts looked at; default: the config's.")
@click.option("--top", type=click.IntRange(1), help="Prompts that count as chosen; default: the config's.")
@click.option("--json", "as_json", is_flag=True, help="Print the chosen prompts as JSON.")
def mine(
    config_path: str | None,
    data: str | None,
    student: str,
    version: int | None,
    samples: int | None,
    prompts: int | None,
    top: int | None,
    as_json: bool,
) -> None:
    """Find training prompts where the student diverges and could learn; writes mined.jsonl with the reasons."""
    import json

    road = _road(config_path, data)
    chosen_student = road.versions.find(student, version)
    path, found = road.mine(chosen_student, samples=samples, prompts=prompts, top=top)
    chosen = [prompt for prompt in found.prompts if prompt.round == found.round]
    if as_json:
        click.echo(json.dumps([prompt.model_dump(mode="json") for prompt in chosen]))
        return
    for prompt in chosen[:10]:
        click.echo(f"{prompt.priority:.4f}  {prompt.trace_id}  {prompt.why}")
    click.echo(f"{len(chosen)} of {len(found.prompts)} prompts are worth practising: {path}")


@click.command()
@click.option("--config", "config_path", type=click.Path(), help="TOML file; see configs/.")
@click.option("--data", type=click.Path(), help="Data root; holds datasets/bc_dataset.jsonl.")
@click.option("--student", type=click.Choice(STUDENTS), default="ppo", show_default=True, help="Who is judged.")
@version_option
@click.option("--json", "as_json", is_flag=True, help="Print the gate report as JSON.")
@click.pass_context
def gate(
    context: click.Context,
    config_path: str | None,
    data: str | None,
    student: str,
    version: int | None,
    as_json: bool,
) -> None:
    """Judge a student on the held-out prompts; writes gate.json and gate.html. Exit status 1 unless it passes.

    A ppo student is also compared with the version before: the registry's current model, else the SFT student.
    """
    from trainer.ppo.report_pages import next_steps, verdict_sentence

    road = _road(config_path, data)
    judged = road.versions.find(student, version)
    report = road.gate(judged, road.heldout(judged))
    if as_json:
        click.echo(report.model_dump_json())
    else:
        click.echo(verdict_sentence(report))
        for line in (*report.reasons, *next_steps(report)):
            click.echo(f"  {line}")
        click.echo(f"report: {road.runs / 'gate.html'}")
    context.exit(0 if report.passed else 1)
