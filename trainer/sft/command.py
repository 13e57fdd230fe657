"""`claude-trainer sft`."""

from __future__ import annotations

import click


@click.command()
@click.option("--config", "config_path", type=click.Path(), help="TOML file; see configs/.")
@click.option("--data", type=click.Path(), help="Data root; holds datasets/bc_dataset.jsonl.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def sft(config_path: str | None, data: str | None, as_json: bool) -> None:
    """Supervised fine-tuning on the teacher's turns; continues where an earlier run was stopped."""
    import json

    from claude_capture.data_root import resolve_data_root
    from trainer.config import load_config
    from trainer.pipeline import Road
    from trainer.processes import is_main_process
    from trainer.terminal import Stages

    config = load_config(config_path)
    road = Road(config, resolve_data_root(data or config.data), Stages())
    result = road.sft()
    if not is_main_process():
        return
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"adapter: {result['adapter']}")
