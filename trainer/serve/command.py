"""`claude-trainer serve`: a GGUF behind the Messages API, for Claude Code or for the gateway."""

from __future__ import annotations

from pathlib import Path

import click

MOST_CONTEXT = 16384
"""Context that is taken where none is asked for: the keys and values of more would fill a desktop's memory."""


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; beyond loopback: --token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="Port; 0: a free one.")
@click.option(
    "--context",
    type=click.IntRange(256),
    help=f"Tokens of a conversation, for each slot; default: what the model was made for, at most {MOST_CONTEXT}.",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Conversations kept and worked on at once.",
)
@click.option("--threads", type=click.IntRange(0), default=0, help="Threads of a slot; default: all cores.")
@click.option("--max-output", type=click.IntRange(1), default=4096, show_default=True, help="Most tokens of a reply.")
@click.option("--token", envvar="CLAUDE_TRAINER_SERVE_TOKEN", default="", help="Key that clients must send.")
def serve(
    model: Path, host: str, port: int, context: int | None, slots: int, threads: int, max_output: int, token: str
) -> None:
    """Serve a GGUF of `export` to Claude Code (ANTHROPIC_BASE_URL), without any other program."""
    import ipaddress

    import uvicorn

    from trainer.errors import TrainerError
    from trainer.loopback import bind
    from trainer.rollout.patient_protocol import PatientProtocol
    from trainer.serve.load import open_server

    with bind(host, port) as listener:
        address, number = listener.getsockname()[:2]
        if not token and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            raise TrainerError(
                f"{host} can be reached by others; give --token (or CLAUDE_TRAINER_SERVE_TOKEN), or listen on 127.0.0.1"
            )
        with open_server(
            model,
            context=context,
            most_context=MOST_CONTEXT,
            slots=slots,
            threads=threads,
            max_output=max_output,
            token=token,
        ) as opened:
            shown = f"[{address}]" if ":" in address else address
            click.echo(f"ANTHROPIC_BASE_URL=http://{shown}:{number}")
            click.echo(opened.description, err=True)
            settings = uvicorn.Config(
                opened.server.app(),
                http=PatientProtocol,
                log_level="critical",
                access_log=False,
                server_header=False,
                limit_concurrency=256,
                timeout_graceful_shutdown=5,
            )
            uvicorn.Server(settings).run(sockets=[listener])
