"""Pages that people read: the verdict of the gate on one page, and how a PPO run went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.ppo.heldout import Heldout
from trainer.ppo.quality_gate import more_words
from trainer.records import GateReport
from trainer.report.page import Page
from trainer.report.plots import interval_chart, line_chart
from trainer.run_folder import write_atomic

SHOWN_LOSSES = 6
WORDS = {"PASS": "held", "FAIL": "become worse", "INCONCLUSIVE": "not been decided"}
"""Verdict on a type of work, in the table's words."""


def verdict_sentence(gate: GateReport) -> str:
    """The verdict in one sentence."""
    who = gate.student or "the student"
    failed = [measure.name for measure in gate.measures if measure.verdict == "FAIL"]
    worse = [row.workflow for row in gate.workflows if row.verdict == "FAIL"]
    if gate.verdict == "PASS":
        text = "reward, alignment and constraints are proven to reach what is wanted"
        if gate.previous:
            text += f", and no type of work became worse than with {gate.previous}"
        return f"PASS: {who} may go on: {text}."
    if gate.verdict == "FAIL":
        faults = [f"{' and '.join(failed)} below what is wanted"] if failed else []
        faults += [f"{' and '.join(worse)} became worse than with {gate.previous}"] if worse else []
        return f"FAIL: {who} may not go on: {'; '.join(faults)}."
    return f"INCONCLUSIVE: {gate.n} held-out prompts cannot tell whether {who} may go on."


def next_steps(gate: GateReport) -> list[str]:
    """What a person can do now, most useful first; commands stand between backticks."""
    if gate.verdict == "PASS":
        name = f" {gate.student}" if gate.student else ""
        return [
            f"Put it into service: `claude-trainer deploy{name}`.",
            "Ask people: the blind test (`claude-trainer blind-test create`) shows whether they can tell it apart.",
        ]
    steps = [
        f"{row.workflow} lost {-row.difference:.2f}: read its episodes in `traces.jsonl` of the test run; record more "
        "sessions of that kind, or keep the student closer with a higher `ppo.kl_coefficient`."
        for row in gate.workflows
        if row.verdict == "FAIL"
    ]
    if any(measure.verdict == "FAIL" for measure in gate.measures):
        steps.append(
            "Practise more: `claude-trainer mine`, then `claude-trainer ppo --mined runs/mined.jsonl` makes the next "
            "version; where the lost points below are tools or arguments, more recorded sessions help more."
        )
    needed = [reason for reason in gate.reasons if reason.startswith("prompts: ")]
    needed += [
        f"{name} {more_words(more)}"
        for name, verdict, more in [
            *((f"{m.name}:", m.verdict, m.more_prompts) for m in gate.measures),
            *((f"{row.workflow}:", row.verdict, row.more_prompts) for row in gate.workflows),
        ]
        if verdict == "INCONCLUSIVE"
    ]
    if needed:
        steps.append(
            f"Hold out more prompts ({'; '.join(needed)}): record more sessions or raise `dataset.test_fraction`, "
            "then `claude-trainer train` again."
        )
    return steps


def gate_page(gate: GateReport, heldout: Heldout) -> Page:
    """One page for who decides: the verdict, three figures against what is wanted, each type of work, what to do."""
    page = Page(
        f"Quality gate: {gate.student or 'student'}",
        f"{gate.n} held-out prompts, answered once each, greedily"
        + (f"; compared with {gate.previous} on the same prompts" if gate.previous else ""),
    )
    page.verdict(verdict_sentence(gate), {"PASS": True, "FAIL": False}.get(gate.verdict))
    shown = [measure for measure in gate.measures if measure.n]
    if shown:
        page.figure(
            "Measured on prompts the student has never seen, with 95 % intervals. Wanted: the whole interval right of "
            "the stroke. The floor is what answering without reading the prompt earns"
            + (", the ceiling what the teacher earns against itself." if gate.ceiling else "."),
            interval_chart(
                {f"{m.name} (n = {m.n})": (m.mean, m.low, m.high) for m in shown},
                "reward in [−1, 1]; alignment and constraints in [0, 1]",
                wanted={f"{m.name} (n = {m.n})": m.threshold for m in shown},
                marks=_marks(gate),
            ),
        )
    page.table(
        ["figure", "verdict", "measured", "95 % interval", "wanted", "floor", "ceiling"],
        [[m.name, m.verdict, m.mean, _interval(m.low, m.high), m.threshold, *_range(gate, m.name)] for m in shown],
    )
    if gate.workflows:
        page.text(f"## Each type of work against {gate.previous}")
        page.table(
            ["work", "it has", "difference", "interval", "prompts", "before", "now"],
            [
                [
                    row.workflow,
                    WORDS[row.verdict],
                    f"{row.difference:+.3f}".replace("-", "−"),
                    _interval(row.low, row.high, "+"),
                    row.n,
                    row.previous,
                    row.mean,
                ]
                for row in gate.workflows
            ],
            f"Mean reward on the same prompts. A loss up to {gate.tolerance:.2f} is tolerated; the intervals hold "
            "together with 95 %.",
        )
    page.text("## What to do next\n" + "\n".join(f"- {step}" for step in next_steps(gate)))
    losses = Counter(line.split(":")[0].split(" (")[0] for row in heldout.rows for line in row.breakdown.explanation)
    if losses:
        page.text("## Where points were lost")
        page.table(["reason", "episodes"], [list(item) for item in losses.most_common(SHOWN_LOSSES)])
    page.text(
        "## How to read this\n"
        "- The reward is the weighted mean of five components, each 2s − 1 for a similarity s between 0 and 1 to what "
        "the teacher did. Alignment (of tool use) and constraints are given as s.\n"
        "- PASS needs proof: the lower end of each interval reaches what is wanted. A mean above with a lower end "
        "below is INCONCLUSIVE: more prompts can tell.\n"
        "- A type of work counts as worse where its whole interval lies below 0 and the loss exceeds what is "
        "tolerated; as held where the interval stays above minus that; else it is open.\n"
        + ("" if gate.ceiling else "- No prompt was run twice by the teacher, so there is no ceiling.\n")
        + f"- {_coverage(heldout)}"
    )
    return page


