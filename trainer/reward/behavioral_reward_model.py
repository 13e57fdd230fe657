"""The behavioural reward: how much like the teacher did the student work? One number in [-1, 1] and its reasons.

Five components, each a similarity s in [0, 1] shown as 2s - 1, weighted (config.RewardConfig) and renormalised over
those that apply:

    total = Σ w·(2s - 1) / Σ w

Of several references the one with the highest total counts, whatever their order. Two rules keep the reward from
being earned by other means than the work:

1. *Engagement.* What is credited for something that did not happen (a limit not broken, an error not made, a
   measure not exceeded) is scaled by how much of the work was done, from 0 at max(alignment, outcome) = 0.2 to 1 at
   0.8: doing nothing keeps every rule, and so does doing something else.
2. *A component that only the student brought into play may lower the total, never raise it*: a constraint stated or
   an error made where the reference has none is left out (None) if it would raise the mean of the others.

The explanation has one entry for each lost point; the figures in brackets add up to 1 - total.
"""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from claude_capture.claude_trace_schema import Trace
from trainer.config import EngineConfig, RewardConfig
from trainer.errors import TrainerError
from trainer.records import RewardBreakdown, RewardComponents
from trainer.reward.behaviour import Behaviour
from trainer.reward.constraint_detection import judge_constraints
from trainer.reward.outcome_equivalence import Outcome, judge_outcome
from trainer.reward.reasoning_depth import judge_depth, words_of_reference
from trainer.reward.self_correction import judge_self_correction
from trainer.reward.tool_alignment import Alignment, judge_tool_use
from trainer.reward.verdict import NOT_APPLICABLE, Verdict

COMPONENTS = ("constraints", "tool_use", "self_correction", "outcome", "depth")
NO_WORK, FULL_WORK = 0.2, 0.8
"""Similarity of alignment or outcome below which nothing, and from which everything, counts as done."""

TrlReward = Callable[..., list[float | None]]
"""TRL's signature: f(prompts, completions, **columns) -> one reward per completion, None where there is none."""


