"""Students that run away, each for real: what is found, what comes back, and what the run says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from claude_capture.claude_trace_schema import Trace
from tests.trainer.ppo.micro import LetterReward
from trainer.config import Config, PpoConfig
from trainer.ppo.ppo_trainer import PpoResult, train_ppo
from trainer.ppo.runaway import Watch, watch_update
from trainer.ppo.value_head import adapter_state
from trainer.records import RewardBreakdown, RewardComponents
from trainer.run_folder import RunFolder
from trainer.student.chat_format import CALL, EOT, encode
from trainer.student.episodes import Case

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

Make = Callable[[], Any]
LIMITS: dict[str, Any] = {
    "runaway_kl": 1e9,
    "runaway_length": 1e9,
    "runaway_malformed": 1.0,
    "runaway_gap": 2.0,
    "target_kl": 1e9,
    "episodes_per_update": 16,
    "minibatch_size": 8,
    "kl_coefficient": 0.0,
    "epochs": 4,
    "value_warmup": 1,
    "eval_every": 50,
    "runaway_returns": 0,
    "updates": 40,
}
"""Out of the way, so that a test can bring in the one that it is about; no return, so that the first is the end."""


def paying(trace: Trace, similarity: float) -> RewardBreakdown:
    total = 2 * min(1.0, similarity) - 1
    return RewardBreakdown(trace_id=trace.trace_id, total=total, components=RewardComponents(outcome=total))


class LengthReward:
    """Pays for every character, as a judge that likes long answers does."""

    def score(self, student: Trace, references: Sequence[Trace]) -> RewardBreakdown:
        return paying(student, sum(len(step.text) for step in student.steps) / 150)


class CallReward:
    """Pays for text behind the mark of a call, whether it can be read or not: a reward with a hole."""

    def score(self, student: Trace, references: Sequence[Trace]) -> RewardBreakdown:
        text = sum(len(step.text) for step in student.steps)
        return paying(student, 1 - text / 20 if student.steps else 0.0)


def taught(model: Any, tokenizer: Any, case: Case, token: str, share: float) -> Any:
    """The model after it has learned to write the token with about this probability anywhere in its turn."""
    wanted = tokenizer.convert_tokens_to_ids(token)
    opening = encode(tokenizer, case.make_environment().reset(), generation_prompt=True).ids
    turns = torch.randint(len(tokenizer), (8, 40), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([torch.tensor(opening).repeat(8, 1), turns], 1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(100):
        chances = model(input_ids=ids).logits.log_softmax(-1)[:, len(opening) - 1 :, wanted]
        if float(chances.exp().mean().detach()) > share:
            break
        optimizer.zero_grad()
        (-chances.mean()).backward()
        optimizer.step()
    model.zero_grad()
    return model


def run_away(
    model: Any, tokenizer: Any, cases: list[Case], reward: Any, config: Config, folder: Path, name: str
) -> tuple[PpoResult, list[dict[str, Any]]]:
    run = RunFolder(folder, name, config)
    result = train_ppo(model, tokenizer, cases, cases[:2], reward, config, run)
    assert run.result is not None
    assert run.result["stopped_because"] == result.stopped_because
    return result, run.metrics()


def test_absurd_learning_rate_runs_into_the_limit_of_the_kl(
    micro_model: Make, tokenizer: Any, cases: list[Case], ppo_config: Callable[..., Config], runs: Path
) -> None:
    config = ppo_config(**LIMITS | {"learning_rate": 0.05, "runaway_kl": 15.0, "runaway_returns": 1})
    model = micro_model()
    start = adapter_state(model)
    result, rows = run_away(model, tokenizer, cases, LetterReward(), config, runs, "kl")
    assert "nats per episode, limit 15 (ppo.runaway_kl), 2 updates in a row" in result.stopped_because
    assert result.stopped_because.endswith("; ended after 1 returns to the best student")
    assert result.updates == len(rows) - 1 < 40
    first, second = (row for row in rows if "runaway" in row)
    assert first["runaway"]["returned_to"] == second["runaway"]["returned_to"] == result.best_update == 0
    after = rows[first["update"] + 1]
    assert after["kl"] == 0.0  # the student that works now is the best one again
    assert after["learning_rate"] == pytest.approx(0.025)
    assert all(torch.equal(start[key], value) for key, value in adapter_state(model).items())


def test_reward_that_pays_for_length_runs_into_the_limit_of_the_length(
    micro_model: Make, tokenizer: Any, cases: list[Case], ppo_config: Callable[..., Config], runs: Path
) -> None:
    terse = taught(micro_model(), tokenizer, cases[0], EOT, 0.3)
    config = ppo_config(**LIMITS | {"learning_rate": 5e-3, "runaway_length": 3.0, "max_new_tokens": 60})
    result, rows = run_away(terse, tokenizer, cases, LengthReward(), config, runs, "length")
    assert "times as long as at first, limit 3 (ppo.runaway_length), 2 updates in a row" in result.stopped_because
    assert rows[1]["written_tokens"] * 3 < rows[-1]["written_tokens"]
    assert result.best_update == 0


def test_reward_with_a_hole_runs_into_the_limit_of_malformed_calls(
    micro_model: Make, tokenizer: Any, cases: list[Case], ppo_config: Callable[..., Config], runs: Path
) -> None:
    fond_of_calls = taught(micro_model(), tokenizer, cases[0], CALL, 0.02)
    config = ppo_config(**LIMITS | {"learning_rate": 5e-3, "runaway_malformed": 0.4})
    result, rows = run_away(fond_of_calls, tokenizer, cases, CallReward(), config, runs, "malformed")
    assert "malformed episodes, limit 0.4 (ppo.runaway_malformed), 2 updates in a row" in result.stopped_because
    assert rows[-1]["malformed"] > rows[1]["malformed"] + 0.4
    assert rows[-1]["reward"] > rows[1]["reward"]


def test_reward_that_rises_while_the_outcome_does_not_runs_into_the_limit_of_the_gap(
    micro_model: Make, tokenizer: Any, cases: list[Case], ppo_config: Callable[..., Config], runs: Path
) -> None:
    answer = Trace(trace_id="t", session_id="s", user_prompt="", claude_response="There are 42 typos in a.py.")
    asked = [replace(case, references=(answer,)) for case in cases]
    config = ppo_config(**LIMITS | {"learning_rate": 1e-2, "runaway_gap": 0.15})
    result, rows = run_away(micro_model(), tokenizer, asked, LetterReward(), config, runs, "gap")
    assert "ahead of the outcome checks, limit 0.15 (ppo.runaway_gap), 2 updates in a row" in result.stopped_because
    assert {row["outcome_check"] for row in rows[1:]} == {0.0}
    assert rows[-1]["reward"] > rows[1]["reward"] + 0.3


def test_without_validation_prompts_the_last_sound_student_comes_back(
    micro_model: Make, tokenizer: Any, cases: list[Case], ppo_config: Callable[..., Config], runs: Path
) -> None:
    config = ppo_config(**LIMITS | {"learning_rate": 0.05, "runaway_kl": 15.0})
    run = RunFolder(runs, "ppo", config)
    result = train_ppo(micro_model(), tokenizer, cases, [], LetterReward(), config, run)
    rows = run.metrics()[1:]
    above = [row["update"] for row in rows if row["kl"] > 15.0]
    assert result.best_update == above[-2] - 2  # the update that began with it was the last one inside the limits
    assert result.stopped_because.startswith(f"update {above[-1]}: KL")


CONFIG = PpoConfig(value_warmup=2, runaway_patience=2, runaway_returns=1)
SOUND = {"kl": 1.0, "written_tokens": 100.0, "malformed": 0.1, "reward": 0.0, "outcome_check": 0.5, "learned": True}


def watched(*updates: dict[str, Any]) -> tuple[Watch, list[str]]:
    watch, reasons = Watch(), []
    for number, metrics in enumerate(updates, 1):
        watch, reason = watch_update(Watch(**asdict(watch)), {**SOUND, **metrics}, CONFIG, number)
        reasons.append(reason)
    return watch, reasons


def test_start_is_the_mean_over_the_warm_up() -> None:
    watch, _ = watched({}, {"written_tokens": 200.0}, {"written_tokens": 900.0})
    assert watch.start == {"written_tokens": 150, "malformed": 0.1, "reward": 0, "outcome_check": 0.5, "updates": 2}


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"kl": 20.5}, "KL 20.5 nats per episode, limit 20 (ppo.runaway_kl)"),
        ({"kl": float("nan")}, "KL nan nats"),
        ({"written_tokens": 201.0}, "episodes 2.0 times as long as at first, limit 2 (ppo.runaway_length)"),
        ({"malformed": 0.45}, "+35% malformed episodes, limit 0.3 (ppo.runaway_malformed)"),
        ({"reward": 0.4, "outcome_check": 0.3}, "reward 0.40 ahead of the outcome checks, limit 0.3 (ppo.runaway_gap)"),
        ({"learned": False}, "nothing could be learned"),
    ],
)
def test_limit_must_be_exceeded_in_a_row_and_returns_are_counted(figures: dict[str, Any], words: str) -> None:
    watch, reasons = watched({}, {}, figures, {}, figures, figures, figures, {}, figures, figures)
    assert [bool(reason) for reason in reasons] == [False] * 5 + [True] + [False] * 3 + [True]
    assert reasons[5].startswith(words)
    assert watch.returns == 1
    assert watch.stopped_because.startswith(f"update 10: {words}")


def test_reward_that_rises_with_the_outcome_is_no_gap_and_a_missing_check_is_none() -> None:
    _, rising = watched({}, {}, {"reward": 1.0, "outcome_check": 0.9}, {"reward": 1.0, "outcome_check": 0.9})
    _, unchecked = watched(*[{"outcome_check": None, "reward": reward} for reward in (0.0, 0.0, 1.0, 1.0, 1.0)])
    assert not any(rising)
    assert not any(unchecked)
