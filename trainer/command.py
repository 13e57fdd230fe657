"""`claude-trainer train`: dataset → sft → ppo → gate → export on one config."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trainer.pipeline import Road


def look_ahead(road: Road, *, dataset_alone: bool = False) -> None:
    """Prints what the preflight finds.

    Args:
        dataset_alone: only what is known once the dataset was built: tokens, steps, hours, energy.

    Raises:
        TrainerError: something is missing.
    """
    from trainer.errors import TrainerError
    from trainer.preflight import FROM_DATASET, preflight
    from trainer.preflight_command import preflight_table

    result = preflight(road.config, road.data)
    if dataset_alone:
        result.checks = [check for check in result.checks if check.name in FROM_DATASET]
    road.stages.console.print(preflight_table(result))
    if result.missing:
        first = result.missing[0]
        raise TrainerError(f"{first.name}: {first.found}; {first.next}")


@click.command()
@click.option("--config", "config_path", type=click.Path(), help="TOML file; see configs/.")
@click.option("--data", type=click.Path(), help="Data root; default: the config's, else CLAUDE_CAPTURE_DATA.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def train(config_path: str | None, data: str | None, as_json: bool) -> None:
    """dataset → sft → ppo → gate → export. Training that is done is not done again; run it again to go on."""
    import json

    from claude_capture.data_root import resolve_data_root
    from trainer.config import load_config
    from trainer.pipeline import Road, write_summary
    from trainer.terminal import Stages

    config = load_config(config_path)
    road = Road(config, resolve_data_root(data or config.data), Stages())
    if config.student.base_model == "tiny":
        summary = road.train()
    else:
        look_ahead(road)
        summary = road.train(before_training=lambda: look_ahead(road, dataset_alone=True))
    write_summary(road.runs / "summary.json", summary)
    if as_json:
        click.echo(json.dumps(summary))
        return
    road.stages.console.print(road.stages.table())
    click.echo(f"gate: {summary['gate']['verdict']}")
    for reason in summary["gate"]["reasons"]:
        click.echo(f"  {reason}")
    click.echo(f"model: {summary['gguf']['path']}")
    click.echo(f"report: {road.runs / 'report.html'}")
