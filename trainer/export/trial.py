"""The exported file against the trained student, on the user's own held-out prompts.

Two questions, since a header can be right and the numbers wrong. Are the logits those of the trained weights? The q/k
permutation, the merge and the quantisation show only there. And does the file still work as the student did? The
behavioural gate is run once more, through llama.cpp, on the very file that goes into service.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from trainer.config import Config, GateConfig
from trainer.errors import TrainerError
from trainer.export.export_records import (
    Check,
    ExportReport,
    Progress,
    Status,
    Trial,
    WorkflowScore,
    not_run,
)
from trainer.export.llama_runtime import GgufModel, run_episode
from trainer.export.parity import ParityReport, export_parity, gguf_parity, memory_needed
from trainer.ppo.quality_gate import compare, judge
from trainer.ppo.replay_environment import ReplayEnvironment
from trainer.ppo.rollout_buffer import Reward, Rollout, score_episode
from trainer.records import BCSample, GateReport, StudentScores
from trainer.reward.behavioral_reward_model import BehavioralRewardModel
from trainer.student.chat_format import render
from trainer.student.episodes import Case

PLAIN_WANTED, PLAIN_LEAST = 0.999, 0.99
"""Top-1 agreement of the 16-bit file with transformers: below the first a note, below the second a failure."""
QUANTIZED_WANTED, QUANTIZED_LEAST = 0.97, 0.90
"""The same for the quantised file against the 16-bit one."""
QUICK_PROMPTS = 10
TEXTS = 40
"""Held-out conversations on which the logits are compared, the first ones: some 10,000 tokens."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out prompts, and what is needed to put them to a file."""

    cases: Sequence[Case]
    texts: Sequence[str]
    """Rendered held-out conversations."""
    reward: Reward
    gate: GateConfig
    max_turns: int
    max_new_tokens: int
    student: GateReport | None = None
    """The gate's verdict on the trained student, by transformers."""
    scores: StudentScores | None = None
    """What that student earned per prompt: the file is then compared with it, type of work by type of work."""
    export: ExportReport | None = None
    """What the file was made from; without it the logits are compared as far as files are found."""
    logits: bool = True
    """Whether they are compared at all."""

    def quick(self, prompts: int = QUICK_PROMPTS) -> HeldOut:
        """The same with few prompts, evenly spread."""
        return replace(self, cases=_spread(self.cases, prompts), texts=_spread(self.texts, prompts))


T = TypeVar("T")


