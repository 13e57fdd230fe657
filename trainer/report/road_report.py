"""The report of a whole road: how the loss fell, what each student earns on held-out prompts, what the gate says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from claude_capture.claude_trace_schema import Trace
from trainer.records import BaselineReport, GateReport, RewardBreakdown
from trainer.report.baseline_section import baseline_section
from trainer.report.page import Page
from trainer.report.plots import bar_chart, heat_map, line_chart
from trainer.report.statistics import mean_interval

COMPONENTS = ("tool_use", "constraints", "outcome", "self_correction", "depth")
NO_CALL = "—"
Scored = Mapping[str, Sequence[RewardBreakdown]]
"""Student → its scores, one per held-out prompt."""


def _reward_chart(page: Page, scored: Scored) -> None:
    """Bars per component and in total, one per student, with 95 % intervals."""
    groups = ["total", *COMPONENTS]
    values: dict[str, list[float | None]] = {}
    errors: dict[str, list[tuple[float, float] | None]] = {}
    for student, breakdowns in scored.items():
        values[student], errors[student] = [], []
        for group in groups:
            found = [b.total if group == "total" else getattr(b.components, group) for b in breakdowns]
            known = [value for value in found if value is not None]
            interval = mean_interval(known, method="t", bounds=(-1.0, 1.0)) if known else None
            values[student].append(interval.mean if interval else None)
            errors[student].append((interval.low, interval.high) if interval else None)
    n = len(next(iter(scored.values())))
    page.figure(
        f"Behavioural reward on {n} held-out prompts, in [-1, 1], with 95 % intervals. "
        "A component is 2s − 1 of a similarity s; it counts only where it applies.",
        bar_chart(groups, values, errors, ylabel="reward", limits=(-1.15, 1.1)),
    )


def tool_confusion(pairs: Sequence[tuple[Trace, Trace]]) -> tuple[list[list[float]], list[str], list[str]]:
    """How often the student took which tool where the teacher took which, position by position.

    Returns:
        matrix (rows teacher, columns student; counts), row names, column names; a dash where one of them had ended.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for teacher, student in pairs:
        theirs, own = ([call.tool for call in trace.tool_calls] for trace in (teacher, student))
        counts.update(zip_longest(theirs, own, fillvalue=NO_CALL))
    names = [*sorted({name for pair in counts for name in pair} - {NO_CALL}), NO_CALL]
    return [[float(counts[row, column]) for column in names] for row in names], names, names


def loss_figure(page: Page, sft_metrics: Sequence[Mapping[str, Any]]) -> None:
    """Adds the loss curve of an SFT run.

    Args:
        sft_metrics: rows of the run's metrics.jsonl.
    """
    losses = [(float(row["step"]), float(row["loss"])) for row in sft_metrics if "loss" in row]
    page.figure(
        "SFT: negative log-likelihood of what the teacher wrote, nats per token.",
        line_chart({"loss": losses}, "step", "nats per token", log=True),
    )


def sft_page(
    metrics: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any],
    samples: int,
    base: str,
    looks: Sequence[Mapping[str, Any]] = (),
) -> Page:
    """The report of an SFT run alone.

    Args:
        metrics, result: of its run folder; no result while it runs.
        samples: how many it was trained on.
        base: `student.base_model` of the config.
        looks: lines of its samples.jsonl.
    """
    page = Page("Supervised fine-tuning", f"{samples} samples on base {base}")
    loss_figure(page, metrics)
    if result:
        page.figures({name: value for name, value in result.items() if name not in ("base", "adapter")})
    for name, caption, unit, scale in (
        ("tokens_per_second", "Speed, with everything between the steps.", "tokens per second", 1.0),
        ("memory", "Peak memory so far: of the GPU, or of the process where there is none.", "GB", 1e-9),
    ):
        if points := [(float(row["step"]), row[name] * scale) for row in metrics if name in row]:
            page.figure(caption, line_chart({unit: points}, "step", unit))
    if looks:
        page.text("## What the student writes\nIts first turn on the same prompts as it learns, the likeliest words.")
    for prompt in dict.fromkeys(look["prompt"] for look in looks):
        rows = [look for look in looks if look["prompt"] == prompt]
        page.text(f"### {' '.join(prompt.split())[:200]}")
        page.table(
            ["step", "it writes"],
            [[row["step"], row["student"] or _nothing_written(row)] for row in rows]
            + [["teacher", rows[-1]["teacher"]]],
        )
    return page


