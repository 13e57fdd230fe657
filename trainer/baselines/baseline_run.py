"""Trains and scores the students of the baseline table, each with each seed, and keeps every score on disk.

    runs/baselines-<hash>/   result.json  baselines.html  scores/<student>-<seed>.json  ppo-seed1/ …

What is there is not made again, so an interrupted comparison goes on, and more students or seeds can be added later.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trainer.baselines.baseline_table import ORACLE, PPO, SFT, baseline_report
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.ppo.heldout import score_cases, summarise
from trainer.ppo.rollout_buffer import Reward, Rollout
from trainer.records import BaselineReport, BaselineScores
from trainer.report.baseline_section import baseline_section
from trainer.report.page import Page
from trainer.run_folder import RunFolder, write_atomic
from trainer.student.base_model import load_adapted, load_tokenizer
from trainer.student.episodes import Case

CONSISTENT = "best-of-n-consistent"
STUDENTS = ("untrained", SFT, "best-of-n", PPO, "grpo")
"""What can be asked for; best-of-n gives two rows."""
GREEDY = ("untrained", SFT)
"""Those that no seed changes; they are scored once."""
Progress = Callable[[str, float, float, str], None]
"""Called with (student and seed, done, total, note)."""


@dataclass(frozen=True)
class Bench:
    """What all students have in common."""

    config: Config
    base: str
    sft: Path
    """The SFT adapter that everyone starts from."""
    train: Sequence[Case]
    validation: Sequence[Case]
    test: Sequence[Case]
    reward: Reward
    run: RunFolder
    samples: int
    """n of best of n."""
    finished_ppo: RunFolder | None = None
    """The road's own version 1, which is PPO with the config's seed; trained anew where it is None."""

    def file(self, student: str, seed: int) -> Path:
        """Where the scores of a student with a seed are kept."""
        return self.run.path / "scores" / f"{student}-{seed}.json"

    def keep(
        self, student: str, seed: int, rows: Sequence[Rollout], written_tokens: int = 0, left_out: Sequence[str] = ()
    ) -> None:
        """Stores what a student's episodes earned."""
        summary = summarise(rows)
        scores = BaselineScores(
            student=student,
            seed=seed,
            totals=[row.breakdown.total for row in rows],
            alignment=summary.alignment,
            exact_sequences=summary.exact_sequences,
            written_tokens=written_tokens,
            left_out=list(left_out),
        )
        write_atomic(self.file(student, seed), scores.model_dump_json(indent=1) + "\n")

    def greedy(self, model: Any, tokenizer: Any) -> list[Rollout]:
        """The student's episodes on the held-out prompts."""
        return score_cases(model, tokenizer, self.test, self.reward, self.config.ppo).rows


def compare_students(bench: Bench, students: Sequence[str], seeds: Sequence[int], progress: Progress) -> BaselineReport:
    """Makes and scores what is missing, then writes result.json and baselines.html over all that was ever scored.

    Args:
        students: some of STUDENTS; SFT is always among them, PPO where GRPO is (it sets the budget).
        seeds: seeds of PPO, GRPO and of the sampling for best of n.

    Raises:
        TrainerError: an unknown student, no seed, or no held-out prompt.
    """
    if unknown := next((student for student in students if student not in STUDENTS), None):
        raise TrainerError(f"{unknown!r} is no student of the comparison; there are {', '.join(STUDENTS)}")
    if not seeds or not bench.test:
        raise TrainerError("baselines want at least one seed and one held-out prompt")
    wanted = {*students, SFT, *((PPO,) if "grpo" in students else ())}
    for student in GREEDY:
        if student in wanted and not bench.file(student, 0).exists():
            progress(student, 0, 1, "")
            model = load_adapted(bench.base, bench.config.student, bench.sft if student == SFT else None)
            bench.keep(student, 0, bench.greedy(model, load_tokenizer(bench.base)))
    for seed in seeds:
        for student, make in (("best-of-n", _best_of_n), (PPO, _ppo), ("grpo", _grpo)):
            last_written = ORACLE if student == "best-of-n" else student
            if student in wanted and not bench.file(last_written, seed).exists():
                make(bench, seed, partial(progress, f"{student} seed {seed}"))
    kept = _kept(bench)
    seeded = sorted({one.seed for one in kept if one.student not in GREEDY})
    report = baseline_report(kept, samples=bench.samples, seeds=seeded)
    bench.run.finish(**report.model_dump(mode="json"))
    page = Page(
        "PPO and its baselines", f"{report.prompts} held-out prompts, seeds {', '.join(map(str, seeded)) or '-'}"
    )
    baseline_section(page.verdict(report.sentence, report.earned), report).write(bench.run.path / "baselines.html")
    return report


