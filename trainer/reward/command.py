"""`claude-trainer reward score`: teacher and student traces from files, paired by trace_id, one line each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from claude_capture.claude_trace_schema import Trace
    from trainer.records import RewardBreakdown
    from trainer.reward.behavioral_reward_model import BehavioralRewardModel

TRACES, SCORES = "traces.jsonl", "scores.jsonl"
"""What a run folder keeps of the episodes that were scored."""
SHOWN_IDS = 10
"""Unpaired ids that are named; the rest is counted."""
SHOWN_LOSSES = 12
"""Lost points that are shown for people, the largest first; --json has them all."""


@click.group()
def reward() -> None:
    """Score student traces against teacher traces."""


@reward.command()
@click.option(
    "--teacher",
    "teachers",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Trace records of the teacher: a JSONL file, or a folder with traces.jsonl. Give it several times for several "
    "references per prompt.",
)
@click.option(
    "--student",
    type=click.Path(path_type=Path),
    required=True,
    help="Trace records of the student: a JSONL file, or the folder of a saved run, which is scored again.",
)
@click.option("--config", type=click.Path(path_type=Path), help="TOML with the weights under [reward].")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that score.")
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), help="Who does the work; default: the config's [engine] name."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line; the summary goes to stderr.")
def score(
    teachers: tuple[Path, ...],
    student: Path,
    config: Path | None,
    workers: int,
    engine: Literal["local", "ray"] | None,
    as_json: bool,
) -> None:
    """Score each student trace against the teacher traces with the same trace_id.

    A newer version of a trace in a file supersedes an older one. Traces without a counterpart are counted and named.
    """
    import orjson

    from trainer.config import load_config, with_engine
    from trainer.errors import TrainerError
    from trainer.reward.behavioral_reward_model import BehavioralRewardModel

    settings = with_engine(load_config(config), engine)
    model = BehavioralRewardModel(settings.reward)
    references: dict[str, list[Trace]] = {}
    for path in teachers:
        for trace_id, trace in read_traces(path).items():
            references.setdefault(trace_id, []).append(trace)
    students = read_traces(student)
    paired = [trace_id for trace_id in students if trace_id in references]
    if not paired:
        raise TrainerError(
            f"{student}: none of its {len(students)} trace ids is among the {len(references)} of "
            f"{', '.join(map(str, teachers))}; student traces carry the trace_id of the teacher trace they answer"
        )
    pairs = [(students[name], references[name]) for name in paired]
    breakdowns = model.score_many(pairs, workers=workers, engine=settings.engine)
    for breakdown in breakdowns:
        if as_json:
            fields = breakdown.model_dump(include={"trace_id", "total", "components", "explanation"})
            click.echo(orjson.dumps(fields).decode())
        else:
            _show(breakdown)
    _summary(breakdowns, [references[name] for name in paired], model, err=as_json)
    _compare_with_saved(student, breakdowns)
    _unpaired("student", [name for name in students if name not in references])
    _unpaired("teacher", [name for name in references if name not in students])


def read_traces(path: Path) -> dict[str, Trace]:
    """Traces of a JSONL file, or of traces.jsonl in a folder, by trace_id, in file order.

    A later version of an id replaces the earlier.

    Raises:
        TrainerError: no such file, a line that is not a Trace (with its number), or no trace at all.
    """
    import orjson
    from pydantic import ValidationError

    from claude_capture.claude_trace_schema import Trace
    from trainer.errors import TrainerError

    if path.is_dir():
        path = path / TRACES
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise TrainerError(f"{path}: no such file; expected Trace records, one JSON object per line") from None
    traces: dict[str, Trace] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            trace = Trace.model_validate(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise TrainerError(f"{path}:{number}: not JSON: {error}; cut or mend the line") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise TrainerError(f"{path}:{number}: not a Trace: {where}: {first['msg']}") from None
        traces[trace.trace_id] = trace
    if not traces:
        raise TrainerError(f"{path}: no trace in it; expected Trace records, one JSON object per line")
    return traces


def _show(breakdown: RewardBreakdown) -> None:
    parts = "  ".join(
        f"{name} {'–' if value is None else f'{value:+.2f}'}"
        for name, value in breakdown.components.model_dump().items()
    )
    click.echo(f"{breakdown.trace_id}  {breakdown.total:+.3f}   {parts}")
    for line in breakdown.explanation[:SHOWN_LOSSES]:
        click.echo(f"    {line}")
    if (rest := len(breakdown.explanation) - SHOWN_LOSSES) > 0:
        click.echo(f"    … {rest} smaller losses; --json names them all")


def _summary(
    breakdowns: list[RewardBreakdown], groups: list[list[Trace]], model: BehavioralRewardModel, err: bool
) -> None:
    from trainer.records import similarity
    from trainer.reward.reference_range import reference_range

    count = len(breakdowns)
    click.echo(f"{count} scored, mean total {sum(b.total for b in breakdowns) / count:+.3f} in [-1, 1]", err=err)
    for name in ("constraints", "tool_use", "self_correction", "outcome", "depth"):
        values = [v for b in breakdowns if (v := getattr(b.components, name)) is not None]
        if values:
            mean = sum(values) / len(values)
            click.echo(
                f"  {name:15} {mean:+.3f}  = 2s − 1 with s = {similarity(mean):.1%} ({len(values)} of {count})", err=err
            )
    for line in reference_range(groups, model).lines():
        click.echo(f"  {line}", err=err)


def _compare_with_saved(student: Path, breakdowns: list[RewardBreakdown]) -> None:
    """Where a run folder is scored again: what its own scores were, so that a change of the reward shows."""
    from trainer.records import RewardBreakdown as Saved

    if not student.is_dir() or not (student / SCORES).exists():
        return
    lines = (student / SCORES).read_bytes().splitlines()
    saved = {one.trace_id: one.total for one in map(Saved.model_validate_json, filter(None, lines))}
    both = [(saved[one.trace_id], one.total) for one in breakdowns if one.trace_id in saved]
    if not both:
        return
    before, now = (sum(totals) / len(both) for totals in zip(*both, strict=True))
    moved = sum(abs(old - new) > 1e-9 for old, new in both)
    click.echo(
        f"when the run was saved: mean total {before:+.3f}, now {now:+.3f}; {moved} of {len(both)} moved", err=True
    )


def _unpaired(side: str, names: list[str]) -> None:
    if names:
        rest = f" and {len(names) - SHOWN_IDS} more" if len(names) > SHOWN_IDS else ""
        click.echo(f"{len(names)} {side} traces without counterpart: {', '.join(names[:SHOWN_IDS])}{rest}", err=True)
