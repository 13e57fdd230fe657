"""`claude-trainer rollout`: the gateway, and the stages that say how many sessions the student gets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.rollout.rollout_state import RolloutState

_config = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="TOML config; section [rollout]."
)
_state = click.option(
    "--state", "folder", type=click.Path(path_type=Path), help="Folder of the rollout; default: <data root>/rollout."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def rollout() -> None:
    """The gateway and its stages: serve, status, advance, abort."""


@rollout.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; beyond loopback: --token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8094, show_default=True, help="Port; 0: a free one.")
@click.option(
    "--token",
    envvar="CLAUDE_TRAINER_GATEWAY_TOKEN",
    default="",
    help="What clients must send in the header x-claude-trainer-token (ANTHROPIC_CUSTOM_HEADERS).",
)
@click.option(
    "--force",
    default="",
    metavar="REASON",
    help="Serve a stage above 0 % although its model has not passed gate and blind test; kept in the log.",
)
@_config
@_state
def serve(host: str, port: int, token: str, force: str, config_path: Path | None, folder: Path | None) -> None:
    """Run the gateway that Claude Code reaches by ANTHROPIC_BASE_URL."""
    import gc

    import uvicorn

    from trainer.errors import TrainerError
    from trainer.loopback import bind
    from trainer.rollout.controller import Controller
    from trainer.rollout.gateway import Gateway
    from trainer.rollout.patient_protocol import PatientProtocol
    from trainer.rollout.upstreams import is_loopback

    config, state = _open(config_path, folder)
    gateway = Gateway(config, state, token=token)
    with bind(host, port) as listener:
        address, number = listener.getsockname()[:2]
        if not token and not is_loopback(address):
            raise TrainerError(
                f"{host} can be reached by others; give --token (or CLAUDE_TRAINER_GATEWAY_TOKEN), "
                "or listen on 127.0.0.1"
            )
        Controller(state, config).admit(who=_who(), force=force)
        shown = f"[{address}]" if ":" in address else address
        click.echo(f"ANTHROPIC_BASE_URL=http://{shown}:{number}")
        click.echo(
            f"status: http://{shown}:{number}/status\n"
            f"{state.current().weight:g} % of new sessions go to {config.rollout.local_url}, the others to "
            f"{config.rollout.teacher_url}{'; the kill switch is on' if state.killed else ''}",
            err=True,
        )
        settings = uvicorn.Config(
            gateway,
            http=PatientProtocol,
            ws="none",
            lifespan="on",
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
        gc.collect()
        gc.freeze()  # what is loaded by now stays: no pause to look through it again while somebody waits
        uvicorn.Server(settings).run(sockets=[listener])
    state.close()


@rollout.command()
@click.option("--html", type=click.Path(path_type=Path), help="Also write a page with plots to this file.")
@_config
@_state
@_as_json
def status(html: Path | None, config_path: Path | None, folder: Path | None, as_json: bool) -> None:
    """Show the stages, what passed in them, and what the next one waits for."""
    from trainer.rollout.controller import Controller

    config, state = _open(config_path, folder)
    found = Controller(state, config).status()
    if html is not None:
        from trainer.rollout.status_page import status_page

        status_page(state, config).write(html)
    state.close()
    if as_json:
        click.echo(found.model_dump_json(indent=1))
        return
    from trainer.rollout.status_table import show

    show(found)
    if html is not None:
        click.echo(f"page: {html}")


@rollout.command()
@click.option("--force", default="", metavar="REASON", help="Go on although something is missing; kept in the log.")
@click.option("--note", default="", help="Remark; kept in the log.")
@_config
@_state
@_as_json
def advance(force: str, note: str, config_path: Path | None, folder: Path | None, as_json: bool) -> None:
    """Enter the next stage."""
    from trainer.rollout.controller import Controller

    config, state = _open(config_path, folder)
    controller = Controller(state, config)
    visit = controller.advance(who=_who(), force=force, note=note)
    found = controller.status()
    state.close()
    if as_json:
        click.echo(found.model_dump_json(indent=1))
        return
    click.echo(f"stage {visit.weight:g} %{' (forced)' if visit.action == 'force' else ''} from now on")
    if found.kill_switch:
        click.echo("the kill switch is still on: every request goes to the teacher", err=True)


@rollout.command()
@click.option("--note", default="", help="Why; kept in the log.")
@_config
@_state
@_as_json
def abort(note: str, config_path: Path | None, folder: Path | None, as_json: bool) -> None:
    """Give every session back to the teacher, at once, and return to 0 %."""
    from trainer.rollout.controller import Controller

    config, state = _open(config_path, folder)
    controller = Controller(state, config)
    controller.abort(note, who=_who())
    found = controller.status()
    state.close()
    if as_json:
        click.echo(found.model_dump_json(indent=1))
    else:
        click.echo("every session is the teacher's from now on; the stages start again at 0 %")


def _who() -> str:
    """The person at this terminal."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in containers
        return "unknown"


def _open(config_path: Path | None, folder: Path | None) -> tuple[Config, RolloutState]:
    from claude_capture.data_root import resolve_data_root
    from trainer.config import load_config
    from trainer.rollout.controller import open_rollout

    config = load_config(config_path)
    return config, open_rollout(folder or resolve_data_root(config.data) / "rollout", config.rollout)
