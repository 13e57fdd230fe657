"""`claude-trainer blind-test`: create the test, serve it to raters, report the result."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from claude_capture.claude_trace_schema import Trace
    from trainer.evaluate.blind_test_report import BlindTestReport

DEFAULT_FOLDER = Path("runs/blind-test")
_PATH = click.Path(path_type=Path)
_folder = click.option("--out", "folder", type=_PATH, default=DEFAULT_FOLDER, show_default=True, help="Test's folder.")
_key = click.option("--key", "key_path", type=_PATH, help="The sealed key's file; default: key.json in the folder.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def blind_test() -> None:
    """Prove how close the student came: create, serve, report."""


@blind_test.command()
@click.option("--config", "config_path", type=_PATH, help="TOML config: names data and runs; section [evaluate].")
@click.option(
    "--version",
    default="ppo",
    show_default=True,
    help="Whose finished test is taken with --config: ppo (its newest), ppo-v2, sft, untrained.",
)
@click.option(
    "--teacher", type=_PATH, multiple=True, help="Teacher's Trace records (JSONL), repeatable; default: the data's."
)
@click.option(
    "--student",
    type=_PATH,
    help="Student's Trace records (JSONL) under the trace_ids of the teacher's they answer, instead of --version.",
)
@click.option(
    "--dataset",
    type=_PATH,
    help="bc_dataset.jsonl the student was trained with: only prompts of its test split, or of none, are shown.",
)
@click.option(
    "--out", "folder", type=_PATH, help=f"Test's folder; default: {DEFAULT_FOLDER}, or with --config in its runs."
)
@_key
@_as_json
def create(
    config_path: Path | None,
    version: str,
    teacher: tuple[Path, ...],
    student: Path | None,
    dataset: Path | None,
    folder: Path | None,
    key_path: Path | None,
    as_json: bool,
) -> None:
    """Pair held-out traces of teacher and student, hide who is who, and seal the key.

    Either --config, or --teacher and --student, say what is compared.
    """
    from claude_capture.data_root import resolve_data_root
    from trainer.config import load_config
    from trainer.evaluate.blind_test_folder import ITEMS, create_test, read_training_ids
    from trainer.evaluate.student_run import find_student_run

    config = load_config(config_path)
    notes: list[str] = []
    if config_path is None and (student is None or not teacher):
        raise click.UsageError("say what is compared: --config, or --teacher and --student")
    if student is None:
        run = find_student_run(config, version)
        student = run.traces
        notes.append(run.note())
    if config_path is not None:
        data = resolve_data_root(config.data)
        teacher = teacher or (data / "traces" / "traces.jsonl",)
        dataset = dataset or data / "datasets" / "bc_dataset.jsonl"
        folder = folder or Path(config.runs) / DEFAULT_FOLDER.name
    folder = folder or DEFAULT_FOLDER
    teachers: dict[str, Trace] = {}
    for path in teacher:
        teachers |= _traces(path)
    key = create_test(
        folder,
        teachers,
        _traces(student),
        config.evaluate,
        trained_on=read_training_ids(dataset) if dataset else None,
        key_path=key_path,
        notes=notes,
    )
    pairs = sum(entry.kind == "pair" for entry in key.entries)
    counts: dict[str, Any] = {
        "folder": str(folder),
        "pairs": pairs,
        "controls": len(key.entries) - pairs,
        "teacher_first": sum(entry.teacher_side == 1 for entry in key.entries),
        "same": key.same,
        "unanswered": key.unanswered,
        "scrubbed": key.scrubbed,
        "notes": key.notes,
    }
    if as_json:
        import orjson

        click.echo(orjson.dumps(counts).decode())
        return
    click.echo(f"{folder / ITEMS}: {pairs} pairs and {counts['controls']} controls; the key is sealed")
    click.echo(f"{key.same} pairs read the same on both sides; in {key.unanswered} the student gave no answer")
    for role, kinds in key.scrubbed.items():
        if kinds:
            click.echo(f"taken out, {role}: " + ", ".join(f"{kind} {n}" for kind, n in kinds.items()))
    for note in key.notes:
        click.echo(f"note: {note}")
    click.echo(f"next: claude-trainer blind-test serve --out {folder} --rater NAME")


@blind_test.command()
@click.option("--rater", "raters", multiple=True, help="Invite a rater (may be given several times); default: 'rater'.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8096, show_default=True, help="Port; 0: a free one.")
@click.option(
    "--url", help="Address under which raters reach the page, where it is another, e.g. https://rate.example."
)
@_folder
def serve(raters: tuple[str, ...], host: str, port: int, url: str | None, folder: Path) -> None:
    """Serve the page for raters and print one link per rater."""
    import uvicorn

    from trainer.errors import TrainerError
    from trainer.evaluate.blind_test_page import BlindTestPage, Place
    from trainer.loopback import bind

    if url is not None and (not url.startswith(("http://", "https://")) or url.count("/") > 2):
        raise click.UsageError(f"--url {url}: expected http:// or https://, a name, and no path")
    page = BlindTestPage(folder)
    for name in raters or (() if page.answers.raters() else ("rater",)):
        page.answers.invite(name)
    with bind(host, port) as listener:
        address, number = listener.getsockname()[:2]
        bound = ipaddress.ip_address(address)
        if bound.is_unspecified and url is None:
            raise TrainerError(f"{host} is every address; say with --url under which one raters reach the page")
        shown = f"[{address}]" if bound.version == 6 else address
        names = {shown, "localhost"} if bound.is_loopback else {shown, host}
        for name, token in page.answers.raters().items():
            click.echo(f"{name}: {url or f'http://{shown}:{number}'}/r/{token}")
        if page.answers.closed_at:
            click.echo("note: this test is closed; raters see that and nothing else", err=True)
        if not bound.is_loopback and not (url or "").startswith("https://"):
            click.echo("warning: this is plain HTTP and not loopback; who sees the traffic sees the links", err=True)
        settings = uvicorn.Config(
            page.app(Place.of(names, number, url)), log_level="warning", access_log=False, server_header=False
        )
        uvicorn.Server(settings).run(sockets=[listener])
    page.answers.close()


@blind_test.command()
@click.option("--close", is_flag=True, help="Close the test for good first; no answers are taken after that.")
@click.option("--html", type=_PATH, help="Page to write; default: report.html in the folder.")
@_folder
@_key
@_as_json
def report(close: bool, html: Path | None, folder: Path, key_path: Path | None, as_json: bool) -> None:
    """Open the key of a closed test and judge the answers."""
    from trainer.evaluate.blind_test_report import report as run
    from trainer.evaluate.blind_test_report_page import write_page
    from trainer.run_folder import write_atomic

    result = run(folder, close=close, key_path=key_path)
    page = write_page(result, html or folder / "report.html")
    write_atomic(folder / "report.json", result.model_dump_json(indent=1) + "\n")
    if as_json:
        click.echo(result.model_dump_json(indent=1))
        return
    for line in _lines(result):
        click.echo(line)
    click.echo(f"page: {page}")


def _lines(result: BlindTestReport) -> list[str]:
    """The result in a few lines."""
    from trainer.evaluate.blind_test_report_page import bounds, verdict_line

    preferred = ", ".join(f"{name} {share.share:.0%}" for name, share in result.preferences.items())
    agreement = result.agreement
    return [
        f"{result.wrong} of {result.choices} choices wrong: I = {result.indistinguishability:.3f}, "
        f"Wilson 95 % {bounds(result.wilson)}, Clopper–Pearson {bounds(result.clopper_pearson)}; "
        f"{result.undecided} undecided",
        *(verdict_line(verdict) for verdict in result.verdicts.values()),
        *([f"preferred: {preferred}"] if preferred else []),
        *([f"agreement between raters: Krippendorff's alpha {agreement.alpha:.2f}"] if agreement else []),
        *(f"note: {note}" for note in result.notes),
    ]


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