def _kept(bench: Bench) -> list[BaselineScores]:
    """Everything that was scored, now or before."""
    files = sorted((bench.run.path / "scores").glob("*.json"))
    return [BaselineScores.model_validate_json(file.read_bytes()) for file in files]


Tell = Callable[[float, float, str], None]


def _best_of_n(bench: Bench, seed: int, tell: Tell) -> None:
    from trainer.baselines.best_of_n import best_of_n

    tell(0, 1, f"{bench.samples} samples per prompt")
    model = load_adapted(bench.base, bench.config.student, bench.sft)
    tokenizer, ppo = load_tokenizer(bench.base), bench.config.ppo
    found = best_of_n(model, tokenizer, bench.test, bench.reward, ppo, samples=bench.samples, seed=seed * 2**20)
    bench.keep(CONSISTENT, seed, found.consistent)
    bench.keep(ORACLE, seed, found.oracle)  # last: where it is, both are


def _ppo(bench: Bench, seed: int, tell: Tell) -> None:
    from trainer.ppo.ppo_trainer import train_ppo

    config = bench.config
    run = bench.finished_ppo
    if run is None or seed != config.student.seed:
        config = config.model_copy(update={"student": config.student.model_copy(update={"seed": seed})})
        run = RunFolder(bench.run.path, f"ppo-seed{seed}", config)
    if run.result is None:
        train_ppo(
            load_adapted(bench.base, config.student, bench.sft, trainable=True),
            load_tokenizer(bench.base),
            bench.train,
            bench.validation[: config.ppo.eval_prompts],
            bench.reward,
            config,
            run,
            progress=lambda done, total, metrics: tell(done, total, f"reward {metrics.get('reward', math.nan):.3f}"),
        )
    model = load_adapted(bench.base, config.student, run.output("adapter"))
    rows = bench.greedy(model, load_tokenizer(bench.base))
    bench.keep(PPO, seed, rows, tokens_written(run, config), (run.result or {}).get("left_out", ()))


def tokens_written(run: RunFolder, config: Config) -> int:
    """Tokens that the student wrote in the sampled episodes of a PPO run: what GRPO may write too."""
    means: list[float] = [
        row["written_tokens"] for row in run.metrics() if row.get("update", 0) > 0 and "written_tokens" in row
    ]
    return round(sum(means) * config.ppo.episodes_per_update)


def _grpo(bench: Bench, seed: int, tell: Tell) -> None:
    from trainer.baselines.grpo import train_grpo

    budget = BaselineScores.model_validate_json(bench.file(PPO, seed).read_bytes()).written_tokens
    model, tokenizer = (
        load_adapted(bench.base, bench.config.student, bench.sft, trainable=True),
        load_tokenizer(bench.base),
    )
    folder = bench.run.path / f"grpo-seed{seed}"
    run = train_grpo(
        model,
        tokenizer,
        bench.train,
        bench.reward,
        bench.config,
        folder,
        seed=seed,
        budget=budget,
        progress=lambda done, total: tell(done, total, f"{done:,} of {total:,} tokens"),
    )
    shutil.rmtree(folder, ignore_errors=True)
    bench.keep("grpo", seed, bench.greedy(model.get_base_model(), tokenizer), run.written_tokens, run.left_out)
