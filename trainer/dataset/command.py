"""`claude-trainer dataset`: build, audit, export, pairs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from trainer.errors import TrainerError

if TYPE_CHECKING:
    from rich.console import Console

    from trainer.dataset.audit import AuditReport
    from trainer.dataset.dataset_report import DatasetReport
    from trainer.dataset.preference_pairs import PairsReport
    from trainer.student.chat_format import Tokenizer

DATASET_FILE = Path("datasets") / "bc_dataset.jsonl"
PAIRS_FILE = Path("datasets") / "preference_pairs.jsonl"
_EXISTING = click.Path(path_type=Path)

config_option = click.option("--config", type=_EXISTING, help="TOML config; without it every default applies.")
data_option = click.option("--data", type=_EXISTING, help="Data root; default: the config's, else CLAUDE_CAPTURE_DATA.")
tokenizer_option = click.option(
    "--tokenizer", type=_EXISTING, help="Folder with a tokenizer: count its tokens instead of estimating them."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")


@click.group()
def dataset() -> None:
    """Traces → training samples: build, audit, export, pairs."""


def _data_root(option: Path | None, config: Path | None) -> Path:
    from claude_capture.data_root import resolve_data_root
    from trainer.config import load_config

    return resolve_data_root(option or load_config(config).data)


def _tokenizer(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    from trainer.student.chat_format import template_text
    from trainer.student.format_checks import check_tokenizer

    if not (folder / "tokenizer.json").is_file():
        raise TrainerError(f"{folder}: no tokenizer.json there; --tokenizer wants a folder that holds one")
    try:
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise TrainerError(f"{folder / 'tokenizer.json'}: no tokenizer: {str(error).splitlines()[0]}") from None
    loaded.chat_template = template_text()  # as training uses it
    check_tokenizer(loaded, str(folder))
    return cast("Tokenizer", loaded)


@contextmanager
def _progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per pass of the build, on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks = {name: bar.add_task(name, total=None) for name in ("read", "write")}
        yield lambda name, done, total: bar.update(tasks[name], completed=done, total=total)


@dataset.command()
@config_option
@data_option
@click.option("--output", type=_EXISTING, help=f"Dataset file; default: <data root>/{DATASET_FILE.as_posix()}.")
@tokenizer_option
@click.option("--workers", type=click.IntRange(min=1), help="Most processes at the same time; default: one per core.")
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), help="Who does the work; default: the config's [engine] name."
)
@json_option
def build(
    config: Path | None,
    data: Path | None,
    output: Path | None,
    tokenizer: Path | None,
    workers: int | None,
    engine: Literal["local", "ray"] | None,
    as_json: bool,
) -> None:
    """Build the dataset from the traces of the data root."""
    from claude_capture.trace_storage import TraceStore
    from trainer.config import load_config, with_engine
    from trainer.dataset.behavioral_cloning_builder import build_dataset
    from trainer.dataset.chunk_tasks import available_cores
    from trainer.dataset.windows import count_with, estimate_tokens

    root = _data_root(data, config)
    store = TraceStore.of(root)
    if not store.path.exists():
        raise TrainerError(f"{store.path}: no traces yet; record sessions or run `claude-capture import`")
    with _progress_bar() as progress:
        report = build_dataset(
            store.path,
            with_engine(load_config(config), engine),
            output or root / DATASET_FILE,
            count_tokens=count_with(_tokenizer(tokenizer)) if tokenizer else estimate_tokens,
            workers=workers or available_cores(),
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(report.model_dump(mode="json"), indent=1))
    else:
        _print_build(report)


@dataset.command()
@click.argument("path", required=False, type=_EXISTING)
@config_option
@data_option
@tokenizer_option
@click.option("--trace", "trace_id", help="Render the samples of this trace (a prefix of its id will do).")
@json_option
def audit(
    path: Path | None,
    config: Path | None,
    data: Path | None,
    tokenizer: Path | None,
    trace_id: str | None,
    as_json: bool,
) -> None:
    """Measure and check a dataset, and show one sample with its loss mask. Exit status 1 if it is unfit."""
    from trainer.dataset.audit import audit_dataset, coloured_sample
    from trainer.dataset.samples_file import read_dataset

    file = path or _data_root(data, config) / DATASET_FILE
    samples = read_dataset(file)
    report = audit_dataset(samples, _tokenizer(tokenizer) if tokenizer else None)
    if as_json:
        click.echo(json.dumps(report.model_dump(mode="json"), indent=1))
    else:
        from rich.console import Console
        from rich.panel import Panel

        console = Console()
        _print_audit(console, report, file)
        if trace_id:
            shown = [sample for sample in samples if sample.trace_id.startswith(trace_id)]
            if not shown:
                raise TrainerError(f"{file}: no sample of a trace whose id starts with {trace_id}")
        else:  # longer than a quarter of them: typical, and short enough to be read
            shown = [sorted(samples, key=lambda sample: len(str(sample.messages)))[len(samples) // 4]]
        console.print("[green]Green[/] is under loss ([bold green]bold[/]: above 1), [red]red[/] is a masked turn.")
        for sample in shown:
            title = f"trace {sample.trace_id}, window {sample.window}"
            console.print(Panel(coloured_sample(sample), title=title, title_align="left"))
    if report.problems:
        more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
        raise TrainerError(f"{file}: unfit for training: {report.problems[0]}{more}")


@dataset.command()
@click.argument("path", required=False, type=_EXISTING)
@config_option
@data_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["trl", "parquet", "sharegpt", "openai", "atif"]),
    default="trl",
    show_default=True,
    help="Format; see docs/dataset.md.",
)
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help="Only this split; default: all.")
@click.option("--output", type=_EXISTING, help="File to write; default: beside the dataset, named after the format.")
@json_option
def export(
    path: Path | None,
    config: Path | None,
    data: Path | None,
    form: str,
    split: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Write the samples for another trainer; `atif` writes the whole traces behind them."""
    from claude_capture.trace_storage import TraceStore
    from trainer.config import load_config
    from trainer.dataset.dataset_export import export_dataset

    root = _data_root(data, config)
    file = path or root / DATASET_FILE
    ending = "parquet" if form == "parquet" else f"{form}.jsonl"
    target = output or file.with_name(f"{file.stem}.{f'{split}.' if split else ''}{ending}")
    traces = TraceStore.of(root).path
    count = export_dataset(file, form, target, split=split, traces=traces, config=load_config(config))
    if as_json:
        click.echo(json.dumps({"path": str(target), "format": form, "samples": count}))
    else:
        click.echo(f"{count} {'traces' if form == 'atif' else 'samples'} → {target}")


