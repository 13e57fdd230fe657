"""Scores of several students on the same prompts → one table of paired gains, and whether PPO earns its place.

Two uncertainties are shown apart, because they answer different questions: the interval over *prompts* (Student's t on
per-prompt differences, averaged over seeds) says whether this comparison would hold on other prompts; the interval over
*seeds* (t on the mean difference of each seed) whether another run of the same training would bring the same. The
verdict goes by the interval over *both*, drawn anew at once, and is open below MIN_SEEDS seeds.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

from trainer.records import BaselineReport, BaselineRow, BaselineScores, Gain
from trainer.report.statistics import crossed_interval, mean_interval

SFT, PPO, ORACLE = "sft", "ppo", "best-of-n-oracle"
ORDER = ("untrained", SFT, "best-of-n-consistent", ORACLE, "grpo", PPO)
BOUNDS = (-1.0, 1.0)
MIN_SEEDS = 3
"""Seeds of PPO below which nothing is said of its place: one run may be luck."""


def baseline_report(scores: Sequence[BaselineScores], *, samples: int, seeds: Sequence[int]) -> BaselineReport:
    """The table.

    Args:
        scores: of every student and seed, the SFT student's among them; all on the same prompts in the same order.
        samples: n of best of n.
        seeds: all that stand in the table.
    """
    by_student: dict[str, list[BaselineScores]] = defaultdict(list)
    for one in scores:
        by_student[one.student].append(one)
    sft = by_student[SFT][0].totals
    rows = [_row(name, by_student[name], sft) for name in ORDER if name in by_student]
    ppo = by_student.get(PPO, [])
    contrasts = [
        gain_over(name, [one.totals for one in ppo], _mean(by_student[name]))
        for name in ORDER
        if ppo and name in by_student and name not in (PPO, ORACLE, "untrained")
    ]
    earned, sentence = _verdict(contrasts)
    return BaselineReport(
        prompts=len(sft),
        samples=samples,
        seeds=list(seeds),
        rows=rows,
        contrasts=contrasts,
        earned=earned,
        sentence=sentence,
    )


def gain_over(other: str, totals: Sequence[Sequence[float]], reference: Sequence[float]) -> Gain:
    """Paired gain of a student over another.

    Args:
        totals: the student's, per seed and prompt.
        reference: the other's, per prompt, averaged over its seeds.
    """
    differences = [[a - b for a, b in zip(row, reference, strict=True)] for row in totals]
    per_prompt = [statistics.fmean(column) for column in zip(*differences, strict=True)]
    interval = mean_interval(per_prompt, method="t", bounds=(-2.0, 2.0))
    seeds = [statistics.fmean(row) for row in differences]
    over_seeds = mean_interval(seeds, method="t", bounds=(-2.0, 2.0)) if len(seeds) > 1 else None
    over_both = crossed_interval(differences) if len(seeds) > 1 else None
    return Gain(
        over=other,
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        seeds=seeds,
        seeds_low=over_seeds.low if over_seeds else None,
        seeds_high=over_seeds.high if over_seeds else None,
        both_low=over_both.low if over_both else None,
        both_high=over_both.high if over_both else None,
    )


def _mean(scores: Sequence[BaselineScores]) -> list[float]:
    """Per prompt, the mean over seeds."""
    return [statistics.fmean(column) for column in zip(*(one.totals for one in scores), strict=True)]


def _row(name: str, scores: Sequence[BaselineScores], sft: Sequence[float]) -> BaselineRow:
    interval = mean_interval(_mean(scores), method="t", bounds=BOUNDS)
    aligned = [one.alignment for one in scores if one.alignment is not None]
    return BaselineRow(
        student=name,
        reward=interval.mean,
        low=interval.low,
        high=interval.high,
        alignment=statistics.fmean(aligned) if aligned else None,
        exact_sequences=statistics.fmean(one.exact_sequences for one in scores),
        seeds=len(scores),
        written_tokens=round(statistics.fmean(one.written_tokens for one in scores)),
        left_out=sorted({name for one in scores for name in one.left_out}),
        gain=None if name == SFT else gain_over(SFT, [one.totals for one in scores], sft),
    )


def _verdict(contrasts: Sequence[Gain]) -> tuple[bool | None, str]:
    """PPO earns its place: it beats SFT for certain, and nothing that could be served beats it for certain.

    Certain is what the interval over seeds and prompts supports, with at least MIN_SEEDS seeds.
    """
    if not contrasts:
        return None, "PPO was not run: `claude-trainer baselines --students ppo` says whether it earns its place."
    over_sft = contrasts[0]
    seeds = len(over_sft.seeds)
    if seeds < MIN_SEEDS or over_sft.both_low is None or over_sft.both_high is None:
        return None, (
            f"INCONCLUSIVE: {seeds} of at least {MIN_SEEDS} seeds of PPO, so whether it earns its place cannot be said "
            f"({over_sft.mean:+.3f} over SFT so far); add seeds with `claude-trainer baselines --seeds`."
        )
    text = (
        f"{over_sft.mean:+.3f} [{over_sft.both_low:+.3f}, {over_sft.both_high:+.3f}] over SFT, "
        f"{sum(gain > 0 for gain in over_sft.seeds)} of {seeds} seeds above it"
    )
    if beaten := [gain.over for gain in contrasts if gain.both_high is not None and gain.both_high < 0]:
        return False, f"PPO does not earn its place: {' and '.join(beaten)} earned more for certain ({text})."
    if over_sft.both_low > 0:
        return True, f"PPO earns its place: {text}."
    return None, f"INCONCLUSIVE: {text}; more seeds or held-out prompts can tell whether PPO earns its place."
