"""`claude-trainer demo`."""

from __future__ import annotations

import click


@click.command()
@click.option("--config", "config_path", type=click.Path(), default="configs/tiny.toml", show_default=True)
@click.option("--folder", type=click.Path(), default="runs/demo", show_default=True, help="Where everything goes.")
@click.option(
    "--live",
    is_flag=True,
    help="Instead: put the student of an earlier run into the real Claude Code (from npm), through the gateway.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def demo(config_path: str, folder: str, live: bool, as_json: bool) -> None:
    """Record a generated world, train on it, export, and ask the model a question it has never seen."""
    import json
    from pathlib import Path

    from trainer.config import load_config
    from trainer.demo.demo import run_demo
    from trainer.terminal import Stages

    stages = Stages()
    if live:
        from trainer.demo.live_loop import run_live

        summary = run_live(Path(folder), stages)
        click.echo(json.dumps(summary) if as_json else f"summary: {Path(folder) / 'live' / 'summary.json'}")
        return
    summary = run_demo(load_config(config_path), Path(folder), stages)
    if as_json:
        click.echo(json.dumps(summary))
        return
    stages.console.print(stages.table())
    click.echo(f"gate: {summary['gate']['verdict']}")
    for reason in summary["gate"]["reasons"]:
        click.echo(f"  {reason}")
    click.echo(f"report: {Path(folder) / 'report.html'}")
    click.echo(f"go on with it: claude-trainer gate --config {Path(folder) / 'config.toml'}")
