"""Samples and traces → cases: a prompt, an environment that answers, and the teacher's trace to be compared with."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from claude_capture.claude_trace_schema import Trace
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.ppo.replay_environment import Mode, ReplayEnvironment
from trainer.records import BCSample, Split
from trainer.student.episodes import Case


def cases_from(
    samples: Iterable[BCSample], traces: Iterable[Trace], config: Config, split: Split, mode: Mode = "semi_online"
) -> list[Case]:
    """One case per trace of the split, in the order of the samples; in `step` mode one per turn worth learning.

    Only a trace's first window opens an episode; a turn of weight 0 (a mistake of the teacher) is no case.

    Raises:
        TrainerError: a sample whose trace is not there: the dataset was built from other traces.
    """
    by_id = {trace.trace_id: trace for trace in traces}
    cases: list[Case] = []
    for sample in samples:
        if sample.split != split or sample.window:
            continue
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
                references=(by_id[sample.trace_id],),
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
