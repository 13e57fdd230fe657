"""How good is a student on prompts it has never seen? Greedy episodes, scored, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from claude_capture.claude_trace_schema import Record, Trace
from trainer.config import PpoConfig
from trainer.errors import TrainerError
from trainer.ppo.replay_environment import Coverage
from trainer.ppo.rollout_buffer import Reward, Rollout, collect
from trainer.records import PromptScore, RewardBreakdown, StudentScores, similarity
from trainer.report.statistics import mean_interval
from trainer.run_folder import write_atomic
from trainer.student.episodes import Case

COMPONENTS = ("constraints", "tool_use", "self_correction", "outcome", "depth")


class HeldoutSummary(Record):
    """One student on one set of prompts."""

    n: int = Field(description="Prompts")
    reward: float = Field(description="Mean total, in [-1, 1]")
    ci_low: float = Field(description="Lower bound of the 95 % interval of `reward`")
    ci_high: float = Field(description="Upper bound")
    alignment: float | None = Field(description="Mean tool-use similarity in [0, 1]; None where it never applies")
    constraints: float | None = Field(description="Mean constraint similarity in [0, 1]; None where it never applies")
    exact_sequences: float = Field(description="Share of episodes with the same calls, arguments and order")
    components: dict[str, float | None] = Field(description="Mean of each component in [-1, 1] where it applies")
    malformed: float = Field(description="Share of episodes with a call that could not be read")
    unfinished: float = Field(description="Share of episodes that ended without an answer")
    coverage: dict[str, float] = Field(description="Share of calls by how the replay answered; empty for live tools")
    reliable: bool = Field(description="False where over 30 % of the calls had to be patched")


@dataclass(frozen=True)
class Heldout:
    """Every episode and the summary over them."""

    rows: list[Rollout]
    summary: HeldoutSummary

    @property
    def breakdowns(self) -> list[RewardBreakdown]:
        """One per prompt, in order: what the gate judges."""
        return [row.breakdown for row in self.rows]

    @property
    def workflows(self) -> dict[str, str]:
        """trace_id → type of work."""
        return {row.case.trace_id: row.case.workflow_type for row in self.rows}

    @property
    def references(self) -> list[tuple[Trace, ...]]:
        """The teacher's traces by prompt, each prompt once, however many of its runs are cases."""
        groups = {frozenset(trace.trace_id for trace in row.case.references): row.case.references for row in self.rows}
        return list(groups.values())

    def scores(self, student: str, measured: str) -> StudentScores:
        """What a later version is compared with.

        Args:
            student: name of the student.
            measured: hash of everything that a score depends on beside student and prompt.
        """
        scores = [
            PromptScore(trace_id=row.case.trace_id, workflow_type=row.case.workflow_type, total=row.breakdown.total)
            for row in self.rows
        ]
        return StudentScores(student=student, measured=measured, scores=scores)


def score_cases(
    model: Any,
    tokenizer: Any,
    cases: Sequence[Case],
    reward: Reward,
    ppo: PpoConfig,
    *,
    student: str = "student",
) -> Heldout:
    """Lets a student work greedily on every case.

    Args:
        model: causal language model of transformers, in eval mode.
        ppo: gives the limits of an episode, see `collect`.
        student: version written into the traces.
    """
    rows = collect(
        model,
        tokenizer,
        cases,
        reward,
        ppo,
        student=student,
        turn_rewards=False,
    ).rollouts
    return Heldout(rows, summarise(rows))


def summarise(rows: Sequence[Rollout]) -> HeldoutSummary:
    """Means over at least one episode; a component counts only where it applies."""
    n = len(rows)
    reward = mean_interval([row.breakdown.total for row in rows], method="t", bounds=(-1.0, 1.0))
    means = {name: _mean_component([row.breakdown for row in rows], name) for name in COMPONENTS}
    ledgers = [row.coverage for row in rows if row.coverage is not None]
    coverage = sum(ledgers, Coverage())
    return HeldoutSummary(
        n=n,
        reward=reward.mean,
        ci_low=reward.low,
        ci_high=reward.high,
        alignment=None if means["tool_use"] is None else similarity(means["tool_use"]),
        constraints=None if means["constraints"] is None else similarity(means["constraints"]),
        exact_sequences=sum(row.breakdown.exact_sequence for row in rows) / n,
        components=means,
        malformed=sum(row.episode.malformed > 0 for row in rows) / n,
        unfinished=sum(row.episode.stop != "answer" for row in rows) / n,
        coverage=coverage.shares() if ledgers else {},
        reliable=coverage.reliable,
    )


def _mean_component(breakdowns: Sequence[RewardBreakdown], name: str) -> float | None:
    values = [value for b in breakdowns if (value := getattr(b.components, name)) is not None]
    return sum(values) / len(values) if values else None


def write_scores(path: Path, scores: StudentScores) -> Path:
    """Writes a student's scores; returns the path."""
    write_atomic(path, scores.model_dump_json(indent=1) + "\n")
    return path


def read_scores(path: Path) -> StudentScores | None:
    """A student's scores; None where there are none.

    Raises:
        TrainerError: the file is not one of ours.
    """
    try:
        return StudentScores.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise TrainerError(f"{path}: not a student's scores ({str(error).splitlines()[0]}); delete it") from None


def read_heldout(folder: Path) -> tuple[HeldoutSummary, list[RewardBreakdown]]:
    """What `Road.heldout` left in a run folder: the summary, and one breakdown per prompt."""
    summary = HeldoutSummary.model_validate_json((folder / "result.json").read_bytes())
    lines = (folder / "scores.jsonl").read_bytes().splitlines()
    return summary, [RewardBreakdown.model_validate_json(line) for line in lines]