def _spread(values: Sequence[T], count: int) -> list[T]:
    """At most `count` of them, evenly spread."""
    return list(values[:: -(-len(values) // count)]) if values and count else []


def held_out(
    cases: Sequence[Case],
    samples: Sequence[BCSample],
    config: Config,
    *,
    student: GateReport | None = None,
    scores: StudentScores | None = None,
    export: ExportReport | None = None,
) -> HeldOut:
    """What a config says of its held-out prompts.

    Args:
        cases: the prompts of the test split.
        samples: its samples, whose conversations the logits are compared on.
        student, scores, export: see `HeldOut`.
    """
    return HeldOut(
        cases=_spread(cases, config.export.trial_prompts),
        texts=[render(sample.messages, sample.tools) for sample in samples],
        reward=BehavioralRewardModel(config.reward),
        gate=config.gate,
        max_turns=config.ppo.max_turns,
        max_new_tokens=config.ppo.max_new_tokens,
        student=student,
        scores=scores,
        export=export,
        logits=config.export.compare_logits,
    )


def require_memory(base: Path, heldout: HeldOut) -> None:
    """Refuses a comparison of logits for which there is no room, before any work is done.

    Raises:
        TrainerError: what is needed, what is free, and how to do without.
    """
    texts = heldout.texts[:TEXTS]
    if not (heldout.logits and texts and heldout.cases):
        return
    import psutil  # type: ignore[import-untyped]

    from trainer.export.checkpoint import Checkpoint
    from trainer.export.llama_vocabulary import read_tokenizer

    tokenizer = read_tokenizer(base)
    longest = max(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
    needed, free = memory_needed(Checkpoint(base), longest), int(psutil.virtual_memory().available)
    if needed > free:
        raise TrainerError(
            f"{base}: comparing the file's logits with this base takes {needed / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are free; free some, or leave it out with --no-logits (export.compare_logits = false)"
        )


def logit_checks(path: Path, heldout: HeldOut, trial: Trial) -> list[Check]:
    """The 16-bit file against transformers, the quantised one against it; the figures go into `trial`."""
    if not heldout.logits:
        why = "left out: --no-logits, or export.compare_logits = false"
        return [not_run("logits_plain", why), not_run("logits_quantized", why)]
    export, texts = heldout.export, heldout.texts[:TEXTS]
    if export is None:
        why = "which base, adapter and 16-bit file it was made from is in no registry beside it"
        return [not_run("logits_plain", why), not_run("logits_quantized", why)]
    plain = Path(export.plain.path)
    if not plain.is_file():
        why = f"{plain}: missing"
        return [not_run("logits_plain", why), not_run("logits_quantized", why)]
    gone = next(
        (one for one in (export.base, export.adapter) if one is not None and not Path(one or "?").is_dir()), None
    )
    if gone is None:
        both = export_parity(export, texts)
        first = _agreement(
            "logits_plain", both.plain, f"{export.plain.type} against transformers", PLAIN_WANTED, PLAIN_LEAST
        )
        trial.parity["plain"] = both.plain.model_dump()
        quantized = both.quantized
    else:
        first = not_run("logits_plain", f"the base or adapter it was made from is not here: {gone or '(unknown)'}")
        quantized = gguf_parity(plain, path, texts)
    trial.parity["quantized"] = quantized.model_dump()
    kind = f"{export.quantized.type} against {export.plain.type}"
    return [first, _agreement("logits_quantized", quantized, kind, QUANTIZED_WANTED, QUANTIZED_LEAST)]


def _agreement(name: str, found: ParityReport, what: str, wanted: float, least: float) -> Check:
    detail = (
        f"{what}: {found.argmax_agreement:.2%} top-1 agreement over {found.tokens} tokens, KL {found.kl:.2g}, "
        f"largest logit difference {found.max_logit_diff:.2g}"
    )
    if found.argmax_agreement >= wanted:
        return Check(name=name, status="passed", detail=detail)
    advice = {
        "logits_plain": "the weights are not the trained ones (merge, q/k order, RoPE): export again from the base",
        "logits_quantized": "too much was lost: set export.quantization to a larger type, e.g. q5_k_m or q8_0",
    }[name]
    status: Status = "warning" if found.argmax_agreement >= least else "failed"
    return Check(name=name, status=status, detail=f"{detail}; {wanted:.1%} is wanted", advice=advice)


def context_check(path: Path, heldout: HeldOut) -> Check:
    """The window holds every held-out conversation: servers drop the oldest messages of a longer one in silence."""
    with GgufModel(path, vocab_only=True) as vocabulary:
        longest = max(len(vocabulary.encode(text)) for text in heldout.texts)
        window = int(vocabulary.metadata.get("llama.context_length", 0))
    detail = f"window of {window} tokens, the longest held-out conversation has {longest}"
    if longest <= window:
        return Check(name="context", status="passed", detail=detail)
    advice = f"set export.context_length to {longest + heldout.max_new_tokens} or more and export again"
    return Check(name="context", status="failed", detail=detail, advice=advice)


def behaviour_check(path: Path, heldout: HeldOut, trial: Trial, progress: Progress | None) -> Check:
    """The gate, run through llama.cpp on the file; verdict and figures go into `trial`.

    A type of work in which the file earns provably less than the trained student is a failure. So is a failed gate,
    unless the trained student did not pass it either: then the file is what it should be, and the student is not.
    """
    rows = _work(path, heldout, progress)
    workflows = {row.case.trace_id: row.case.workflow_type for row in rows}
    breakdowns = [row.breakdown for row in rows]
    gate = judge(breakdowns, heldout.gate, student=path.stem)
    worse = []
    if heldout.scores is not None:
        compared = compare(breakdowns, workflows, heldout.scores, heldout.gate)
        worse = [found for found in compared if found.verdict == "FAIL"]
    trial.gate = gate
    trial.workflows = _by_workflow(rows)
    detail = f"{gate.verdict} through llama.cpp over {gate.n} prompts: " + ", ".join(
        f"{measure.name} {measure.mean:.3f}" for measure in gate.measures if measure.n
    )
    student = heldout.student
    if student is not None:
        before = ", ".join(f"{measure.name} {measure.mean:.3f}" for measure in student.measures if measure.n)
        detail += f" (the trained student: {student.verdict}{f', {before}' if before else ''})"
    if worse:
        detail += f"; {worse[0].workflow}: {worse[0].difference:+.3f} against the trained student"
    elif gate.verdict == "PASS":
        return Check(name="behaviour", status="passed", detail=detail)
    excused = heldout.scores is not None if student is None else not student.passed
    if worse or (gate.verdict == "FAIL" and not excused):
        advice = "the file works worse than it may: try a larger export.quantization, else train on"
        return Check(name="behaviour", status="failed", detail=detail, advice=advice)
    advice = (
        "the trained student itself does not pass: train on before promoting it"
        if gate.verdict == "FAIL"
        else "so few prompts cannot tell: hold out more, or run without --quick"
    )
    return Check(name="behaviour", status="warning", detail=detail, advice=advice)


def _work(path: Path, heldout: HeldOut, progress: Progress | None) -> list[Rollout]:
    """One greedy episode per prompt, as the gate of the trained student has them."""
    rows = []
    with GgufModel(path) as llama:
        for number, case in enumerate(heldout.cases, 1):
            environment = case.make_environment()
            episode = run_episode(
                llama, environment, max_turns=heldout.max_turns, max_new_tokens=heldout.max_new_tokens
            )
            replay = environment if isinstance(environment, ReplayEnvironment) else None
            rows.append(score_episode(case, episode, replay, heldout.reward, path.stem, False))
            if progress is not None:
                progress("held-out prompts", number, len(heldout.cases))
    return rows


def _by_workflow(rows: Sequence[Rollout]) -> dict[str, WorkflowScore]:
    groups: dict[str, list[Rollout]] = defaultdict(list)
    for row in rows:
        groups[row.case.workflow_type].append(row)
    return {
        name: WorkflowScore(
            n=len(group),
            reward=sum(row.breakdown.total for row in group) / len(group),
            exact_sequences=sum(row.breakdown.exact_sequence for row in group) / len(group),
        )
        for name, group in sorted(groups.items())
    }
