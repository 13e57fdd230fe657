"""`claude-trainer blind-test`: create the test, serve it to raters, report the result."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from claude_capture.claude_trace_schema import Trace

DEFAULT_FOLDER = Path("runs/blind-test")
_folder = click.option(
    "--out", "folder", type=click.Path(path_type=Path), default=DEFAULT_FOLDER, show_default=True, help="Test's folder."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def blind_test() -> None:
    """Prove how close the student came: create, serve, report."""


@blind_test.command()
@click.option(
    "--teacher",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Trace records of the teacher (JSONL); may be given several times.",
)
@click.option(
    "--student",
    type=click.Path(path_type=Path),
    required=True,
    help="Trace records of the student (JSONL) under the trace_ids of the teacher's traces they answer.",
)
@click.option(
    "--dataset",
    type=click.Path(path_type=Path),
    help="bc_dataset.jsonl the student was trained with: prompts in its training or validation split are left out.",
)
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML config; section [evaluate].")
@_folder
@_as_json
def create(
    teacher: tuple[Path, ...],
    student: Path,
    dataset: Path | None,
    config_path: Path | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Pair held-out traces of teacher and student, hide who is who, and seal the key."""
    from trainer.config import load_config
    from trainer.evaluate.blind_test_folder import ITEMS, create_test, read_training_ids

    config = load_config(config_path).evaluate
    trained_on = read_training_ids(dataset) if dataset else None
    teachers: dict[str, Trace] = {}
    for path in teacher:
        teachers |= _traces(path)
    key = create_test(folder, teachers, _traces(student), config, trained_on=trained_on)
    pairs = sum(entry.kind == "pair" for entry in key.entries)
    counts = {
        "folder": str(folder),
        "pairs": pairs,
        "controls": len(key.entries) - pairs,
        "teacher_first": sum(entry.teacher_side == 1 for entry in key.entries),
        "scrubbed": key.scrubbed,
        "notes": key.notes,
    }
    if as_json:
        import orjson

        click.echo(orjson.dumps(counts).decode())
        return
    click.echo(f"{folder / ITEMS}: {pairs} pairs and {counts['controls']} controls; the key is sealed beside it")
    for role, kinds in key.scrubbed.items():
        if kinds:
            click.echo(f"names replaced, {role}: " + ", ".join(f"{kind} {n}" for kind, n in kinds.items()))
    for note in key.notes:
        click.echo(f"note: {note}")
    click.echo(f"next: claude-trainer blind-test serve --out {folder} --rater NAME")


@blind_test.command()
@click.option("--rater", "raters", multiple=True, help="Invite a rater (may be given several times); default: 'rater'.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8096, show_default=True, help="Port; 0: a free one.")
@_folder
def serve(raters: tuple[str, ...], host: str, port: int, folder: Path) -> None:
    """Serve the page for raters and print one link per rater."""
    import uvicorn

    from trainer.evaluate.blind_test_page import BlindTestPage
    from trainer.loopback import bind

    page = BlindTestPage(folder)
    for name in raters or (() if page.answers.raters() else ("rater",)):
        page.answers.invite(name)
    with bind(host, port) as listener:
        address, number = listener.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        for name, token in page.answers.raters().items():
            click.echo(f"{name}: http://{shown}:{number}/r/{token}")
        if not ipaddress.ip_address(address).is_loopback:
            click.echo("warning: this is plain HTTP and not loopback; who sees the traffic sees the links", err=True)
        settings = uvicorn.Config(page.app(), log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(settings).run(sockets=[listener])
    page.answers.close()


@blind_test.command()
@click.option("--close", is_flag=True, help="Close the test for good first; no answers are taken after that.")
@click.option("--html", type=click.Path(path_type=Path), help="Page to write; default: report.html in the folder.")
@_folder
@_as_json
def report(close: bool, html: Path | None, folder: Path, as_json: bool) -> None:
    """Open the key of a closed test and judge the answers."""
    from trainer.evaluate.blind_test_report import report as run
    from trainer.evaluate.blind_test_report import verdict_line, write_page
    from trainer.run_folder import write_atomic

    result = run(folder, close=close)
    page = write_page(result, html or folder / "report.html")
    write_atomic(folder / "report.json", result.model_dump_json(indent=1) + "\n")
    if as_json:
        click.echo(result.model_dump_json(indent=1))
        return
    click.echo(
        f"{result.wrong} of {result.choices} choices wrong: I = {result.indistinguishability:.3f}, "
        f"Wilson 95 % {result.wilson[0]:.3f}–{result.wilson[1]:.3f}, "
        f"Clopper–Pearson {result.clopper_pearson[0]:.3f}–{result.clopper_pearson[1]:.3f}; {result.undecided} undecided"
    )
    for verdict in result.verdicts:
        click.echo(verdict_line(verdict))
    for note in result.notes:
        click.echo(f"note: {note}")
    click.echo(f"page: {page}")


def _traces(path: Path) -> dict[str, Trace]:
    """Traces of a JSONL file by id; the newest version of an id counts. Raises TrainerError for a file without any."""
    from claude_capture.trace_storage import TraceStore
    from trainer.errors import TrainerError

    if not path.is_file():
        raise TrainerError(f"{path}: no such file; expected Trace records, one JSON object per line")
    store = TraceStore(path)
    traces = {trace.trace_id: trace for trace in store.iterate()}
    unusable = sum(store.skipped.values())
    if not traces:
        raise TrainerError(f"{path}: no trace in it ({unusable} unusable lines); expected Trace records, one per line")
    if unusable:
        click.echo(f"note: {path}: {unusable} unusable lines were left out", err=True)
    return traces
