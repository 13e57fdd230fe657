"""`claude-trainer deploy` and `claude-trainer rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trainer.deploy.ollama_deployer import SmokeTest


def _model_file(model: str | None, models: Path) -> Path:
    """A path as it is; a registered name (None: the current one) after its digest was checked."""
    from trainer.errors import TrainerError
    from trainer.export.registry import Registry

    if model is not None and (model.endswith(".gguf") or Path(model).exists()):
        return Path(model)
    registry = Registry(models)
    name = model or registry.read().current
    if name is None:
        raise TrainerError(f"{registry.path}: no model is current; name a GGUF file or a registered model")
    registry.verify(name)
    return models / registry.get(name).quantized.path


def _smoke_test(dataset: Path | None) -> SmokeTest | None:
    from trainer.deploy.ollama_deployer import smoke_test_from

    if dataset is None:
        return None
    from trainer.dataset import read_dataset

    return smoke_test_from(read_dataset(dataset))


@click.command()
@click.argument("model", required=False)
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML config; section [deploy].")
@click.option("--models", type=click.Path(path_type=Path), help="Folder of models; default: config.models.")
@click.option(
    "--smoke-from",
    type=click.Path(path_type=Path, exists=True),
    help="bc_dataset.jsonl whose first held-out prompt the model must answer with a tool call.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def deploy(
    model: str | None, config_path: Path | None, models: Path | None, smoke_from: Path | None, as_json: bool
) -> None:
    """Put MODEL (a GGUF file or a registered name; default: the current model) into Ollama."""
    from trainer.config import load_config
    from trainer.deploy.ollama_deployer import deploy as run
    from trainer.export.command import progress_bar

    config = load_config(config_path)
    file = _model_file(model, models or Path(config.models))
    with progress_bar() as progress:
        report = run(file, config.deploy, smoke=_smoke_test(smoke_from), progress=progress)
    if as_json:
        click.echo(report.model_dump_json(indent=1))
        return
    click.echo(f"{report.latest} is now {report.tag} at {report.server} (Ollama {report.version})")
    click.echo(f"smoke test: called {', '.join(report.calls)}; num_ctx {report.num_ctx}; {report.seconds} s")
    if report.previous and report.previous != report.tag:
        click.echo(f"before: {report.previous}; return to it with `claude-trainer rollback`")


@click.command()
@click.option("--to", help="Tag to return to; default: what latest was before.")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML config; section [deploy].")
@click.option("--models", type=click.Path(path_type=Path), help="Folder of models; default: config.models.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def rollback(to: str | None, config_path: Path | None, models: Path | None, as_json: bool) -> None:
    """Return Ollama's latest to an earlier version."""
    from trainer.config import load_config
    from trainer.deploy.ollama_deployer import rollback as run

    config = load_config(config_path)
    report = run(config.deploy, models or Path(config.models), to=to)
    if as_json:
        click.echo(report.model_dump_json(indent=1))
        return
    click.echo(f"{report.latest} is {report.tag} again at {report.server} (was {report.previous or 'unknown'})")
