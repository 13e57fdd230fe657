"""`claude-trainer export` and `claude-trainer doctor`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.export.export_records import DoctorReport, ExportedFile, Progress
    from trainer.export.registry import ModelEntry
    from trainer.export.release import ReleaseReport
    from trainer.export.trial import HeldOut
    from trainer.records import GateReport

MARKS = {
    "passed": "[green]ok[/green]",
    "warning": "[yellow]note[/yellow]",
    "failed": "[red]FAIL[/red]",
    "not run": "[dim]-[/dim]",
}


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr, where that is a terminal; one line per kind of work."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with RichProgress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def print_doctor(report: DoctorReport) -> None:
    """The findings as a table, what to do below."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for check in report.checks:
        detail = f"not run: {check.detail}" if check.status == "not run" else check.detail
        table.add_row(MARKS[check.status], check.name, escape(detail))
    console = Console()
    console.print(table)
    for check in report.checks:
        if check.status != "passed" and check.advice:
            console.print(f"{check.name}: {escape(check.advice)}")
    verdict = "fit for service" if report.healthy else f"unfit: {len(report.failures())} checks failed"
    console.print(f"{escape(report.path)}: {verdict}", soft_wrap=True)


def _line(file: ExportedFile) -> str:
    return f"{file.path}  {file.type}  {file.bytes:,} bytes  sha256 {file.sha256[:12]}"


@click.command()
@click.option("--adapter", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of the adapter.")
@click.option("--base", help="Folder or hub id of the 16-bit base; default: the one the adapter names.")
@click.option(
    "--student",
    type=click.Choice(("sft", "ppo")),
    help="A student of the config's own runs, in place of "
    "--adapter: its base, name, parent, dataset and gate report are found.",
)
@click.option("--version", type=click.IntRange(1), help="With --student ppo; default: the newest finished one.")
@click.option("--name", help="llama-claude-bc-v1, llama-claude-ppo-v2 …")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML config; section [export].")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of models; default: config.models.")
@click.option("--dataset", type=click.Path(path_type=Path, exists=True), help="bc_dataset.jsonl it was trained on.")
@click.option("--data", type=click.Path(), help="Data root: put its held-out prompts to the quantised file.")
@click.option("--no-logits", is_flag=True, help="Do not compare its logits with the base, which needs the base's size.")
@click.option("--gate", "gate_path", type=click.Path(path_type=Path, exists=True), help="JSON of the gate's report.")
@click.option("--licence", default="", help="Licence of the base, e.g. llama3.1.")
@click.option("--parent", help="Model that this one continues.")
@click.option("--adapter-only", is_flag=True, help="Write the adapter alone, to be laid over the base's own f16 GGUF.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def export(
    adapter: Path | None,
    base: str | None,
    student: str | None,
    version: int | None,
    name: str | None,
    config_path: Path | None,
    output: Path | None,
    dataset: Path | None,
    data: str | None,
    no_logits: bool,
    gate_path: Path | None,
    licence: str,
    parent: str | None,
    adapter_only: bool,
    as_json: bool,
) -> None:
    """Merge an adapter into its 16-bit base, write f16 and quantised GGUF, examine and register them."""
    if student is not None:
        if given := [o for o, v in (("--adapter", adapter), ("--base", base), ("--name", name)) if v is not None]:
            raise click.UsageError(f"--student finds {given[0]} by itself; give one of the two")
        _show(_export_student(config_path, data, student, version, no_logits), as_json)
        return
    if name is None:
        raise click.UsageError("give --name, or --student")
    from trainer.config import load_config
    from trainer.errors import TrainerError
    from trainer.export.export_records import Provenance
    from trainer.export.json_file import read_json
    from trainer.export.release import provenance_of, release

    if adapter is None and (base is None or adapter_only):
        raise click.UsageError("give --adapter" if adapter_only else "give --adapter, --base, or both")
    config = load_config(config_path)
    if base is None and adapter is not None:
        base = str(read_json(adapter / "adapter_config.json").get("base_model_name_or_path") or "")
        if not base:
            raise TrainerError(f"{adapter}: the adapter does not name its base; give --base")
    assert base is not None
    provenance = Provenance(base_model=base, licence=licence, parent=parent)
    if dataset is not None:
        from trainer.dataset import read_dataset

        samples = read_dataset(dataset)
        provenance = provenance_of(dataset, samples, config.dataset, base_model=base, licence=licence, parent=parent)
    models = output or Path(config.models)
    if adapter is not None and adapter_only:
        from trainer.export.adapter_gguf import export_adapter

        with progress_bar() as progress:
            made = export_adapter(base, adapter, models, name, provenance=provenance, progress=progress)
        click.echo(made.model_dump_json(indent=1) if as_json else _line(made))
        return
    gate = _gate_report(gate_path) if gate_path is not None else None
    with progress_bar() as progress:
        report = release(
            base,
            adapter,
            models,
            name,
            config.export,
            provenance=provenance,
            gate=gate,
            heldout=_heldout(config, data, logits=not no_logits) if data is not None else None,
            progress=progress,
        )
    _show(report, as_json)
    if report.entry is None:
        raise TrainerError(f"{name} is not registered: the doctor found {report.doctor.failures()[0]}")


