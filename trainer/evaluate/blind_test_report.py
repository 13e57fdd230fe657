"""Answers and key → the result of a blind test, as a record."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TypeVar

from pydantic import Field

from claude_capture.claude_trace_schema import SCHEMA_VERSION, Record
from trainer.errors import TrainerError
from trainer.evaluate.answer_store import Answer, AnswerStore
from trainer.evaluate.blind_test_folder import ANSWERS, Item, Key, KeyEntry, open_key, read_items
from trainer.evaluate.indistinguishability_test import (
    THRESHOLDS,
    LengthGuess,
    Verdict,
    bootstrap_by_sample,
    clopper_pearson,
    design_effect,
    effective,
    judge,
    length_guess,
    naive_pass_rate,
)
from trainer.evaluate.rater_agreement import Agreement, agreement
from trainer.report.statistics import wilson_interval

_Value = TypeVar("_Value")


class Share(Record):
    """A share with its interval."""

    count: int = Field(description="Answers that count")
    n: int = Field(description="Answers")
    share: float = Field(description="count / n")
    wilson: tuple[float, float] = Field(description="Wilson 95 % interval of `share`, on independent answers")


class Controls(Record):
    """What raters did where both sides were the teacher's."""

    n: int = Field(description="Answers on controls")
    undecided: int = Field(description="Cannot tell")
    first: Share | None = Field(description="Forced choices of side A, 50 % without a bias; None without any")
    as_expected: bool | None = Field(description="Whether the interval of `first` holds 50 %")


class RaterResult(Record):
    """One rater."""

    answers: int = Field(description="Items with a choice, controls included")
    wrong: int = Field(description="Wrong forced choices on pairs")
    choices: int = Field(description="Forced choices on pairs")
    undecided: int = Field(description="'Cannot tell' on pairs")
    median_seconds: float | None = Field(description="Time per item, breaks included")


class Remark(Record):
    """A rater's note."""

    rater: str = Field(description="Who")
    item: str = Field(description="On which item")
    kind: str = Field(description="pair or control")
    text: str = Field(description="The note")


