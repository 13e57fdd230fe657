"""Answers and key → the result of a blind test, as a record and as a page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from claude_capture.claude_trace_schema import SCHEMA_VERSION, Record
from trainer.errors import TrainerError
from trainer.evaluate.answer_store import Answer, AnswerStore
from trainer.evaluate.blind_test_folder import ANSWERS, Item, Key, KeyEntry, open_key, read_items
from trainer.evaluate.indistinguishability_test import (
    THRESHOLDS,
    LengthGuess,
    Verdict,
    clopper_pearson,
    design_effect,
    effective,
    judge,
    length_guess,
    naive_pass_rate,
)
from trainer.report.page import Page
from trainer.report.plots import bar_chart
from trainer.report.statistics import wilson_interval


class Share(Record):
    """A share with its interval."""

    wrong: int = Field(description="Wrong forced choices")
    n: int = Field(description="Forced choices")
    share: float = Field(description="wrong / n")
    wilson: tuple[float, float] = Field(description="Wilson 95 % interval of `share`")


class Controls(Record):
    """What raters did where both sides were the teacher's."""

    n: int = Field(description="Choices on controls")
    first: int = Field(description="Choices of the first side; half of the forced ones without a bias to a side")
    undecided: int = Field(description="Cannot tell")


class BlindTestReport(Record):
    """Result of a closed blind test."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this schema")
    closed_at: str = Field(description="ISO 8601, UTC")
    teachers: list[str] = Field(description="Model ids of the teacher")
    students: list[str] = Field(description="Versions of the student")
    pairs: int = Field(description="Pairs of the test, controls not counted")
    raters: dict[str, int] = Field(description="Rater → answers, controls included")
    wrong: int = Field(description="Forced choices that took the student for the teacher")
    choices: int = Field(description="Forced choices")
    undecided: int = Field(description="'Cannot tell'; not in `choices`")
    indistinguishability: float = Field(description="I = wrong / choices, in [0, 1]; 0.5 is perfect")
    with_undecided: float = Field(description="I if every 'cannot tell' were decided by a coin")
    wilson: tuple[float, float] = Field(description="Wilson 95 % interval, on independent choices")
    clopper_pearson: tuple[float, float] = Field(description="Exact 95 % interval, on independent choices")
    design_effect: float = Field(description="1 + (m - 1)·ICC: what several raters on the same pairs cost")
    independent_wrong: int = Field(description="`wrong` after the design effect")
    independent_choices: int = Field(description="`choices` after the design effect; intervals and verdicts use these")
    verdicts: list[Verdict] = Field(description="success and replace")
    naive_pass_rate: float = Field(description="How often this n calls a student of true I = 0.40 a success, naively")
    length_guess: LengthGuess | None = Field(description="The length-only guesser; None without enough pairs")
    controls: Controls | None = Field(description="None where the test has none, or none was answered")
    by_workflow: dict[str, Share] = Field(description="Workflow type → share")
    median_seconds: float | None = Field(description="Median time per answer")
    scrubbed: dict[str, dict[str, int]] = Field(description="Identity leaks replaced: role → kind → n")
    notes: list[str] = Field(default_factory=list, description="What the test lacks")


def report(folder: Path, *, close: bool = False) -> BlindTestReport:
    """The result of a test that is closed, or is closed now.

    Raises:
        TrainerError: the test is open and `close` is not set, nobody has answered, or key or items were changed.
    """
    _, items = read_items(folder)
    key = open_key(folder)
    store = AnswerStore(folder / ANSWERS)
    try:
        answers = store.answers()
        asked = len(items) * max(1, len(store.raters()))
        closed_at = store.closed_at
        if closed_at is None and not close:
            raise TrainerError(
                f"{folder}: the test is open ({len(answers)} of {asked} answers); results are shown once it is closed "
                "for good: add --close"
            )
        result = summarise(key, items, answers, closed_at or datetime.now(UTC).isoformat(timespec="seconds"))
        store.end(result.closed_at)
        if len(answers) < asked:
            result.notes.append(f"closed with {len(answers)} of {asked} answers")
        return result
    finally:
        store.close()


def summarise(key: Key, items: Sequence[Item], answers: Sequence[Answer], closed_at: str) -> BlindTestReport:
    """Counts and judges the answers.

    Raises:
        TrainerError: there is no forced choice on a pair.
    """
    entries = {entry.item: entry for entry in key.entries}
    on_pairs = [answer for answer in answers if entries[answer.item].kind == "pair"]
    forced = [answer for answer in on_pairs if answer.choice != "0"]
    if not forced:
        raise TrainerError(f"no forced choice on a pair among {len(answers)} answers; collect answers first")
    by_item: dict[str, list[bool]] = defaultdict(list)
    by_workflow: dict[str, list[bool]] = defaultdict(list)
    for answer in forced:
        entry = entries[answer.item]
        wrong = int(answer.choice) != entry.teacher_side
        by_item[answer.item].append(wrong)
        by_workflow[entry.workflow_type].append(wrong)
    total = sum(map(sum, by_item.values()))
    undecided = len(on_pairs) - len(forced)
    effect = design_effect(list(by_item.values()))
    wrong_free, free = effective(total, len(forced), effect)
    times = sorted(answer.seconds for answer in answers if answer.seconds is not None)
    notes = list(key.notes)
    if effect > 1:
        notes.append(f"{len(forced)} choices on shared pairs count as {free} independent ones")
    return BlindTestReport(
        closed_at=closed_at,
        teachers=key.teachers,
        students=key.students,
        pairs=sum(entry.kind == "pair" for entry in key.entries),
        raters=dict(Counter(answer.rater for answer in answers)),
        wrong=total,
        choices=len(forced),
        undecided=undecided,
        indistinguishability=total / len(forced),
        with_undecided=(total + undecided / 2) / (len(forced) + undecided),
        wilson=wilson_interval(wrong_free, free)[1:3],
        clopper_pearson=clopper_pearson(wrong_free, free)[1:3],
        design_effect=effect,
        independent_wrong=wrong_free,
        independent_choices=free,
        verdicts=[judge(wrong_free, free, claim) for claim in THRESHOLDS],
        naive_pass_rate=naive_pass_rate(THRESHOLDS["success"], free, 0.40),
        length_guess=length_guess(_lengths(items, entries)),
        controls=_controls(answers, entries),
        by_workflow={name: _share(values) for name, values in sorted(by_workflow.items())},
        median_seconds=times[len(times) // 2] if times else None,
        scrubbed=key.scrubbed,
        notes=notes,
    )


def _lengths(items: Sequence[Item], entries: dict[str, KeyEntry]) -> dict[str, tuple[int, int]]:
    lengths: dict[str, tuple[int, int]] = {}
    for item in items:
        sides = (item.first.length, item.second.length)
        teacher = entries[item.item].teacher_side
        if teacher is not None:
            lengths[item.item] = sides if teacher == 1 else (sides[1], sides[0])
    return lengths


def _controls(answers: Sequence[Answer], entries: dict[str, KeyEntry]) -> Controls | None:
    choices = Counter(answer.choice for answer in answers if entries[answer.item].kind == "control")
    if not choices:
        return None
    return Controls(n=choices.total(), first=choices["1"], undecided=choices["0"])


def _share(values: Sequence[bool]) -> Share:
    interval = wilson_interval(sum(values), len(values))
    return Share(wrong=sum(values), n=len(values), share=interval.mean, wilson=interval[1:3])


def verdict_line(verdict: Verdict) -> str:
    """One claim in one line."""
    more = f"; about {verdict.more_samples:,} more choices would settle it, if in truth I = 0.5"
    return (
        f"{verdict.claim} (I > {verdict.threshold:.0%}): {verdict.interval}; observed share {verdict.point} the "
        f"threshold, P(I > {verdict.threshold:.0%}) = {verdict.probability:.2f}, needs {verdict.wrong_needed} wrong "
        f"at this n{more if verdict.more_samples else ''}"
    )


def write_page(result: BlindTestReport, path: Path) -> Path:
    """The result as one self-contained HTML page."""
    page = Page("Blind test", f"{', '.join(result.students)} against {', '.join(result.teachers)}")
    for verdict in result.verdicts:
        decided = {"SUPPORTED": True, "REFUTED": False, "INCONCLUSIVE": None}[verdict.interval]
        page.verdict(f"{verdict.claim.capitalize()}: {verdict.interval}", decided, [verdict_line(verdict)])
    page.figures(
        {
            "Wrong choices": f"{result.wrong} of {result.choices}",
            "Indistinguishability": result.indistinguishability,
            "Wilson 95 %": _bounds(result.wilson),
            "Clopper–Pearson 95 %": _bounds(result.clopper_pearson),
            "Cannot tell": result.undecided,
            "Raters": len(result.raters),
        }
    )
    page.text(
        "## How to read this\nI is the share of forced choices that took the student for the teacher; 0.5 is perfect. "
        f"The observed share alone proves little: with {result.independent_choices} choices a student with a true I of "
        f"0.40 passes “above 45 %” {result.naive_pass_rate:.0%} of the time."
    )
    groups = ["all", *result.by_workflow]
    shares = [result.indistinguishability, *(share.share for share in result.by_workflow.values())]
    bounds = [result.wilson, *(share.wilson for share in result.by_workflow.values())]
    page.figure(
        "Share of wrong choices by workflow type, with Wilson 95 % intervals",
        bar_chart(
            groups,
            {"wrong": shares},
            {"wrong": bounds},
            ylabel="share of wrong choices",
            limits=(0, 1),
            lines={"45 %": 0.45, "48 %": 0.48},
        ),
    )
    rows = [
        [name, share.wrong, share.n, share.share, _bounds(share.wilson)] for name, share in result.by_workflow.items()
    ]
    page.table(["workflow type", "wrong", "choices", "share", "Wilson 95 %"], rows)
    page.text("## Could it be told by less?")
    guess = result.length_guess
    if guess:
        page.text(
            f"Who only looks at which text is longer is wrong on {guess.wrong:.0%} of {guess.n} pairs "
            f"({guess.low:.0%} to {guess.high:.0%}); the teacher's is the longer in {guess.teacher_longer:.0%}."
        )
    if result.controls:
        forced = result.controls.n - result.controls.undecided
        page.text(
            f"Where both sides were the teacher's, raters chose the first in {result.controls.first} of {forced} "
            f"forced choices and could not tell in {result.controls.undecided}."
        )
    leaks = [[role, kind, count] for role, kinds in result.scrubbed.items() for kind, count in kinds.items()]
    if leaks:
        page.table(["text of", "leak", "replaced"], leaks, "Names that would have told a rater who wrote the text")
    if result.notes:
        page.text("## Limits of this test\n" + "\n".join(f"- {note}" for note in result.notes))
    return page.write(path)


def _bounds(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.3f}–{bounds[1]:.3f}"