class _View:
    """A trace read for scoring; what only a reference needs is computed once."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.behaviour = Behaviour(trace)
        self.outcome = Outcome(self.behaviour)
        self._words: frozenset[str] | None = None

    @property
    def words(self) -> frozenset[str]:
        if self._words is None:
            self._words = words_of_reference(self.behaviour)
        return self._words


class BehavioralRewardModel:
    """Scores student traces against teacher traces of the same prompt.

    Args:
        config: weights of the components.
        cached_references: how many read references are kept, so that many rollouts of a prompt read it once.

    Raises:
        TrainerError: all weights are 0.
    """

    def __init__(self, config: RewardConfig | None = None, *, cached_references: int = 4096) -> None:
        chosen = config or RewardConfig()
        self.weights = {name: float(getattr(chosen, name)) for name in COMPONENTS}
        if sum(self.weights.values()) <= 0:
            raise TrainerError("[reward]: all five weights are 0; at least one must be positive")
        self._cached = cached_references
        self._references: OrderedDict[int, _View] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"weights": self.weights, "_cached": self._cached}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _references=OrderedDict(), _lock=threading.Lock())

    def score(self, student: Trace, references: Sequence[Trace]) -> RewardBreakdown:
        """The reward of one episode.

        Args:
            student: the student's trace; may be empty or garbage.
            references: teacher traces of the same prompt, at least one.

        Raises:
            TrainerError: no reference.
        """
        if not references:
            raise TrainerError(f"trace {student.trace_id}: no reference to score against; give at least one")
        view = _View(student)
        best: _Score | None = None
        for reference in references:
            found = _Score(self.weights, view, self._reference(reference))
            if best is None or found.rank > best.rank:
                best = found
        assert best is not None
        return best.breakdown()

    def score_many(
        self,
        pairs: Iterable[tuple[Trace, Sequence[Trace]]],
        *,
        workers: int = 1,
        engine: EngineConfig | None = None,
    ) -> list[RewardBreakdown]:
        """Scores (student, references) pairs, in order; with several workers in a pool of processes, or on Ray.

        A worker has to be sent the traces, which costs as much as scoring short ones: a pool pays for long traces
        with many edits, not for small batches.
        """
        if workers <= 1 and (engine is None or engine.name == "local"):
            collecting = gc.isenabled()
            gc.disable()  # scoring makes many small objects and no cycles: the collector would only walk them
            try:
                return [self.score(student, references) for student, references in pairs]
            finally:
                if collecting:
                    gc.enable()
        from trainer.dataset.chunk_tasks import run_tasks

        work = list(pairs)
        size = max(1, -(-len(work) // (4 * workers)))
        chunks = [work[start : start + size] for start in range(0, len(work), size)]
        return [breakdown for part in run_tasks(self.score_many, chunks, workers, engine=engine) for breakdown in part]

    def trl_reward(
        self, references: Mapping[str, Sequence[Trace]], *, student: str = "student", tokenizer: Any = None
    ) -> TrlReward:
        """The reward as TRL's trainers call it.

        Args:
            references: teacher traces by trace_id. The dataset needs a column `trace_id`.
            student: name stored on the traces made from the completions.
            tokenizer: the student's, for completions of a single turn that TRL does not parse: TRL decodes them
                without control tokens, and calls are lost; with it they are read from `completion_ids`.

        Returns:
            f(prompts, completions, trace_id, **columns): prompts and completions as lists of messages (or the text
            of a single assistant turn); None for a trace_id without references. TrainerError where the dataset has
            no column trace_id.
        """

        def behavioural_reward(
            prompts: Sequence[Any],
            completions: Sequence[Any],
            *,
            trace_id: Sequence[str] | None = None,
            completion_ids: Sequence[Sequence[int]] | None = None,
            **columns: Any,
        ) -> list[float | None]:
            from trainer.reward.completions import completion_messages, prompt_messages, turns_in
            from trainer.student.episode_trace import trace_of

            if trace_id is None:
                raise TrainerError("the dataset has no column trace_id; the reward finds a prompt's references by it")
            rewards: list[float | None] = []
            for at, (prompt, completion, name) in enumerate(zip(prompts, completions, trace_id, strict=True)):
                known = references.get(name)
                if not known:
                    rewards.append(None)
                    continue
                written = None
                if tokenizer is not None and completion_ids is not None and turns_in(completion) == 1:
                    written = tokenizer.decode(completion_ids[at], skip_special_tokens=False)
                messages = [*prompt_messages(prompt), *completion_messages(completion, written)]
                rewards.append(self.score(trace_of(messages, reference=known[0], student=student), known).total)
            return rewards

        return behavioural_reward

    def _reference(self, trace: Trace) -> _View:
        """The read reference. Kept with its trace, so that the id stays taken as long as the entry lives."""
        with self._lock:
            view = self._references.get(id(trace))
            if view is not None:
                self._references.move_to_end(id(trace))
                return view
        view = _View(trace)
        with self._lock:
            self._references[id(trace)] = view
            if len(self._references) > self._cached:
                self._references.popitem(last=False)
        return view


class _Score:
    """One student against one reference."""

    def __init__(self, weights: Mapping[str, float], student: _View, reference: _View) -> None:
        self.student = student
        self.reference = reference
        mine, other = student.behaviour, reference.behaviour
        self.alignment = Alignment(mine, other)
        outcome = judge_outcome(student.outcome, reference.outcome)
        engagement = _engagement(self.alignment, outcome)
        verdicts = {
            "constraints": judge_constraints(mine, other, engagement),
            "tool_use": judge_tool_use(self.alignment),
            "self_correction": judge_self_correction(mine, other, engagement),
            "outcome": outcome,
            "depth": judge_depth(self.alignment, reference.words, engagement),
        }
        self.verdicts, self.total, self.weight = _combine(weights, verdicts)
        self.weights = weights
        self.rank = (self.total, reference.trace.trace_id, reference.behaviour.keys, reference.behaviour.response)

    def breakdown(self) -> RewardBreakdown:
        values: dict[str, Any] = {
            name: None if verdict.similarity is None else 2 * verdict.similarity - 1
            for name, verdict in self.verdicts.items()
        }
        return RewardBreakdown.model_construct(
            trace_id=self.student.trace.trace_id,
            total=self.total,
            components=RewardComponents(**values),
            explanation=self.explanation(),
            exact_sequence=self.alignment.exact,
            diagnostics=self.alignment.diagnostics(),
        )

    def explanation(self) -> list[str]:
        """Largest loss first; equal reasons are joined; the costs add up to 1 - total."""
        costs: dict[tuple[str, str], list[float]] = {}
        for name, verdict in self.verdicts.items():
            if verdict.similarity is None or verdict.similarity >= 1 or not self.weights[name]:
                continue
            shares = sum([share for share, _ in verdict.losses]) or 1.0
            scale = 2 * (1 - verdict.similarity) * self.weights[name] / self.weight / shares
            for share, reason in verdict.losses:
                costs.setdefault((name, reason), []).append(share * scale)
        entries = sorted(((sum(c), len(c), *key) for key, c in costs.items()), key=lambda e: (-e[0], e[2], e[3]))
        return [
            f"{reason}{f' ×{count}' if count > 1 else ''} ({name} −{cost:.3f})" for cost, count, name, reason in entries
        ]


def _engagement(alignment: Alignment, outcome: Verdict) -> float:
    """How much of the work was done at all, in [0, 1], see rule 1 of the module."""
    done = outcome.similarity
    if alignment.reference.calls:
        done = max(alignment.soft, done or 0.0)
    if done is None:
        return 1.0
    return min(1.0, max(0.0, (done - NO_WORK) / (FULL_WORK - NO_WORK)))


def _combine(weights: Mapping[str, float], verdicts: dict[str, Verdict]) -> tuple[dict[str, Verdict], float, float]:
    """Verdicts that count, their weighted mean of 2s - 1, and the weight that it was divided by.

    A component that only the student brought into play counts where it lowers the mean of the others; taken from the
    lowest on, this gives the least mean of all choices, which is monotone in every component.
    """
    counting: dict[str, Verdict] = {}
    doubtful: list[str] = []
    for name, verdict in verdicts.items():
        if verdict.similarity is None or weights[name] <= 0:
            continue
        if verdict.student_only:
            doubtful.append(name)
        else:
            counting[name] = verdict
    total, weight = _mean(weights, counting)
    for name in sorted(doubtful, key=lambda n: verdicts[n].similarity or 0.0):
        with_it = {**counting, name: verdicts[name]}
        lowered, heavier = _mean(weights, with_it)
        if lowered < total or not counting:
            counting, total, weight = with_it, lowered, heavier
    ordered = {name: verdict if name in counting else NOT_APPLICABLE for name, verdict in verdicts.items()}
    return ordered, max(-1.0, min(1.0, total)), weight


def _mean(weights: Mapping[str, float], verdicts: Mapping[str, Verdict]) -> tuple[float, float]:
    weight = earned = 0.0
    for name in COMPONENTS:
        verdict = verdicts.get(name)
        if verdict is not None and verdict.similarity is not None:
            weight += weights[name]
            earned += weights[name] * (2 * verdict.similarity - 1)
    return (earned / weight if weight else 0.0), weight