def _show(report: ReleaseReport, as_json: bool) -> None:
    if as_json:
        click.echo(report.model_dump_json(indent=1))
        return
    print_doctor(report.doctor)
    for file in (report.export.plain, report.export.quantized):
        click.echo(_line(file))


def _export_student(
    config_path: Path | None, data: str | None, kind: str, version: int | None, no_logits: bool
) -> ReleaseReport:
    """Exports a student of the config's runs as `train` does, with the gate report that lies in its run folder."""
    from claude_capture.data_root import resolve_data_root
    from trainer.config import load_config
    from trainer.pipeline import Road

    config = load_config(config_path)
    if no_logits:
        config = config.model_copy(update={"export": config.export.model_copy(update={"compare_logits": False})})
    road = Road(config, resolve_data_root(data or config.data))
    student = road.versions.find(kind, version)
    judged = road.versions.folder(student) / "gate.json"
    return road.export(student, _gate_report(judged) if judged.exists() else None)


def _gate_report(path: Path) -> GateReport:
    """What `claude-trainer gate` wrote.

    Raises:
        TrainerError: it is something else.
    """
    from pydantic import ValidationError

    from trainer.errors import TrainerError
    from trainer.export.json_file import read_json
    from trainer.records import GateReport

    try:
        return GateReport.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise TrainerError(
            f"{path}: not a gate report: {'.'.join(map(str, first['loc']))}: {first['msg']}; "
            "`claude-trainer gate` writes gate.json"
        ) from None


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer",
    "tokenizer_path",
    type=click.Path(path_type=Path, exists=True),
    help="Folder or tokenizer.json that the model was trained with; default: rebuilt from the file.",
)
@click.option(
    "--strings",
    type=click.IntRange(1),
    default=2000,
    show_default=True,
    help="Strings to compare the tokenizers on.",
)
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="TOML config: compare logits and run the gate."
)
@click.option("--data", type=click.Path(), help="Data root with the held-out prompts; default: the config's.")
@click.option("--quick", is_flag=True, help="With --config: few held-out prompts.")
@click.option("--no-logits", is_flag=True, help="With --config: leave out the logits, which need the base in memory.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(
    model: Path,
    tokenizer_path: Path | None,
    strings: int,
    config_path: Path | None,
    data: str | None,
    quick: bool,
    no_logits: bool,
    as_json: bool,
) -> None:
    """Check a GGUF for every known pitfall; exit status 1 where one is found."""
    from trainer.export.doctor import examine

    if config_path is None and (data is not None or quick or no_logits):
        raise click.UsageError("--data, --quick and --no-logits belong to --config")
    tokenizer = None
    if tokenizer_path is not None:
        from trainer.export.llama_vocabulary import read_tokenizer

        tokenizer = read_tokenizer(tokenizer_path)
    heldout = None
    if config_path is not None:
        from trainer.config import load_config
        from trainer.export.registry import Registry
        from trainer.export.trial import require_memory

        entry = Registry(model.parent).entry_of(model)
        heldout = _heldout(load_config(config_path), data, entry, model.parent, logits=not no_logits)
        heldout = heldout.quick() if quick else heldout
        if entry is not None and Path(entry.base or "?").is_dir():
            require_memory(Path(entry.base), heldout)
    with progress_bar() as progress:
        report = examine(model, tokenizer=tokenizer, strings_compared=strings, heldout=heldout, progress=progress)
    if as_json:
        click.echo(report.model_dump_json(indent=1))
    else:
        print_doctor(report)
    if not report.healthy:
        sys.exit(1)


def _heldout(
    config: Config, data: str | None, entry: ModelEntry | None = None, folder: Path = Path(), *, logits: bool
) -> HeldOut:
    """The config's held-out prompts.

    Args:
        entry: what a registry in `folder` knows of the file: what it was made from, how its student was judged.
    """
    from claude_capture.data_root import resolve_data_root
    from trainer.export.trial import held_out
    from trainer.pipeline import Road

    road = Road(config, resolve_data_root(data or config.data))
    student, export = (entry.gate, entry.as_export(folder)) if entry is not None else (None, None)
    found = held_out(road.cases("test"), road.split("test"), config, student=student, export=export)
    return found if logits else replace(found, logits=False)
