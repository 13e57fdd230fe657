"""`claude-trainer models`: what is registered, which model is current, and the ways to change that."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from trainer.export.registry import Registry


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML config that names models."),
        click.option("--models", type=click.Path(path_type=Path), help="Folder of models; default: config.models."),
    ):
        command = option(command)
    return command


def _registry(models: Path | None, config_path: Path | None) -> Registry:
    from trainer.config import load_config
    from trainer.export.registry import Registry

    return Registry(models or Path(load_config(config_path).models))


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(table: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(table)


@click.group()
def models() -> None:
    """The registry: list, show, compare, promote, rollback, gc."""


@models.command("list")
@_options
def list_models(models: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Every model, oldest first; * marks the current one."""
    registry = _registry(models, config_path)
    found = registry.read()
    if as_json:
        click.echo(found.model_dump_json(indent=1))
        return
    if not found.models:
        click.echo(f"{registry.path}: no models yet; `claude-trainer export` registers them")
        return
    table = _table("", "model", "parent", "gate", "doctor", "bytes", "sha256", "exported")
    for entry in found.models:
        file = entry.quantized
        table.add_row(
            "*" if entry.name == found.current else "",
            entry.name,
            entry.parent or "-",
            "not gated" if entry.gate is None else entry.gate.verdict,
            "healthy" if entry.doctor.healthy else "unfit",
            "removed" if entry.collected_at else f"{file.bytes:,}",
            file.sha256[:12],
            entry.created_at[:16].replace("T", " "),
        )
    _print(table)


@models.command()
@click.argument("name")
@_options
def show(name: str, models: Path | None, config_path: Path | None, as_json: bool) -> None:
    """One model: its card and what happened to it."""
    from trainer.export.model_card import model_card

    registry = _registry(models, config_path)
    entry = registry.get(name)
    if as_json:
        click.echo(entry.model_dump_json(indent=1))
        return
    click.echo(model_card(entry).split("---\n", 2)[2].strip())
    click.echo("\n## History\n")
    for event in registry.read().history:
        if event.model == name:
            click.echo(f"- {event.at} {event.action}{f' (forced: {event.note})' if event.note else ''}")


@models.command()
@click.argument("names", nargs=-1, required=True)
@_options
def compare(names: tuple[str, ...], models: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Two or more models side by side; with one NAME, beside the current model."""
    from trainer.errors import TrainerError
    from trainer.export.comparison import compare as side_by_side

    registry = _registry(models, config_path)
    current = registry.read().current
    if len(names) == 1:
        if current is None or current == names[0]:
            raise TrainerError(f"{registry.path}: nothing to compare {names[0]} with; name two models")
        names = (current, *names)
    rows = side_by_side([registry.get(name) for name in names])
    if as_json:
        click.echo(
            json.dumps(
                [{"section": r.section, "name": r.name, **dict(zip(names, r.values, strict=True))} for r in rows]
            )
        )
        return
    table = _table("", *names)
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            table.add_row(f"[bold]{section}[/bold]")
        table.add_row(f"  {row.name}", *(value or "-" for value in row.values))
    _print(table)


@models.command()
@click.argument("name")
@click.option("--force", default="", metavar="REASON", help="Promote although gate or doctor did not pass; kept.")
@_options
def promote(name: str, force: str, models: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Make NAME the current model; its gate and doctor must have passed, its files be as they were."""
    entry = _registry(models, config_path).promote(name, force=force)
    click.echo(json.dumps({"current": entry.name}) if as_json else f"{entry.name} is current")


@models.command()
@_options
def rollback(models: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Make the model current that was current before the latest promotion."""
    entry = _registry(models, config_path).rollback()
    click.echo(json.dumps({"current": entry.name}) if as_json else f"{entry.name} is current again")


@models.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@_options
def gc(dry_run: bool, models: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Remove all that belongs to models that are neither current, previous, a parent of these, nor the newest."""
    registry = _registry(models, config_path)
    gone = registry.gc(dry_run=dry_run)
    total = sum(row.bytes for row in gone)
    kept = registry.kept()
    if as_json:
        rows = [row.model_dump() for row in gone]
        click.echo(json.dumps({"dry_run": dry_run, "removed": rows, "bytes": total, "kept": kept}))
        return
    for row in gone:
        click.echo(f"{row.model}: {row.bytes:,} bytes")
        for file, size in row.files.items():
            click.echo(f"  {file}  {size:,}")
    for name, why in kept.items():
        click.echo(f"kept: {name} ({why})")
    click.echo(f"{total:,} bytes {'would be freed' if dry_run else 'freed'}")
