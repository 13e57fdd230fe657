"""How good is a student on prompts it has never seen? Greedy episodes, scored, with intervals and a floor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from claude_capture.claude_trace_schema import Record, Trace
from trainer.ppo.replay_environment import Coverage
from trainer.ppo.rollout_buffer import Reward, Rollout, collect
from trainer.records import RewardBreakdown, similarity
from trainer.report.statistics import Interval, mean_interval
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


def score_cases(
    model: Any,
    tokenizer: Any,
    cases: Sequence[Case],
    reward: Reward,
    *,
    max_turns: int,
    max_new_tokens: int,
    batch_size: int = 64,
    student: str = "student",
) -> Heldout:
    """Lets a student work greedily on every case.

    Args:
        model: causal language model of transformers, in eval mode.
        batch_size: episodes that are generated together.
        student: version written into the traces.
    """
    rows = collect(
        model,
        tokenizer,
        cases,
        reward,
        max_turns=max_turns,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
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


def prompt_blind_floor(cases: Sequence[Case], reward: Reward) -> Interval:
    """What a policy earns that does not read the prompt: always the same calls and answer, the commonest ones.

    It replays the first reference whose tool sequence is the most frequent of all; where that is the prompt's own
    reference, the next one of the same sequence (a prompt without another one is left out).

    Raises:
        TrainerError: no prompt is left.
    """
    first = [case.references[0] for case in cases if case.references]
    sequence = Counter(_tools(trace) for trace in first).most_common(1)
    constant = [trace for trace in first if sequence and _tools(trace) == sequence[0][0]][:2]
    totals = []
    for case in cases:
        own = {trace.trace_id for trace in case.references}
        answer = next((trace for trace in constant if trace.trace_id not in own), None)
        if answer is not None and case.references:
            prompt = {"trace_id": case.trace_id, "user_prompt": case.references[0].user_prompt}
            totals.append(reward.score(answer.model_copy(update=prompt), case.references).total)
    return mean_interval(totals, method="t", bounds=(-1.0, 1.0))


def _tools(trace: Trace) -> tuple[str, ...]:
    return tuple(call.tool for call in trace.tool_calls)