class BlindTestReport(Record):
    """Result of a closed blind test."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this schema")
    closed_at: str = Field(description="ISO 8601, UTC")
    teachers: list[str] = Field(description="Model ids of the teacher")
    students: list[str] = Field(description="Versions of the student")
    pairs: int = Field(description="Pairs of the test, controls not counted")
    same: int = Field(description="Pairs whose sides read the same; a coin decides there")
    unanswered: int = Field(description="Pairs in which the student gave no answer; they were shown")
    raters: dict[str, RaterResult] = Field(description="By name")
    wrong: int = Field(description="Forced choices that took the student for the teacher")
    choices: int = Field(description="Forced choices")
    undecided: int = Field(description="'Cannot tell'; not in `choices`")
    indistinguishability: float = Field(description="I = wrong / choices, in [0, 1]; 0.5 is perfect")
    with_undecided: float = Field(description="I if every 'cannot tell' were decided by a coin")
    wilson: tuple[float, float] = Field(description="Wilson 95 % interval, on independent choices")
    clopper_pearson: tuple[float, float] = Field(description="Exact 95 % interval, on independent choices")
    bootstrap: tuple[float, float] = Field(description="95 % interval by bootstrap over pairs, with all their choices")
    design_effect: float = Field(description="1 + (m - 1)·ICC: what several raters on the same pairs cost")
    independent_wrong: int = Field(description="`wrong` after the design effect")
    independent_choices: int = Field(description="`choices` after the design effect; intervals and verdicts use these")
    verdicts: dict[str, Verdict] = Field(description="success and replace, each with a point and an interval verdict")
    naive_pass_rate: float = Field(description="How often this n calls a student of true I = 0.40 a success, naively")
    differing: Share | None = Field(description="I on the pairs that do not read the same; None where there is none")
    length_guess: LengthGuess | None = Field(description="The length-only guesser; None without enough pairs")
    controls: Controls | None = Field(description="None where the test has none, or none was answered")
    first_side: Share = Field(description="Forced choices on pairs that named side A; 50 % without a bias")
    by_workflow: dict[str, Share] = Field(description="Workflow type → share of wrong choices")
    preferences: dict[str, Share] = Field(description="On pairs: teacher, student, tie, both bad; empty without any")
    agreement: Agreement | None = Field(description="On who is the teacher; None with one rater or one opinion")
    preference_agreement: Agreement | None = Field(description="On the preference")
    median_seconds: float | None = Field(description="Median time per answer")
    scrubbed: dict[str, dict[str, int]] = Field(description="Identity leaks taken out: role → kind → n")
    remarks: list[Remark] = Field(default_factory=list, description="Notes of the raters")
    notes: list[str] = Field(default_factory=list, description="What the test lacks")


def report(folder: Path, *, close: bool = False, key_path: Path | None = None) -> BlindTestReport:
    """The result of a test that is closed, or is closed now.

    Args:
        close: close it for good first. No answer can come between the closing and the counting.
        key_path: where the key is kept; None: in the folder.

    Raises:
        TrainerError: the test is open and `close` is not set, nobody has chosen, or key or items were changed; then it
            stays as open as it was.
    """
    _, items = read_items(folder)
    key = open_key(folder, key_path)
    store = AnswerStore(folder / ANSWERS)
    try:
        asked = len(items) * max(1, len(store.raters()))
        if store.closed_at is None and not close:
            given = sum(answer.complete for answer in store.answers())
            raise TrainerError(
                f"{folder}: the test is open ({given} of {asked} answers); results are shown once it is closed "
                "for good: add --close"
            )
        summarise(key, items, store.answers(), "")  # what cannot be judged is not closed
        with store.closing() as closed_at:
            answers = store.answers()
        result = summarise(key, items, answers, closed_at)
    finally:
        store.close()
    given = sum(rater.answers for rater in result.raters.values())
    if given < asked:
        result.notes.append(f"closed with {given} of {asked} answers")
    return result


def summarise(key: Key, items: Sequence[Item], answers: Sequence[Answer], closed_at: str) -> BlindTestReport:
    """Counts and judges the answers; one without a choice does not count.

    Raises:
        TrainerError: there is no forced choice on a pair, or the answers are those of another test.
    """
    entries = {entry.item: entry for entry in key.entries}
    if strange := {answer.item for answer in answers} - entries.keys():
        raise TrainerError(
            f"answers to {', '.join(sorted(strange))}, which this test has not: {ANSWERS} is another test's"
        )
    answers = [answer for answer in answers if answer.choice is not None]
    on_pairs = [answer for answer in answers if entries[answer.item].kind == "pair"]
    forced = [answer for answer in on_pairs if answer.choice != "0"]
    if not forced:
        said = f"all {len(on_pairs)} answers on pairs are 'cannot tell'" if on_pairs else "no pair was answered"
        raise TrainerError(f"{said}: I is undefined without a forced choice; collect answers first")
    wrong = {answer: _wrong(answer, entries) for answer in forced}
    by_item = _grouped((answer.item, value) for answer, value in wrong.items())
    by_workflow: dict[str, dict[str, list[bool]]] = defaultdict(dict)
    for item, values in by_item.items():
        by_workflow[entries[item].workflow_type][item] = values
    same = {item.item for item in items if item.first == item.second}
    differing = {item: values for item, values in by_item.items() if item not in same}
    total, undecided = sum(wrong.values()), len(on_pairs) - len(forced)
    effect = design_effect(list(by_item.values()))
    wrong_free, free = effective(total, len(forced), effect)
    notes = list(key.notes)
    if effect > 1:
        notes.append(f"{len(forced)} choices on shared pairs count as {free} independent ones")
    if key.same:
        notes.append(f"{key.same} of the pairs read the same on both sides: a choice there is a coin's")
    if key.unanswered:
        notes.append(f"in {key.unanswered} of the pairs the student gave no answer; they were shown like the others")
    return BlindTestReport(
        closed_at=closed_at,
        teachers=key.teachers,
        students=key.students,
        pairs=sum(entry.kind == "pair" for entry in key.entries),
        same=key.same,
        unanswered=key.unanswered,
        raters=_raters(answers, on_pairs, wrong),
        wrong=total,
        choices=len(forced),
        undecided=undecided,
        indistinguishability=total / len(forced),
        with_undecided=(total + undecided / 2) / (len(forced) + undecided),
        wilson=wilson_interval(wrong_free, free)[1:3],
        clopper_pearson=clopper_pearson(wrong_free, free)[1:3],
        bootstrap=bootstrap_by_sample(list(by_item.values())),
        design_effect=effect,
        independent_wrong=wrong_free,
        independent_choices=free,
        verdicts={claim: judge(wrong_free, free, claim, share=total / len(forced)) for claim in THRESHOLDS},
        naive_pass_rate=naive_pass_rate(THRESHOLDS["success"], free, 0.40),
        differing=_share(differing) if differing else None,
        length_guess=length_guess(_lengths(items, entries)),
        controls=_controls([answer for answer in answers if entries[answer.item].kind == "control"]),
        first_side=_share(_grouped((answer.item, answer.choice == "1") for answer in forced)),
        by_workflow={name: _share(groups) for name, groups in sorted(by_workflow.items())},
        preferences=_preferences(on_pairs, entries),
        agreement=agreement(list(_grouped((a.item, a.choice or "") for a in on_pairs).values())),
        preference_agreement=agreement(
            list(_grouped((a.item, a.preference) for a in on_pairs if a.preference).values())
        ),
        median_seconds=median(answer.seconds for answer in answers),
        scrubbed=key.scrubbed,
        remarks=[Remark(rater=a.rater, item=a.item, kind=entries[a.item].kind, text=a.note) for a in answers if a.note],
        notes=notes,
    )


def _wrong(answer: Answer, entries: Mapping[str, KeyEntry]) -> bool:
    return answer.choice != str(entries[answer.item].teacher_side)


def _grouped(pairs: Iterable[tuple[str, _Value]]) -> dict[str, list[_Value]]:
    groups: dict[str, list[_Value]] = defaultdict(list)
    for name, value in pairs:
        groups[name].append(value)
    return groups


def _share(groups: Mapping[str, Sequence[bool]]) -> Share:
    """The share of True over all groups; answers to one item are not independent."""
    count, n = sum(map(sum, groups.values())), sum(map(len, groups.values()))
    return Share(
        count=count,
        n=n,
        share=count / n,
        wilson=wilson_interval(*effective(count, n, design_effect(list(groups.values()))))[1:3],
    )


def _preferences(answers: Sequence[Answer], entries: Mapping[str, KeyEntry]) -> dict[str, Share]:
    said = [
        (
            answer.item,
            {"0": "tie", "3": "both bad", str(entries[answer.item].teacher_side): "teacher"}.get(
                answer.preference, "student"
            ),
        )
        for answer in answers
        if answer.preference is not None
    ]
    names = ("teacher", "student", "tie", "both bad") if said else ()
    return {name: _share(_grouped((item, value == name) for item, value in said)) for name in names}


def _raters(
    answers: Sequence[Answer], on_pairs: Sequence[Answer], wrong: Mapping[Answer, bool]
) -> dict[str, RaterResult]:
    result: dict[str, RaterResult] = {}
    for name in sorted({answer.rater for answer in answers}):
        own = [answer for answer in on_pairs if answer.rater == name]
        choices = [value for answer, value in wrong.items() if answer.rater == name]
        result[name] = RaterResult(
            answers=sum(answer.rater == name for answer in answers),
            wrong=sum(choices),
            choices=len(choices),
            undecided=len(own) - len(choices),
            median_seconds=median(answer.seconds for answer in answers if answer.rater == name),
        )
    return result


def _lengths(items: Sequence[Item], entries: Mapping[str, KeyEntry]) -> dict[str, tuple[int, int]]:
    lengths: dict[str, tuple[int, int]] = {}
    for item in items:
        sides = (item.first.length, item.second.length)
        teacher = entries[item.item].teacher_side
        if teacher is not None:
            lengths[item.item] = sides if teacher == 1 else (sides[1], sides[0])
    return lengths


def _controls(answers: Sequence[Answer]) -> Controls | None:
    if not answers:
        return None
    choices = Counter(answer.choice for answer in answers)
    forced = _grouped((answer.item, answer.choice == "1") for answer in answers if answer.choice != "0")
    first = _share(forced) if forced else None
    return Controls(
        n=len(answers),
        undecided=choices["0"],
        first=first,
        as_expected=first.wilson[0] <= 0.5 <= first.wilson[1] if first else None,
    )