@dataset.command()
@config_option
@data_option
@click.option("--output", type=_EXISTING, help=f"Pairs file; default: <data root>/{PAIRS_FILE.as_posix()}.")
@tokenizer_option
@json_option
def pairs(config: Path | None, data: Path | None, output: Path | None, tokenizer: Path | None, as_json: bool) -> None:
    """Write pairs of a better and a worse next turn, for DPO-style training; build the dataset first."""
    from claude_capture.trace_storage import TraceStore
    from trainer.config import load_config
    from trainer.dataset.preference_pairs import build_pairs
    from trainer.dataset.windows import count_with, estimate_tokens

    root = _data_root(data, config)
    store = TraceStore.of(root)
    if not store.path.exists():
        raise TrainerError(f"{store.path}: no traces yet; record sessions or run `claude-capture import`")
    report = build_pairs(
        store.path,
        root / DATASET_FILE,
        load_config(config),
        output or root / PAIRS_FILE,
        count_tokens=count_with(_tokenizer(tokenizer)) if tokenizer else estimate_tokens,
    )
    if as_json:
        click.echo(json.dumps(report.model_dump(mode="json"), indent=1))
    else:
        _print_pairs(report)


def _print_pairs(report: PairsReport) -> None:
    from rich.console import Console
    from rich.table import Table

    from trainer.dataset.preference_pairs import REASONS, SOURCES

    console = Console()
    splits = ", ".join(f"{count} {split}" for split, count in report.by_split.items())
    table = Table(title=f"{report.pairs} pairs{f' ({splits})' if splits else ''}", title_justify="left")
    table.add_column("pairs", justify="right")
    table.add_column("left out", justify="right")
    table.add_column("")
    for source, meaning in SOURCES.items():
        table.add_row(f"{report.by_source.get(source, 0):,}", "", f"{source}: {meaning}", style="bold")
        for reason, count in report.left_out.get(source, {}).items():
            table.add_row("", f"{count:,}", REASONS[reason])
    console.print(table)
    console.print(f"→ {report.path}", markup=False, highlight=False, soft_wrap=True)


