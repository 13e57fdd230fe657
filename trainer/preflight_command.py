"""`claude-trainer preflight`: what a run needs and whether it is here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from trainer.preflight import Preflight

SIGNS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "missing": "[red]✗[/]", "unknown": "[dim]?[/]"}


def preflight_table(result: Preflight) -> Table:
    """One line per check, what to do next under it."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(width=1)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for check in result.checks:
        text = escape(check.found) + (f"\n[dim]→ {escape(check.next)}[/]" if check.next else "")
        table.add_row(SIGNS[check.state], check.name, text)
    return table


@click.command()
@click.option("--config", "config_path", type=click.Path(), help="TOML file; see configs/.")
@click.option("--data", type=click.Path(), help="Data root; holds datasets/bc_dataset.jsonl.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def preflight(config_path: str | None, data: str | None, as_json: bool) -> None:
    """GPU, memory, disk, base, tokens, hours and energy of a run, before it starts. Exit status 1: it cannot run."""
    import json
    import sys

    from rich.console import Console

    from claude_capture.data_root import resolve_data_root
    from trainer.config import load_config
    from trainer.preflight import preflight as look

    config = load_config(config_path)
    result = look(config, resolve_data_root(data or config.data))
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    else:
        Console().print(preflight_table(result))
    if result.missing:
        sys.exit(1)
