"""The result of a blind test as a page: verdicts, figures, and what else could explain them."""

from __future__ import annotations

from pathlib import Path

from trainer.evaluate.blind_test_report import BlindTestReport, Share
from trainer.evaluate.indistinguishability_test import Verdict
from trainer.evaluate.rater_agreement import Agreement
from trainer.report.page import Page
from trainer.report.plots import bar_chart


def verdict_line(verdict: Verdict) -> str:
    """One claim in one line."""
    more = f"; about {verdict.more_samples:,} more choices would settle it, if in truth I = 0.5"
    return (
        f"{verdict.claim} (I > {verdict.threshold:.0%}): {verdict.interval}; observed share {verdict.point} the "
        f"threshold, P(I > {verdict.threshold:.0%}) = {verdict.probability:.2f}, needs {verdict.wrong_needed} wrong "
        f"at this n{more if verdict.more_samples else ''}"
    )


def bounds(interval: tuple[float, float]) -> str:
    """An interval as text."""
    return f"{interval[0]:.3f}–{interval[1]:.3f}"


def write_page(result: BlindTestReport, path: Path) -> Path:
    """Writes the result as one self-contained HTML page."""
    page = Page("Blind test", f"{', '.join(result.students)} against {', '.join(result.teachers)}")
    for verdict in result.verdicts.values():
        _verdict(page, verdict)
    page.figures(
        {
            "Wrong choices": f"{result.wrong} of {result.choices}",
            "Indistinguishability I": result.indistinguishability,
            "Wilson 95 %": bounds(result.wilson),
            "Clopper–Pearson 95 %": bounds(result.clopper_pearson),
            "Cannot tell": result.undecided,
            "Raters": len(result.raters),
        }
    )
    page.text(
        "## How to read this\nI is the share of forced choices that took the student for the teacher; 0.5 is perfect. "
        "The point verdict compares the observed share with the threshold; the interval verdict says what this many "
        f"choices can prove. The observed share alone proves little: with {result.independent_choices} choices a "
        f"student with a true I of 0.40 passes “above 45 %” {result.naive_pass_rate:.0%} of the time. If a coin had "
        f"decided every “cannot tell”, I would be {result.with_undecided:.3f}. A bootstrap over pairs puts I in "
        f"{bounds(result.bootstrap)}; the design effect of shared pairs is {result.design_effect:.2f}."
    )
    _workflows(page, result)
    _preferences(page, result)
    _raters(page, result)
    _explanations(page, result)
    if result.remarks:
        page.text("## What raters noted")
        page.table(["rater", "item", "kind", "note"], [[r.rater, r.item, r.kind, r.text] for r in result.remarks])
    if result.notes:
        page.text("## Limits of this test\n" + "\n".join(f"- {note}" for note in result.notes))
    return page.write(path)


def _verdict(page: Page, verdict: Verdict) -> None:
    decided = {"SUPPORTED": True, "REFUTED": False, "INCONCLUSIVE": None}[verdict.interval]
    reasons = [
        f"Point verdict: the observed share is {verdict.point} {verdict.threshold:.0%}.",
        f"Interval verdict: support takes {verdict.wrong_needed} wrong choices at this n; "
        f"P(I > {verdict.threshold:.0%}) = {verdict.probability:.2f}.",
    ]
    if verdict.more_samples:
        reasons.append(f"About {verdict.more_samples:,} more independent choices would settle it, if in truth I = 0.5.")
    page.verdict(f"{verdict.claim.capitalize()}, I > {verdict.threshold:.0%}: {verdict.interval}", decided, reasons)


def _workflows(page: Page, result: BlindTestReport) -> None:
    page.text("## By workflow type")
    page.figure(
        "Share of wrong choices by workflow type, with Wilson 95 % intervals",
        bar_chart(
            ["all", *result.by_workflow],
            {"wrong": [result.indistinguishability, *(share.share for share in result.by_workflow.values())]},
            {"wrong": [result.wilson, *(share.wilson for share in result.by_workflow.values())]},
            ylabel="share of wrong choices",
            limits=(0, 1.08),
            lines={"45 %": 0.45, "50 %": 0.50},
        ),
    )
    page.table(
        ["workflow type", "wrong", "choices", "share", "Wilson 95 %"],
        [[name, *_cells(share)] for name, share in result.by_workflow.items()],
    )


