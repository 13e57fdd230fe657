"""`claude-trainer runs`: which runs there are, and what made two of them different."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def runs() -> None:
    """Run folders: list, compare."""


@runs.command("list")
@click.option("--runs", "folder", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one object per run.")
def list_runs(folder: Path, as_json: bool) -> None:
    """All runs below a folder, newest last."""
    import json

    from trainer.report.run_comparison import read_runs

    found = read_runs(folder)
    if as_json:
        click.echo(json.dumps([run.facts() for run in found]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("run", "began", "steps", "loss or reward", "state"):
        table.add_column(heading, overflow="fold")
    for run in found:
        facts = run.facts()
        table.add_row(facts["run"], facts["began"], str(facts["steps"] or ""), facts["last"], facts["state"])
    Console().print(table)


@runs.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="HTML page; default: compare.html in the second run.")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def compare(first: Path, second: Path, out: Path | None, as_json: bool) -> None:
    """Two run folders: what differs in their configs, their final figures, their curves over each other."""
    import json

    from trainer.report.run_comparison import compare_runs, comparison_page, read_run

    runs = read_run(first), read_run(second)
    found = compare_runs(*runs)
    page = comparison_page(*runs).write(out or second / "compare.html")
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, key in (("config", "config"), ("versions", "versions"), ("result", "result")):
        for field, (one, other) in found[key].items():
            click.echo(f"{name}  {field}: {one} → {other}")
        if not found[key]:
            click.echo(f"{name}  the same")
    click.echo(f"page: {page}")
