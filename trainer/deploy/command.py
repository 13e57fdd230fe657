"""`claude-trainer deploy` and `claude-trainer rollback`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trainer.deploy.ollama_deployer import SmokeTest
    from trainer.deploy.other_servers import ServerFiles


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
    "--target",
    type=click.Choice(["ollama", "llama-server", "vllm"]),
    default="ollama",
    show_default=True,
    help="For the other two: writes what they need and prints the command.",
)
@click.option("--force", default="", metavar="REASON", help="Deploy although gate or doctor did not pass; kept.")
@click.option(
    "--smoke-from",
    type=click.Path(path_type=Path, exists=True),
    help="bc_dataset.jsonl whose first held-out prompt the model must answer with a tool call.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def deploy(
    model: str | None,
    config_path: Path | None,
    models: Path | None,
    target: str,
    force: str,
    smoke_from: Path | None,
    as_json: bool,
) -> None:
    """Put MODEL (a GGUF file or a registered name; default: the current model) into Ollama, or ready another server."""
    from trainer.config import load_config
    from trainer.deploy.admission import admit
    from trainer.deploy.ollama_deployer import deploy as run
    from trainer.export.command import progress_bar

    config = load_config(config_path)
    candidate = admit(model, models or Path(config.models), force=force)
    with progress_bar() as progress:
        if target != "ollama":
            from trainer.deploy.other_servers import for_llama_server, for_vllm

            ready = {"llama-server": for_llama_server, "vllm": for_vllm}[target]
            _print_files(ready(candidate, config.deploy, progress), as_json)
            return
        report = run(candidate, config.deploy, smoke=_smoke_test(smoke_from), progress=progress)
    if as_json:
        click.echo(report.model_dump_json(indent=1))
        return
    click.echo(f"{report.latest} is now {report.tag} at {report.server} (Ollama {report.version})")
    click.echo(f"smoke test: called {', '.join(report.calls)}; num_ctx {report.num_ctx}; {report.seconds} s")
    if report.previous and report.previous != report.tag:
        click.echo(f"before: {report.previous}; return to it with `claude-trainer rollback`")


def _print_files(files: ServerFiles, as_json: bool) -> None:
    if as_json:
        click.echo(files.model_dump_json(indent=1))
        return
    click.echo(files.line)
    unit = Path(files.unit)
    click.echo(f"# it will listen at {files.url}; as a service of your own:", err=True)
    click.echo(
        f"# systemctl --user link {shlex.quote(str(unit))} && systemctl --user enable --now {unit.name}", err=True
    )


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