def _preferences(page: Page, result: BlindTestReport) -> None:
    if not result.preferences:
        return
    shares = list(result.preferences.values())
    page.text("## What raters would rather have")
    page.figure(
        "Share of preferences on pairs of teacher and student, with Wilson 95 % intervals",
        bar_chart(
            list(result.preferences),
            {"share": [share.share for share in shares]},
            {"share": [share.wilson for share in shares]},
            ylabel="share of preferences",
            limits=(0, 1.08),
        ),
    )
    page.table(
        ["preferred", "times", "of", "share", "Wilson 95 %"],
        [[name, *_cells(share)] for name, share in result.preferences.items()],
    )


def _raters(page: Page, result: BlindTestReport) -> None:
    page.text("## Raters")
    page.table(
        ["rater", "answers", "wrong", "choices", "cannot tell", "median seconds"],
        [
            [
                name,
                r.answers,
                r.wrong,
                r.choices,
                r.undecided,
                None if r.median_seconds is None else f"{r.median_seconds:.1f}",
            ]
            for name, r in result.raters.items()
        ],
    )
    lines = [
        _agreement("who is the teacher", result.agreement),
        _agreement("what they would rather have", result.preference_agreement),
    ]
    page.text("\n".join(f"- {line}" for line in lines))


def _agreement(what: str, found: Agreement | None) -> str:
    if found is None:
        return f"On {what}: agreement cannot be measured (one rater, or one opinion)."
    return (
        f"On {what}: Krippendorff's alpha {found.alpha:.2f} ({found.low:.2f} to {found.high:.2f}) over {found.items} "
        f"pairs; two raters said the same {found.same:.0%} of the time. 0 is chance, 1 is agreement."
    )


def _explanations(page: Page, result: BlindTestReport) -> None:
    page.text("## Could it be told by less?")
    lines = [
        f"Raters named side A in {_told(result.first_side)} of their forced choices; the teacher stood there in half."
    ]
    guess = result.length_guess
    if guess:
        lines.append(
            f"Who only looks at which text is longer, and knows what that means here, is wrong on {guess.wrong:.0%} of "
            f"{guess.n} pairs of different length ({guess.low:.0%} to {guess.high:.0%}); a coin is wrong on 50%. "
            f"The teacher's is the longer in {guess.teacher_longer:.0%}."
        )
    else:
        lines.append(
            "The texts of a pair are of the same length nearly always: who goes by length has nothing to go by."
        )
    if result.differing and result.same:
        lines.append(
            f"{result.same} of {result.pairs} pairs read the same on both sides. On the others raters were wrong in "
            f"{_told(result.differing)}."
        )
    controls = result.controls
    if controls and controls.first:
        verdict = "as it should be" if controls.as_expected else "which is a bias to a side"
        lines.append(
            f"Where both sides were the teacher's, raters named A in {_told(controls.first)}, {verdict} (50 % is "
            f"expected), and could not tell in {controls.undecided} of {controls.n} answers."
        )
    elif controls:
        lines.append(f"Where both sides were the teacher's, no rater could tell in any of {controls.n} answers.")
    page.text("\n".join(f"- {line}" for line in lines))
    leaks = [[role, kind, count] for role, kinds in result.scrubbed.items() for kind, count in kinds.items()]
    if leaks:
        page.table(["text of", "leak", "taken out"], leaks, "What would have told a rater who wrote the text")


def _told(share: Share) -> str:
    low, high = share.wilson
    return f"{share.count} of {share.n}, {share.share:.0%} ({low:.0%} to {high:.0%})"


def _cells(share: Share) -> list[object]:
    return [share.count, share.n, share.share, bounds(share.wilson)]
