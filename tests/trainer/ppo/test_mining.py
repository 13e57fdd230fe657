"""Mining: what is worth practising, round after round, and never from another split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from claude_capture.claude_trace_schema import Trace
from trainer.config import PpoConfig, RewardConfig
from trainer.errors import TrainerError
from trainer.ppo.adversarial_prompt_miner import (
    LARGEST_SHARE,
    MinedPrompt,
    looked_at,
    mine,
    next_round,
    read_mined,
    sampling_weights,
    teacher_agreement,
    write_mined,
)
from trainer.records import RewardBreakdown
from trainer.reward.behavioral_reward_model import BehavioralRewardModel
from trainer.student.episodes import Case

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
LIMITS = PpoConfig(max_turns=1, max_new_tokens=8)


@pytest.fixture(scope="module")
def reward() -> BehavioralRewardModel:
    return BehavioralRewardModel(RewardConfig())


class Coin:
    """A reward that differs between samples of one prompt and not of another."""

    def __init__(self) -> None:
        self.calls = 0

    def score(self, student: Trace, references: Sequence[Trace]) -> RewardBreakdown:
        self.calls += 1
        total = 0.0 if student.user_prompt.count("the") == 0 else float(self.calls % 2)
        return RewardBreakdown(trace_id=student.trace_id, total=total, components={}, explanation=["tool_use: Read"])


def test_mining_prefers_what_can_be_learned_and_forgets_what_was_just_practised(
    micro_model: Callable[[], Any], tokenizer: Any, cases: list[Case], tmp_path: Path
) -> None:
    model = micro_model().get_base_model()
    options: Any = {"ppo": LIMITS, "samples": 4, "top": 2}
    first = mine(model, tokenizer, cases[:3], Coin(), **options)
    assert {prompt.trace_id for prompt in first.prompts[:2]} == {"case-1", "case-2"}
    last = first.prompts[-1]
    assert (last.trace_id, last.priority, last.round) == ("case-0", 0.0, -1)
    best = first.prompts[0]
    assert best.priority == best.variance * best.agreement * best.staleness == pytest.approx(0.25)
    assert "4 samples earned 0.00 to 1.00" in best.why
    assert best.why.endswith("never mined; most often lost: tool_use: Read")

    write_mined(tmp_path / "mined.jsonl", first)
    again = mine(model, tokenizer, cases[:3], Coin(), **options, previous=read_mined(tmp_path / "mined.jsonl"))
    assert again.round == 1
    assert 0 < again.prompts[0].priority < best.priority
    assert "mined 1 round ago at mean 0.50" in again.prompts[0].why
    elsewhere = mine(model, tokenizer, cases[3:], Coin(), **options, previous=first.prompts)
    kept = {prompt.trace_id: prompt for prompt in elsewhere.prompts}
    assert set(kept) == {"case-1", "case-2", "case-3", "case-4", "case-5"}
    assert kept["case-1"] in first.prompts, "what was chosen and is not looked at now is kept as it was"
    weights = sampling_weights(cases, first.prompts)
    assert weights[:3] == [1.0, LARGEST_SHARE, LARGEST_SHARE]
    assert weights[3:] == [1.0] * 3
    assert sampling_weights(cases, []) == [1.0] * 6


def test_mining_never_touches_another_split(
    micro_model: Callable[[], Any], tokenizer: Any, cases: list[Case], letter_reward: Any, tmp_path: Path
) -> None:
    for split in ("test", "validation"):
        foreign = Case("secret", (), cases[0].make_environment, split=split)
        with pytest.raises(TrainerError, match=f"only the training split is mined; case secret is of '{split}'"):
            mine(
                None, tokenizer, [*cases, foreign], letter_reward, LIMITS, samples=2
            )  # refused before the model is needed
    with pytest.raises(TrainerError, match="at least 2"):
        mine(None, tokenizer, cases, letter_reward, LIMITS, samples=1)
    with pytest.raises(TrainerError, match="run `claude-trainer mine` first"):
        read_mined(tmp_path / "mined.jsonl")
    (tmp_path / "mined.jsonl").write_text('{"trace_id": 3}\n')
    with pytest.raises(TrainerError, match=r"not a mined\.jsonl"):
        read_mined(tmp_path / "mined.jsonl")
    line = mined("secret", 0).model_copy(update={"split": "test"}).model_dump_json()
    (tmp_path / "mined.jsonl").write_text(line + "\n")
    with pytest.raises(TrainerError, match="prompt secret is of split 'test'; only the training split is practised"):
        read_mined(tmp_path / "mined.jsonl")


def mined(trace_id: str, number: int) -> MinedPrompt:
    values: dict[str, Any] = {"priority": 0.1, "variance": 0.1, "agreement": 1.0, "staleness": 1.0, "rewards": [0.0]}
    return MinedPrompt(trace_id=trace_id, split="train", round=number, why="", **values)


def test_rounds_of_mining_retest_what_was_chosen_and_have_seen_every_prompt_in_the_end() -> None:
    cases = [Case(f"p{i:02}", (), lambda: None, split="train") for i in range(40)]  # type: ignore[arg-type, return-value]
    known: dict[str, MinedPrompt] = {}
    seen: set[str] = set()
    for number in range(6):
        looked = [case.trace_id for case in looked_at(cases, 10, list(known.values()))]
        assert len(looked) == len(set(looked)) <= 10
        assert looked == sorted(looked)
        oldest = sorted((p for p in known.values() if p.round >= 0), key=lambda p: p.round)[:5]
        assert {prompt.trace_id for prompt in oldest} <= set(looked)
        seen |= set(looked)
        known |= {name: mined(name, number if place < 3 else -1) for place, name in enumerate(looked)}
    assert len(seen) >= 30
    assert looked_at(cases, 100) == cases
    everything = [mined(case.trace_id, 0) for case in cases]
    assert len(looked_at(cases, 10, everything)) == 10


def test_teacher_that_disagrees_with_itself_lowers_the_priority(reward: Any, record: SimpleNamespace) -> None:
    one, other = (
        record.trace_from(
            record.sample_of(
                record.turn("", record.call(0, tool, **arguments)).message,
                record.result(0, "x"),
                record.turn(answer).message,
                trace_id=answer,
            )
        )
        for tool, arguments, answer in (
            ("Read", {"file_path": "a.py"}, "The value of alpha is 12."),
            ("Bash", {"command": "ls src"}, "There are 7 files."),
        )
    )
    assert teacher_agreement([one], reward) == 1.0
    assert teacher_agreement([one, one], reward) == pytest.approx(1.0)
    assert teacher_agreement([one, other], reward) < 0.6


class Learned:
    """Tosses a coin for each prompt, but for those that are mastered."""

    def __init__(self, *mastered: str) -> None:
        self.mastered = mastered
        self.calls = 0

    def score(self, student: Trace, references: Sequence[Trace]) -> RewardBreakdown:
        self.calls += 1
        total = 1.0 if student.user_prompt in self.mastered else float(self.calls % 2)
        return RewardBreakdown(trace_id=student.trace_id, total=total, components={})


def prompt_of(case: Case) -> str:
    return str(case.make_environment().reset()[-1]["content"])


def test_second_round_forgets_the_weight_of_what_was_practised_and_is_learned_now(
    micro_model: Callable[[], Any], tokenizer: Any, cases: list[Case]
) -> None:
    model = micro_model().get_base_model()
    first = mine(model, tokenizer, cases[:3], Learned(), LIMITS, samples=2, top=3)
    assert sampling_weights(cases, first.prompts) == [LARGEST_SHARE] * 3 + [1.0] * 3
    # case-0 is mastered by now, case-1 is not, case-2 was practised and is not looked at this time, case-3 is new
    looked = [cases[0], cases[1], cases[3]]
    second = mine(
        model, tokenizer, looked, Learned(prompt_of(cases[0])), LIMITS, samples=2, top=3, previous=first.prompts
    )
    weights = sampling_weights(cases, second.prompts)
    assert weights[0] == weights[2] == weights[4] == 1.0
    assert 1.0 < weights[1] < weights[3] == LARGEST_SHARE, "it was practised a round ago, so the new one comes first"
    assert {p.trace_id: (p.round, p.looked) for p in second.prompts} == {
        "case-0": (-1, 1),
        "case-1": (1, 1),
        "case-2": (0, 0),
        "case-3": (1, 1),
    }
    third = [case.trace_id for case in looked_at(cases, 2, second.prompts)]
    assert third == ["case-2", "case-5"], "the longest untested first; what is mastered is no re-test any more"


def test_round_that_finds_nothing_counts_and_the_next_one_looks_elsewhere(
    micro_model: Callable[[], Any], tokenizer: Any, cases: list[Case]
) -> None:
    model, known, seen = micro_model().get_base_model(), list[MinedPrompt](), list[str]()
    everything = [prompt_of(case) for case in cases]
    for number in range(3):
        looked = looked_at(cases, 2, known)
        seen += [case.trace_id for case in looked]
        found = mine(model, tokenizer, looked, Learned(*everything), LIMITS, samples=2, previous=known)
        assert found.round == number
        assert sampling_weights(cases, found.prompts) == [1.0] * 6
        known = found.prompts
    assert sorted(seen) == [case.trace_id for case in cases]


def test_files_of_before_rounds_were_noted_in_every_line_are_read_as_they_were(cases: list[Case]) -> None:
    old = [mined("case-0", 0).model_copy(update={"priority": 0.1}), mined("case-1", -1), mined("case-2", 1)]
    assert next_round(old) == 2
    assert next_round([mined("case-1", -1)]) == 0
    assert sampling_weights(cases, old) == [LARGEST_SHARE] * 3 + [1.0] * 3
