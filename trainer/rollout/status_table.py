"""Where the rollout stands, as a terminal shows it: fit for 80 columns, one figure a line, both sides in it."""

from __future__ import annotations

from trainer.rollout.controller import RolloutStatus, StageReport, metric_line
from trainer.rollout.stage_figures import Rate, SideFigures, StageFigures
from trainer.rollout.stage_gate import StageGate, confidence_at


def share(rate: Rate | None) -> str:
    """A share with its interval, e.g. `1.2 % [0.7, 2.1]`; a dash without data."""
    return f"{100 * rate.share:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]" if rate else "–"


def side_rows(figures: StageFigures) -> list[tuple[str, str, str]]:
    """Figure, student's, teacher's; as text."""
    sides = (figures.student, figures.teacher)

    def row(name: str, *values: str) -> tuple[str, str, str]:
        return name, values[0], values[1]

    def times(side: SideFigures, first: bool) -> str:
        p50, p95 = (
            (side.first_byte_p50_ms, side.first_byte_p95_ms) if first else (side.answer_p50_ms, side.answer_p95_ms)
        )
        return "–" if p50 is None or p95 is None else f"{p50 / 1000:.2f} / {p95 / 1000:.2f} s"

    def of(value: float | None) -> str:
        return "" if value is None else f" ({100 * value:.1f} %)"

    return [
        row("sessions", f"{sides[0].sessions:,}{of(figures.session_share)}", f"{sides[1].sessions:,}"),
        row("requests answered", f"{sides[0].requests:,}{of(figures.request_share)}", f"{sides[1].requests:,}"),
        row("failed, rescued", share(figures.failures), "–"),
        row("  calls off schema", f"{figures.schema_failures:,}", "–"),
        row("tool errors", *(share(side.tool_errors) for side in sides)),
        row("pushback", *(share(side.pushback) for side in sides)),
        row("  rejected calls", *(f"{side.rejected:,}" for side in sides)),
        row("  interrupts", *(f"{side.interrupted:,}" for side in sides)),
        row("client's retries", *(f"{side.retries:,}" for side in sides)),
        row("answer p50 / p95", *(times(side, False) for side in sides)),
        row("first byte p50 / p95", *(times(side, True) for side in sides)),
        row("tokens written", *("–" if s.output_tokens is None else f"{s.output_tokens:,}" for s in sides)),
    ]


def notes(report: StageReport) -> list[str]:
    """What stands below the figures of a stage, line by line."""
    figures, test = report.figures, report.figures.test
    lines: list[str] = []
    for name, counts in (("rescued by the teacher", figures.fallbacks), ("not for the student", figures.passed_on)):
        if counts:
            lines.append(f"{name}: {', '.join(f'{reason} {n}' for reason, n in counts.items())}")
    if figures.shadow is not None:
        shadow = figures.shadow
        reward = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*shadow.reward) if shadow.reward else "–"
        same = "" if shadow.same_tools is None else f", same tools in {100 * shadow.same_tools:.0f} %"
        lines.append(
            f"shadow: reward {reward} over {shadow.turns} turns of {shadow.sessions} sessions{same}, failed "
            f"{share(shadow.failures)}, dropped {shadow.dropped}"
        )
        if shadow.deaths:
            state = f"; it is down: {shadow.fault}" if shadow.fault else "; it works again"
            lines.append(f"the shadow's process died {shadow.deaths} ×{state}")
    if test.answered + test.failed:
        lines.append(
            f"rollback test: score {test.score:+.2f}, rolls back at {test.rolls_back_at:+.2f}; {test.failed} failures, "
            f"{test.answered} answers, accepted {test.accepted} times"
        )
    saved = figures.saved
    if saved.amount is not None:
        lines.append(f"saved, an estimate: {saved.amount:,.2f} at the teacher's prices")
    if saved.unpriced:
        models = ", ".join(f"{model or 'unknown'} ({n} requests)" for model, n in saved.unpriced.items())
        lines.append(f"no price in [[rollout.prices]] for {models}")
    return lines


def look_of(gate: StageGate) -> str:
    """Which look a verdict is of; nothing before the first."""
    return f", look {gate.look} at {100 * confidence_at(gate.look):.3g} %" if gate.look else ""


def last_busy(found: RolloutStatus) -> StageReport:
    """The newest stage with a request; the current one where there is none at all."""
    sides = ((stage, stage.figures.student, stage.figures.teacher) for stage in reversed(found.stages))
    return next((stage for stage, one, other in sides if one.requests + other.requests), found.stages[-1])


def next_line(found: RolloutStatus) -> str:
    """What comes next, and what it waits for."""
    if found.next_weight is None:
        return "this is the last stage"
    if found.proposed:
        return f"next: {found.next_weight:g} %, proposed: claude-trainer rollout advance"
    return f"next: {found.next_weight:g} %, not before:"


def show(found: RolloutStatus) -> None:
    """Prints the history of stages, then the current one."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)

    def table(*headings: str, left: int) -> Table:
        made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for number, heading in enumerate(headings):
            made.add_column(heading, no_wrap=True, justify="left" if number < left else "right")
        return made

    history = table("stage", "since", "by", "days", "student's", "answered", "failed", "gate", left=3)
    for stage in found.stages:
        history.add_row(
            f"{stage.weight:g} %",
            stage.entered_at[5:16].replace("T", " "),
            stage.action,
            f"{stage.days:.1f}",
            str(stage.figures.student.sessions),
            str(stage.figures.student.requests),
            f"{100 * stage.figures.failures.share:.1f} %" if stage.figures.failures else "–",
            stage.gate.phase,
        )
    console.print(history)
    current = found.stages[-1]
    busy = last_busy(found)
    console.print(f"\nstage {busy.weight:g} %{', the last with requests' if busy is not current else ''}")
    figures = table("", "student", "teacher", left=3)
    for row in side_rows(busy.figures):
        figures.add_row(*row)
    console.print(figures)
    lines = notes(busy)
    if current.model:
        lines.append(f"model of this stage: {current.model}")
    if current.action == "new_model":
        lines.append(f"started again: {current.note}")
    lines += [f"gate{look_of(current.gate)}: {metric_line(metric)}" for metric in current.gate.metrics]
    lines += [f"NOT SERVED: {reason}" for reason in found.withheld]
    lines += [f"ANOTHER MODEL: {reason}" for reason in found.outdated]
    if found.kill_switch:
        lines.append("kill switch: on, every request goes to the teacher")
    lines.append(next_line(found))
    if found.next_weight is not None:
        lines += [f"  - {blocker}" for blocker in found.blockers]
    console.print("\n".join(lines))
    for line in found.decisions[-3:]:
        console.print(f"{line['action']} by {line['who']}: {line['why'] or 'no reason given'}", style="dim")
