"""Samples and traces → cases: a prompt, an environment that answers, and the teacher's trace to be compared with."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from claude_capture.claude_trace_schema import Trace
from trainer.config import Config, PpoConfig
from trainer.errors import TrainerError
from trainer.ppo.replay_environment import Mode, ReplayEnvironment
from trainer.records import BCSample, Split
from trainer.student.chat_format import encode
from trainer.student.episodes import Case, longest_episode


def cases_from(
    samples: Iterable[BCSample], traces: Iterable[Trace], config: Config, split: Split, mode: Mode = "semi_online"
) -> list[Case]:
    """One case per trace of the split, in the order of the samples; in `step` mode one per turn worth learning.

    Only a trace's first window opens an episode; a turn of weight 0 (a mistake of the teacher) is no case. Where the
    teacher was asked the same again (see `repeats`), its other runs are references too, behind the case's own.

    Raises:
        TrainerError: a sample whose trace is not there: the dataset was built from other traces.
    """
    by_id = {trace.trace_id: trace for trace in traces}
    samples = [sample for sample in samples if sample.split == split and not sample.window]
    others = repeats(samples, by_id)
    cases: list[Case] = []
    for sample in samples:
        if sample.trace_id not in by_id:
            raise TrainerError(
                f"sample {sample.trace_id} has no trace; run `claude-trainer dataset build` on the traces at hand"
            )
        turns: Sequence[int] = [0]
        if mode == "step":
            turns = [turn for turn, weight in enumerate(sample.weights) if weight > 0]
        cases += [
            Case(
                trace_id=sample.trace_id,
                references=(by_id[sample.trace_id], *others.get(sample.trace_id, ())),
                make_environment=functools.partial(
                    ReplayEnvironment,
                    sample,
                    mode=mode,
                    turn=turn,
                    max_patches=config.ppo.max_patches,
                    patch_penalty=config.ppo.patch_penalty,
                ),
                workflow_type=sample.workflow_type,
                split=split,
            )
            for turn in turns
        ]
    return cases


def fitting(cases: Sequence[Case], tokenizer: Any, model: Any, ppo: PpoConfig) -> tuple[list[int], dict[str, int]]:
    """Indices of the training cases whose opening leaves room for a turn; lengths of the others by trace_id.

    A case whose environment cannot be opened is not judged here: it may open when it is drawn.

    Raises:
        TrainerError: none leaves room.
    """
    window = longest_episode(model, ppo.window)
    fit: list[int] = []
    left_out: dict[str, int] = {}
    for index, case in enumerate(cases):
        try:
            environment = case.make_environment()
            messages = environment.reset()
        except Exception:
            fit.append(index)
            continue
        length = len(encode(tokenizer, messages, environment.tools, generation_prompt=True).ids)
        if length + ppo.max_new_tokens <= window:
            fit.append(index)
        else:
            left_out[case.trace_id] = length
    if not fit:
        raise TrainerError(f"no training prompt leaves room for a turn in a window of {window} tokens: ppo.window")
    return fit, left_out


def repeats(samples: Sequence[BCSample], traces: Mapping[str, Trace]) -> dict[str, list[Trace]]:
    """trace_id → the teacher's other runs of the same prompt, for prompts that open a session.

    The same prompt means the same words in the same workspace at the same commit (or with none known). "Go on" in
    the middle of two sessions asks for two things, so later prompts have no repeats.
    """
    runs: dict[tuple[str, str, str | None], list[Trace]] = defaultdict(list)
    for sample in samples:
        trace = traces.get(sample.trace_id)
        if trace is not None and trace.turn_index == 0 and sample.workspace:
            runs[" ".join(sample.prompt.split()), sample.workspace, trace.context.git_commit].append(trace)
    return {
        trace.trace_id: [other for other in group if other is not trace]
        for group in runs.values()
        if len(group) > 1
        for trace in group
    }