def _nothing_written(look: Mapping[str, Any]) -> str:
    return "(nothing: the prompt does not fit the window)" if look.get("stop") == "window" else "(nothing)"


def write_road_report(
    path: Path,
    *,
    title: str,
    subtitle: str,
    sft_metrics: Sequence[Mapping[str, Any]],
    ppo_metrics: Sequence[Mapping[str, Any]],
    scored: Scored,
    pairs: Sequence[tuple[Trace, Trace]],
    gate: GateReport,
    summary: Mapping[str, Any],
    stages: Sequence[tuple[str, str, str, float]],
    baselines: BaselineReport | None = None,
) -> Path:
    """Writes report.html.

    Args:
        sft_metrics, ppo_metrics: rows of the two runs' metrics.jsonl.
        pairs: (teacher, student) traces of the held-out prompts, of the student that was judged.
        summary: the numbers of summary.json.
        stages: name, what went in, what came out, seconds.
        baselines: PPO beside what else could have been done, where that was compared.
    """
    page = Page(title, subtitle)
    page.verdict(f"Quality gate: {gate.verdict}", {"PASS": True, "FAIL": False}.get(gate.verdict), gate.reasons)
    held = summary["heldout"]
    page.table(
        ["student", "reward", "95 % interval", "tool alignment", "constraints", "exact sequences", "n"],
        [
            [
                name,
                row["reward"],
                f"{row['ci_low']:.3f} to {row['ci_high']:.3f}",
                row["alignment"],
                row["constraints"],
                row["exact_sequences"],
                row["n"],
            ]
            for name, row in held.items()
        ],
        "Held-out prompts, greedy episodes. Alignment and constraints are similarities in [0, 1].",
    )
    page.text("## What each student earns")
    _reward_chart(page, scored)
    if baselines is not None:
        baseline_section(page.text(f"## What PPO is worth\n{baselines.sentence}"), baselines)
    page.text("## Which tool where")
    matrix, rows, columns = tool_confusion(pairs)
    page.figure(
        "Teacher's tool (rows) against the student's (columns) at the same position of the episode.",
        heat_map(matrix, rows, columns, xlabel="student", ylabel="teacher"),
    )
    page.text("## How it learned")
    loss_figure(page, sft_metrics)
    rewards = [(float(row["update"]), float(row["reward"])) for row in ppo_metrics if "reward" in row]
    divergences = [(float(row["update"]), float(row["kl"])) for row in ppo_metrics if "kl" in row]
    if rewards:
        page.figure(
            "PPO: mean reward of the sampled episodes of an update (temperature 1, training prompts).",
            line_chart({"reward": rewards}, "update", "reward"),
        )
    if divergences:
        page.figure(
            "PPO: KL divergence from the SFT student, nats per episode.",
            line_chart({"KL": divergences}, "update", "nats"),
        )
    gguf = summary["gguf"]
    page.text("## The exported model")
    page.table(
        ["file", "bytes", "argmax agreement", "with"],
        [
            ["f16", gguf["f16_bytes"], _percent(gguf["f16_argmax_agreement"]), "transformers"],
            ["q4_k_m", gguf["q4_bytes"], _percent(gguf["q4_argmax_agreement"]), "f16"],
        ],
    )
    page.text("## Stages")
    page.table(["stage", "in", "out", "seconds"], [[name, i, o, f"{s:.1f}"] for name, i, o, s in stages])
    return page.write(path)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"