def _marks(gate: GateReport) -> dict[str, dict[str, float]]:
    """Floor and ceiling of the figures that have them, for the plot."""
    found: dict[str, dict[str, float]] = {"floor": {}, "ceiling": {}}
    for measure in gate.measures:
        if measure.n:
            for mark, value in zip(("floor", "ceiling"), _range(gate, measure.name), strict=True):
                if value is not None:
                    found[mark][f"{measure.name} (n = {measure.n})"] = value
    return {mark: values for mark, values in found.items() if values}


def _range(gate: GateReport, name: str) -> tuple[float | None, float | None]:
    """Floor and ceiling of a figure, None where they are not known."""
    if name not in ("reward", "alignment"):
        return None, None
    floor, ceiling = (getattr(end, name) if end is not None else None for end in (gate.floor, gate.ceiling))
    return floor, ceiling


def _interval(low: float, high: float, sign: str = "") -> str:
    """Both bounds on one line, with real minus signs."""
    return f"{low:{sign}.3f} to {high:{sign}.3f}".replace("-", "−").replace(" ", "\u00a0")


def _coverage(heldout: Heldout) -> str:
    shares = heldout.summary.coverage
    if not shares:
        return "Tools were run for real, in a fresh workspace per prompt."
    text = "Calls were answered from recordings: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return text + ("." if heldout.summary.reliable else ". **Over 30 % were patched: do not rely on these figures.**")


def write_gate_report(folder: Path, gate: GateReport, heldout: Heldout) -> tuple[Path, Path]:
    """Writes gate.json and gate.html; returns their paths."""
    record = folder / "gate.json"
    write_atomic(record, gate.model_dump_json(indent=1) + "\n", 0o644)
    return record, gate_page(gate, heldout).write(folder / "gate.html")


def ppo_page(rows: Sequence[Mapping[str, Any]], title: str = "PPO") -> Page:
    """Curves of a run from its metric lines."""
    learned = [row for row in rows if row["update"] > 0]
    validated = [row for row in rows if row.get("validation")]
    page = Page(title, f"{len(learned)} updates")

    def curve(name: str) -> list[tuple[float, float]]:
        return [(row["update"], row[name]) for row in learned if name in row]  # the warm-up has no policy figures

    reward = {"sampled episodes": curve("reward")}
    if validated:
        best = max(validated, key=lambda row: row["validation"]["reward"])
        page.figures(
            {
                "validation reward at the start": validated[0]["validation"]["reward"],
                "best validation reward": best["validation"]["reward"],
                "at update": best["update"],
            }
        )
        reward["validation, greedy"] = [(row["update"], row["validation"]["reward"]) for row in validated]
    if not learned:
        return page.text("No update was made.")
    if events := _events(rows):
        page.text("## Out of the ordinary\n" + "".join(f"- {event}\n" for event in events))

    def chart(title: str, series: dict[str, list[tuple[float, float]]], ylabel: str) -> None:
        if any(series.values()):  # where no episode could be scored there is nothing to draw
            page.figure(title, line_chart(series, "update", ylabel))

    chart("Mean reward", reward, "reward in [−1, 1]")
    chart("KL to the reference, the SFT student", {"KL": curve("kl")}, "nats per episode")
    shares = ("clip_fraction", "malformed", "unfinished", "exact_sequences", "outcome_check")
    chart("Shares of tokens (clipped) and of episodes", {name: curve(name) for name in shares}, "share")
    chart("Length", {"written tokens": curve("written_tokens")}, "tokens per episode")
    answers = {
        name: [(row["update"], row["coverage"][name]) for row in learned if row.get("coverage")]
        for name in ("recorded", "cached", "error", "patched", "stopped")
    }
    chart("How the replay answered the calls", answers, "share of calls")
    seconds = {
        name: [(row["update"], row["seconds"][name]) for row in learned] for name in ("generate", "reward", "learn")
    }
    chart("Where the time goes", seconds, "seconds per update")
    return page


def _events(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the rules of PPO did, in words."""
    left_out = [name for row in rows for name in row.get("left_out") or {}]
    dropped: Counter[str] = Counter()
    for row in rows:
        dropped.update(row.get("dropped") or {})
    skipped = sum(row.get("skipped_minibatches", 0) for row in rows)
    patched = sum(row.get("reliable") is False for row in rows)
    events = []
    if patched:
        events.append(
            f"**In {patched} updates over 30 % of the calls were patched: their rewards judge the recording more than "
            "the student.**"
        )
    events += [
        f"Update {row['update']}: {row['runaway']['reason']}; back to the student of update "
        f"{row['runaway']['returned_to']}"
        for row in rows
        if row.get("runaway")
    ]
    if left_out:
        events.append(f"{len(left_out)} prompts do not fit the window and were left out: {', '.join(left_out[:8])}")
    if dropped:
        events.append("Episodes dropped: " + ", ".join(f"{count} ({kind})" for kind, count in dropped.most_common()))
    if skipped:
        events.append(f"{skipped} minibatches were skipped: their loss or gradient was not a number")
    return events
