"""The baselines as a part of a page: a sentence, a plot of gains over SFT, the table."""

from __future__ import annotations

from pathlib import Path

from trainer.records import BaselineReport, Gain
from trainer.report.page import Page
from trainer.report.plots import interval_chart

NAMES = {
    "untrained": "untrained",
    "sft": "SFT",
    "best-of-n-consistent": "SFT, best of {n} by agreement",
    "best-of-n-oracle": "SFT, best of {n} by the reward *",
    "grpo": "GRPO (TRL)",
    "ppo": "PPO",
}

SHOWN_PROMPTS = 8


def baseline_section(page: Page, report: BaselineReport) -> Page:
    """Adds the comparison to a page."""
    names = {key: name.format(n=report.samples) for key, name in NAMES.items()}
    gains = {names[row.student]: row.gain for row in report.rows if row.gain and row.student != "untrained"}
    if gains:
        page.figure(
            f"Gain in mean reward over the SFT student on the same {report.prompts} held-out prompts, averaged over "
            "seeds, with 95 % intervals over prompts.",
            interval_chart(
                {name: (gain.mean, gain.low, gain.high) for name, gain in gains.items()},
                "reward gained over SFT",
                line=("SFT", 0.0),
            ),
        )
    page.table(
        ["student", "reward", "gain over SFT", "per seed", "alignment", "tokens written"],
        [
            [
                names[row.student],
                f"{_number(row.reward)} ({_range(row.low, row.high)})",
                _gain(row.gain),
                _seeds(row.gain) if row.seeds > 1 else "",
                row.alignment,
                row.written_tokens or None,
            ]
            for row in report.rows
        ],
        f"{report.prompts} held-out prompts, greedy but for best of {report.samples}; 95 % intervals over prompts.",
    )
    if report.contrasts:
        page.table(
            ["PPO against", "gain, over prompts", "over seeds", "over both"],
            [
                [
                    names[gain.over],
                    _gain(gain),
                    _bounds(gain, gain.seeds_low, gain.seeds_high),
                    _bounds(gain, gain.both_low, gain.both_high),
                ]
                for gain in report.contrasts
            ],
            "Paired differences per prompt. The interval over seeds says whether another run would bring the same; the "
            "verdict goes by the one over seeds and prompts drawn at once.",
        )
    if sentence := left_out_sentence(report):
        page.text(sentence)
    return page.text(
        "* picked with the teacher's work at hand, so an upper bound that cannot be served. By agreement takes the "
        "sample that agrees most with the others, which needs no teacher. GRPO starts from the same SFT student, works "
        "in the same replay, is paid by the same reward and ends at the same number of written tokens as PPO with that "
        "seed; its last student is scored, of PPO the one that it keeps."
    )


def left_out_sentence(report: BaselineReport) -> str:
    """Which training prompts neither PPO nor GRPO learned from; empty where there are none."""
    left_out = sorted({name for row in report.rows for name in row.left_out})
    if not left_out:
        return ""
    named = ", ".join(left_out[:SHOWN_PROMPTS]) + (" …" if len(left_out) > SHOWN_PROMPTS else "")
    return f"{len(left_out)} training prompts do not fit the window and were left out by PPO and GRPO alike: {named}."


def read_baselines(folder: Path) -> BaselineReport | None:
    """The comparison in a run folder; None where none was finished."""
    file = folder / "result.json"
    return BaselineReport.model_validate_json(file.read_bytes()) if file.exists() else None


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}".replace("-", "−")


def _range(low: float, high: float, sign: str = "") -> str:
    return f"{_number(low, sign)} to {_number(high, sign)}".replace(" ", "\u00a0")


def _gain(gain: Gain | None) -> str:
    if gain is None:
        return "–"
    return f"{_number(gain.mean, '+')} ({_range(gain.low, gain.high, '+')})"


def _seeds(gain: Gain | None) -> str:
    return " ".join(_number(value, "+") for value in gain.seeds) if gain is not None else ""


def _bounds(gain: Gain, low: float | None, high: float | None) -> str:
    """An interval that needs more than one seed."""
    if low is None or high is None:
        return "one seed" if len(gain.seeds) == 1 else "–"
    return f"{_range(low, high, '+')}, n = {len(gain.seeds)}"