def _print_build(report: DatasetReport) -> None:
    from rich.console import Console
    from rich.table import Table

    from trainer.dataset.quality import REASONS
    from trainer.dataset.teacher_rights import declaration_for

    console = Console()
    table = Table(title=f"{report.samples} samples from {report.used} of {report.traces} traces", title_justify="left")
    for name in ("split", "samples", "traces", "families"):
        table.add_column(name, justify="left" if name == "split" else "right")
    for split, facts in report.splits.items():
        table.add_row(split, f"{facts.samples:,}", f"{facts.traces:,}", f"{facts.families:,}")
    console.print(table)
    console.print(
        f"{report.turns:,} turns under loss ({report.recovery_turns:,} mend a mistake), "
        f"{report.masked_turns:,} mistakes masked, {report.tool_calls:,} tool calls, "
        f"{report.windowed:,} traces cut to fit",
        highlight=False,
    )
    if report.too_long_turns:
        console.print(
            f"{report.too_long_turns:,} turns are under loss nowhere: no sample of dataset.max_tokens holds them with "
            "what they react to",
            highlight=False,
        )
    console.print(
        f"{report.tied_families:,} families share an episode with another one and stand on its side; "
        f"{report.repeated_prompts:,} test prompts repeat words of a training prompt",
        highlight=False,
    )
    for reason, count in report.left_out.items():
        console.print(f"left out, {count:,}: {REASONS.get(reason, reason)}", markup=False, highlight=False)
    if report.quarantined:
        console.print(f"set aside, {report.quarantined:,}: invalid, see quarantine.jsonl", highlight=False)
    for model, count in report.undeclared.items():
        console.print(
            f"left out, {count:,}: by {model}, which is not declared. Where its terms allow it, add to the config:\n"
            f"{declaration_for(model)}",
            markup=False,
            highlight=False,
        )
    console.print(f"→ {report.path}", markup=False, highlight=False, soft_wrap=True)


def _print_audit(console: Console, report: AuditReport, file: Path) -> None:
    from rich.table import Table

    from trainer.dataset.audit import WANTED_CALLS

    splits = ", ".join(f"{count} {split}" for split, count in report.splits.items())
    console.print(f"{file}: {report.samples} samples of {report.traces} traces ({splits})", highlight=False)
    roles = Table(title=f"Under loss, in {report.unit}", title_justify="left")
    for name in ("role", "total", "under loss", "share"):
        roles.add_column(name, justify="left" if name == "role" else "right")
    for role, facts in report.roles.items():
        share = f"{facts.under_loss / facts.total:.0%}" if facts.total else "–"
        roles.add_row(role, f"{facts.total:,}", f"{facts.under_loss:,}", share)
    console.print(roles)

    lengths = Table(title=f"Length of a sample, in {report.unit}", title_justify="left")
    lengths.add_column("from", justify="right")
    lengths.add_column("samples", justify="right")
    lengths.add_column("")
    most = max(count for _, _, count in report.length_histogram)
    for low, _, count in report.length_histogram:
        lengths.add_row(f"{low:,}", f"{count:,}", "█" * math.ceil(30 * count / most))
    console.print(lengths)

    about = Table(show_header=False, title="Samples", title_justify="left")
    about.add_column(justify="right")
    about.add_column()
    samples, traces = report.sample_calls, report.tool_calls
    enough = "as wanted" if samples.mean >= WANTED_CALLS else "fewer than wanted"
    about.add_row(
        f"{samples.mean:.1f}",
        f"tool calls per sample on average (median {samples.median:g}, {samples.least:g} to {samples.most:g}): "
        f"{enough}, at least {WANTED_CALLS}",
    )
    about.add_row(f"{report.many_calls_share:.1%}", f"of the samples with {WANTED_CALLS} tool calls or more")
    about.add_row(f"{traces.mean:.1f}", f"tool calls per trace (median {traces.median:g}, at most {traces.most:g})")
    about.add_row(f"{report.windowed_share:.1%}", "of the traces in several windows")
    about.add_row(f"{report.stepless_share:.1%}", "of the samples without some earlier steps")
    about.add_row(f"{report.elided_share:.1%}", "of the tool results replaced by a marker")
    about.add_row(f"{report.cut_share:.1%}", "of the tool results cut in the middle")
    about.add_row(f"{report.follow_ups:,}", "samples that are told of earlier prompts")
    about.add_row(f"{report.repeated_prompts:,}", "test samples that repeat the words of a training prompt")
    console.print(about)

    depths = ("minimal", "moderate", "thorough", "exhaustive")
    title = f"Traces by depth of exploration, their {report.unit} and the share under loss, by kind of work"
    work = Table(title=title, title_justify="left")
    work.add_column("workflow")
    for name in (*depths, "length", "loss"):
        work.add_column(name, justify="right")
    for workflow, row in report.workflows.items():
        size = report.workflow_lengths[workflow]
        counts = (f"{row[depth]:,}" if depth in row else "" for depth in depths)
        work.add_row(workflow, *counts, f"{size.total:,}", f"{size.under_loss / max(size.total, 1):.0%}")
    console.print(work)
    for problem in report.problems:
        console.print(f"problem: {problem}", style="red", markup=False, highlight=False)
