"""`ppo.window` is one limit for all: training, validation, mining, held-out tests and baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from claude_capture.claude_trace_schema import Trace
from tests.trainer.ppo.micro import Silence
from trainer.baselines.best_of_n import best_of_n
from trainer.config import Config, PpoConfig
from trainer.ppo.adversarial_prompt_miner import mine
from trainer.ppo.cases import fitting
from trainer.ppo.heldout import score_cases
from trainer.records import RewardBreakdown, RewardComponents
from trainer.road_files import RoadFiles
from trainer.student.episodes import Case

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
WINDOW = 64


class Writing:
    """Pays 1 to a student that wrote anything, and counts how often it was asked."""

    def score(self, student: Trace, references: Sequence[Trace]) -> RewardBreakdown:
        wrote = 1.0 if any(step.text for step in student.steps) else -1.0
        components = RewardComponents(outcome=wrote)
        return RewardBreakdown(trace_id=student.trace_id, total=wrote, components=components)


@pytest.fixture
def long_case() -> Case:
    """A prompt of more than WINDOW tokens and fewer than the model has positions."""
    return Case("long", (), lambda: Silence("please fix the typo " * 12), split="train")


def test_every_way_to_an_episode_ends_it_at_the_window(
    micro_model: Callable[[], Any], tokenizer: Any, long_case: Case, cases: list[Case]
) -> None:
    model, reward = micro_model().get_base_model(), Writing()
    for window, earned, stop in ((None, 1.0, "max_tokens"), (WINDOW, -1.0, "window")):
        ppo = PpoConfig(max_turns=1, max_new_tokens=8, window=window)
        held_out = score_cases(model, tokenizer, [long_case], reward, ppo).rows
        best = best_of_n(model, tokenizer, [long_case], reward, ppo, samples=2, seed=0).oracle
        for (row,) in (held_out, best):
            assert (row.episode.stop, row.breakdown.total) == (stop, earned)
        (mined,) = mine(model, tokenizer, [long_case], reward, ppo, samples=2).prompts
        assert mined.rewards == [earned, earned]
        fit, left_out = fitting([*cases, long_case], tokenizer, model, ppo)
        assert len(fit) + len(left_out) == 7
        assert list(left_out) == ([] if window is None else ["long"])


def test_scores_under_another_window_do_not_compare(tmp_path: Path) -> None:
    def measured(**ppo: Any) -> str:
        return RoadFiles(Config(ppo=PpoConfig(**ppo)), tmp_path).measured

    assert measured() == measured(window=None) != measured(window=512)
    assert measured(window=512) != measured(window=1024)
