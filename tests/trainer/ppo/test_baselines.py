"""PPO beside its baselines: what is picked of n samples, how gains are paired, GRPO on our episodes and budget."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy import stats

from claude_capture.claude_trace_schema import Trace
from trainer.baselines.baseline_run import Bench, compare_students, tokens_written
from trainer.baselines.baseline_table import baseline_report, gain_over
from trainer.baselines.best_of_n import best_of_n, most_agreed
from trainer.baselines.grpo import train_grpo
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.ppo.heldout import score_cases
from trainer.ppo.value_head import adapter_state
from trainer.records import BaselineScores, RewardBreakdown
from trainer.report.baseline_section import baseline_section, read_baselines
from trainer.report.page import Page
from trainer.run_folder import RunFolder
from trainer.student.episodes import Case

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def scores(student: str, *totals: float, seed: int = 0, tokens: int = 0) -> BaselineScores:
    return BaselineScores(
        student=student, seed=seed, totals=list(totals), alignment=0.5, exact_sequences=0.25, written_tokens=tokens
    )


def test_gain_is_paired_by_prompt_and_shows_prompts_and_seeds_apart() -> None:
    gain = gain_over("sft", [[0.5, 0.1, 0.9], [0.3, 0.3, 0.9]], [0.0, 0.1, 0.5])
    per_prompt = [0.4, 0.1, 0.4]
    half = stats.t.ppf(0.975, 2) * statistics.stdev(per_prompt) / 3**0.5
    assert gain.mean == pytest.approx(0.3)
    assert (gain.low, gain.high) == (pytest.approx(0.3 - half), pytest.approx(0.3 + half))
    assert gain.seeds == pytest.approx([0.3, 0.3])
    assert gain.seeds_low == gain.seeds_high == pytest.approx(0.3), "both seeds gained the same"
    assert gain_over("sft", [[0.5, 0.1]], [0.0, 0.0]).seeds_low is None


def ppo_and(
    *others: BaselineScores, ppo: Sequence[float] = (0.8, 0.7, 0.9), seeds: int = 3, lucky: float = 0.0
) -> list[BaselineScores]:
    """SFT and so many seeds of PPO, the first with `lucky` more than the others."""
    runs = [
        scores("ppo", *(v + (lucky if seed == 0 else 0) for v in ppo), seed=seed, tokens=90) for seed in range(seeds)
    ]
    return [scores("sft", 0.1, 0.2, 0.3), *runs, *others]


def test_ppo_earns_its_place_only_where_nothing_that_can_be_served_is_better() -> None:
    report = baseline_report(ppo_and(), samples=4, seeds=[0, 1, 2])
    assert report.earned is True
    assert report.sentence.startswith("PPO earns its place: +0.600 [")
    assert "3 of 3 seeds above it" in report.sentence
    assert [row.student for row in report.rows] == ["sft", "ppo"]
    assert (report.rows[0].gain, report.rows[1].written_tokens) == (None, 90)

    beaten = baseline_report(ppo_and(scores("grpo", 0.95, 0.9, 0.99)), samples=4, seeds=[0, 1, 2])
    assert (beaten.earned, beaten.sentence[:53]) == (False, "PPO does not earn its place: grpo earned more for cer")
    worse = baseline_report(ppo_and(ppo=(0.0, 0.1, 0.1)), samples=4, seeds=[0, 1, 2])
    assert (worse.earned, worse.sentence[:52]) == (False, "PPO does not earn its place: sft earned more for cer")
    oracle = baseline_report(ppo_and(scores("best-of-n-oracle", 1, 1, 1)), samples=4, seeds=[0, 1, 2])
    assert oracle.earned is True, "an upper bound that knows the teacher's work is no rival"
    assert [gain.over for gain in oracle.contrasts] == ["sft"]
    assert baseline_report([scores("sft", 0.1, 0.2)], samples=4, seeds=[0]).earned is None


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_fewer_than_three_seeds_nothing_is_said_of_the_place_of_ppo(seeds: int) -> None:
    for rival in ([], [scores("grpo", 0.95, 0.9, 0.99)]):
        report = baseline_report(ppo_and(*rival, seeds=seeds), samples=4, seeds=list(range(seeds)))
        assert report.earned is None
        assert report.sentence.startswith(f"INCONCLUSIVE: {seeds} of at least 3 seeds of PPO")
        assert "+0.600 over SFT so far" in report.sentence


def test_gain_that_one_lucky_seed_made_is_open() -> None:
    report = baseline_report(ppo_and(ppo=(0.1, 0.2, 0.3), lucky=0.6), samples=4, seeds=[0, 1, 2])
    gain = report.contrasts[0]
    assert gain.low > 0, "over prompts alone it would be certain"
    assert gain.both_low is not None
    assert gain.both_low <= 0 < gain.mean
    assert (report.earned, report.sentence[:12]) == (None, "INCONCLUSIVE")
    assert "1 of 3 seeds above it" in report.sentence
    assert "more seeds or held-out prompts" in report.sentence
    same = baseline_report(ppo_and(ppo=(0.1, 0.2, 0.3)), samples=4, seeds=[0, 1, 2])
    assert same.earned is None


def test_section_shows_the_interval_that_the_verdict_goes_by() -> None:
    html = baseline_section(Page("t"), baseline_report(ppo_and(), samples=4, seeds=[0, 1, 2])).html()
    assert "over both" in html
    single = baseline_section(Page("t"), baseline_report(ppo_and(seeds=1), samples=4, seeds=[0])).html()
    assert single.count("one seed") == 2


def test_section_names_every_student_and_the_upper_bound_as_such() -> None:
    found = ppo_and(scores("best-of-n-oracle", 0.9, 0.8, 0.9), scores("best-of-n-consistent", 0.1, 0.2, 0.4))
    html = baseline_section(Page("t"), baseline_report(found, samples=8, seeds=[0])).html()
    assert "SFT, best of 8 by the reward *" in html
    assert "SFT, best of 8 by agreement" in html
    assert "an upper bound that cannot be served" in html
    assert "<svg" in html


class WordReward:
    """Agreement is having the same answer; the teacher wants a long one."""

    def score(self, student: Trace, references: Sequence[Trace]) -> RewardBreakdown:
        wanted = references[0].claude_response if references else ""
        total = 1.0 if student.claude_response == wanted else len(student.claude_response) / 1000
        return RewardBreakdown(trace_id="t", total=total, components={})


def test_what_agrees_with_the_others_is_picked_without_looking_at_the_teacher() -> None:
    def episode(answer: str) -> Any:
        return SimpleNamespace(trace=Trace(trace_id="t", session_id="s", user_prompt="p", claude_response=answer))

    group = [episode("long and alone"), episode("7"), episode("8"), episode("7")]
    assert most_agreed(group, WordReward()) == 1
    assert most_agreed(group[:1], WordReward()) == 0


def test_best_of_n_takes_one_of_each_prompts_samples(
    micro_model: Callable[[], Any], tokenizer: Any, cases: list[Case], letter_reward: Any, ppo_config: Any
) -> None:
    model, ppo = micro_model().get_base_model(), ppo_config().ppo
    found = best_of_n(model, tokenizer, cases[:3], letter_reward, ppo, samples=4, seed=0)
    assert [row.case.trace_id for row in found.oracle] == [row.case.trace_id for row in found.consistent]
    for best, agreed in zip(found.oracle, found.consistent, strict=True):
        assert best.breakdown.total >= agreed.breakdown.total
    again = best_of_n(model, tokenizer, cases[:3], letter_reward, ppo, samples=4, seed=0)
    assert [row.episode.ids for row in again.oracle] == [row.episode.ids for row in found.oracle]


def test_budget_is_what_ppo_wrote_in_its_sampled_episodes(tmp_path: Path, ppo_config: Any) -> None:
    config = ppo_config(episodes_per_update=8)
    run = RunFolder(tmp_path, "ppo", config)
    run.log(update=0, validation={"reward": 0.1})
    run.log(update=1, written_tokens=10.0)
    run.log(update=2, written_tokens=12.5)
    assert tokens_written(run, config) == 180


def bench(folder: Path, config: Config, test: Sequence[Case], reward: Any) -> Bench:
    return Bench(
        config=config, base="", sft=folder, train=(), validation=(), test=test, reward=reward, samples=4,
        run=RunFolder(folder, "baselines", config),
    )  # fmt: skip


def test_what_was_scored_is_not_made_again(tmp_path: Path, cases: list[Case], letter_reward: Any) -> None:
    compared = bench(tmp_path, Config(), cases[:3], letter_reward)
    for one in (*ppo_and(), scores("untrained", -1, -1, -1)):
        file = compared.file(one.student, one.seed)
        file.parent.mkdir(exist_ok=True)
        file.write_text(one.model_dump_json())
    told: list[Any] = []
    report = compare_students(compared, ["untrained", "ppo"], [0, 1], lambda *facts: told.append(facts))
    assert told == []
    assert report.seeds == [0, 1, 2], "of all that was ever scored"
    compared.file("ppo", 0).unlink()
    assert compare_students(compared, ["sft"], [1], lambda *facts: None).seeds == [1, 2], "nobody has a seed 0 any more"
    compared.file("ppo", 0).write_text(ppo_and()[1].model_dump_json())
    report = compare_students(compared, ["untrained", "ppo"], [0, 1], lambda *facts: None)
    assert [row.seeds for row in report.rows if row.student == "ppo"] == [3]
    assert read_baselines(compared.run.path) == report
    assert "PPO earns its place" in (compared.run.path / "baselines.html").read_text()
    with pytest.raises(TrainerError, match="'dpo' is no student of the comparison"):
        compare_students(compared, ["dpo"], [0], lambda *facts: None)
    with pytest.raises(TrainerError, match="at least one seed"):
        compare_students(compared, ["sft"], [], lambda *facts: None)


def test_grpo_refuses_held_out_prompts_and_broken_groups(
    cases: list[Case], letter_reward: Any, ppo_config: Any, tmp_path: Path
) -> None:
    foreign = Case("secret", (), cases[0].make_environment, split="test")
    with pytest.raises(TrainerError, match="training split only; case secret is of 'test'"):
        train_grpo(None, None, [*cases, foreign], letter_reward, ppo_config(), tmp_path, seed=0, budget=1)
    with pytest.raises(TrainerError, match="episodes_per_update 6 is not a multiple"):
        train_grpo(None, None, cases, letter_reward, ppo_config(episodes_per_update=6), tmp_path, seed=0, budget=1)


def test_section_names_training_prompts_that_do_not_fit_the_window() -> None:
    grpo = scores("grpo", 0.1, 0.2, 0.3).model_copy(update={"left_out": ["long", "longer"]})
    report = baseline_report(ppo_and(grpo), samples=4, seeds=[0])
    assert [row.left_out for row in report.rows] == [[], ["long", "longer"], []]
    html = baseline_section(Page("t"), report).html()
    assert "2 training prompts do not fit the window" in html
    assert "long, longer" in html
    assert "do not fit" not in baseline_section(Page("t"), baseline_report(ppo_and(), samples=4, seeds=[0])).html()


def test_grpo_of_trl_learns_in_our_episodes_until_the_budget_is_spent(
    micro_model: Callable[[], Any],
    tokenizer: Any,
    cases: list[Case],
    letter_reward: Any,
    ppo_config: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, config = micro_model(), ppo_config(max_new_tokens=8, learning_rate=1e-2)

    def earned() -> float:
        return score_cases(model.get_base_model(), tokenizer, cases, letter_reward, config.ppo).summary.reward

    words = [{"role": "user", "content": "please fix the typo " * 512}]
    endless = SimpleNamespace(tools=[], reset=lambda: words, step=lambda turn: None)
    long = Case("endless", (), lambda: endless, split="train")  # type: ignore[arg-type, return-value]
    before, start = earned(), adapter_state(model)
    told: list[tuple[int, int]] = []
    run = train_grpo(
        model, tokenizer, [long, *cases], letter_reward, config, tmp_path / "grpo", seed=0, budget=1200,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert 1200 <= run.written_tokens <= 1200 + 8 * 8, "it ends with the update that spends the budget"
    assert run.left_out == ["endless"], "a prompt beyond the window is left out, as PPO does, and named"
    steps = config.ppo.epochs * config.ppo.episodes_per_update // config.ppo.minibatch_size
    assert steps > 1
    assert len(told) % steps == 0, "with all its passes over that update's episodes"
    assert earned() > before + 0.2
    now = adapter_state(model)
    assert any(not torch.equal(start[key], now[key]) for key in start)
