"""Policies that do not do the work stay under a stated score on 200 prompts they have not seen."""

from __future__ import annotations

from statistics import mean

import pytest
from generated_traces import Script, scripts
from red_team import POLICIES, Policy

from claude_capture.claude_trace_schema import Trace
from trainer.config import GateConfig
from trainer.reward.behavioral_reward_model import BehavioralRewardModel

MODEL = BehavioralRewardModel()
HELD_OUT = scripts(200)
SEEN = scripts(200, first=1000)


@pytest.fixture(scope="module")
def references() -> dict[str, Trace]:
    return {script.name: script.trace() for script in HELD_OUT}


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_policy_stays_under_its_score(policy: Policy, references: dict[str, Trace]) -> None:
    totals = [MODEL.score(policy(script, SEEN).trace(), [references[script.name]]).total for script in HELD_OUT]
    highest_mean, highest = POLICIES[policy]
    assert mean(totals) < highest_mean
    assert max(totals) < highest
    assert max(totals) < GateConfig().reward


def test_every_stated_score_is_under_the_gate() -> None:
    assert all(single < GateConfig().reward for _, single in POLICIES.values())


def test_several_references_do_not_open_the_door(references: dict[str, Trace]) -> None:
    """Best of ten references lifts a prompt-blind policy by far less than under plain Levenshtein (0.38 → 0.56)."""

    def blind(script: Script, count: int) -> float:
        others = [references[script.name]] + [script.copy().trace() for _ in range(count - 1)]
        return MODEL.score(SEEN[0].trace(), others).total

    one = mean(blind(script, 1) for script in HELD_OUT)
    ten = mean(blind(script, 10) for script in HELD_OUT[:50])
    assert ten < one + 0.1
