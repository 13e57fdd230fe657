"""Scores of replayed and sampled episodes with the real reward model, and the cases behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainer.config import Config, GateConfig, PpoConfig, RewardConfig
from trainer.errors import TrainerError
from trainer.ppo.cases import cases_from
from trainer.ppo.heldout import Heldout, read_scores, score_cases, summarise, write_scores
from trainer.ppo.quality_gate import judge
from trainer.ppo.replay_environment import ReplayEnvironment
from trainer.ppo.report_pages import gate_page, ppo_page, write_gate_report
from trainer.ppo.rollout_buffer import Rollout, collect, score_episode
from trainer.records import BCSample, GateReport
from trainer.reward.behavioral_reward_model import BehavioralRewardModel
from trainer.reward.reference_range import reference_range
from trainer.student.chat_format import ParsedTurn
from trainer.student.episode_trace import trace_of
from trainer.student.episodes import Case, Episode

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def reward() -> BehavioralRewardModel:
    return BehavioralRewardModel(RewardConfig())


def play(case: Case, turns: Sequence[ParsedTurn], reward: Any) -> Rollout:
    """An episode in which a student writes the given turns."""
    environment = case.make_environment()
    episode = Episode(messages=environment.reset())
    for number, turn in enumerate(turns):
        episode.messages.append(turn.message)
        episode.parsed.append(turn)
        episode.malformed += len(turn.malformed)
        episode.ids += [0, 1]
        episode.written += [False, True]
        episode.turn_ends.append(2 * number + 2)
        results = environment.step(turn)
        if results is None:
            episode.stop = "environment" if turn.message.get("tool_calls") else "answer"
            break
        episode.messages += results
    assert isinstance(environment, ReplayEnvironment)
    return score_episode(case, episode, environment, reward, "student", by_turn=True)


@pytest.fixture
def edit_case(edit_sample: BCSample, record: SimpleNamespace) -> Case:
    return cases_from([edit_sample], [record.trace_from(edit_sample)], Config(), "train")[0]


def teacher_turns(sample: BCSample) -> list[ParsedTurn]:
    return [ParsedTurn(message, []) for message in sample.messages if message["role"] == "assistant"]


def test_turn_rewards_telescope_to_what_the_episode_earned(edit_case: Case, edit_sample: Any, reward: Any) -> None:
    rollout = play(edit_case, teacher_turns(edit_sample), reward)
    opening = trace_of(edit_sample.messages[:2], reference=edit_case.references[0], student="student")
    start = reward.score(opening, edit_case.references).total
    assert len(rollout.turn_rewards) == 5
    assert sum(rollout.turn_rewards) == pytest.approx(rollout.breakdown.total - start)
    assert rollout.breakdown.total == pytest.approx(1.0)
    assert rollout.breakdown.exact_sequence
    assert rollout.turn_ends == [1, 2, 3, 4, 5]


def test_useless_turn_earns_nothing_and_a_patched_call_costs(
    edit_case: Case, edit_sample: Any, reward: Any, record: SimpleNamespace
) -> None:
    first, *_ = teacher_turns(edit_sample)
    again = record.turn("", record.call(2, "Bash", command="ls"))
    astray = record.turn("", record.call(3, "Bash", command="cat nowhere.txt"))
    rollout = play(edit_case, [first, again, astray, record.turn("Done.")], reward)
    assert rollout.turn_rewards[0] > 0
    assert rollout.turn_rewards[1] <= 0
    assert rollout.turn_rewards[2] <= -0.1
    assert rollout.coverage is not None
    assert (rollout.coverage.recorded, rollout.coverage.cached, rollout.coverage.patched) == (2, 1, 1)
    assert any("carry out the teacher's call" in line for line in rollout.breakdown.explanation)


def test_result_of_an_unreadable_call_is_not_taken_for_that_of_the_next(
    edit_case: Case, edit_sample: Any, reward: Any, record: SimpleNamespace
) -> None:
    turns = teacher_turns(edit_sample)
    stumbling = ParsedTurn(turns[0].message, ["{no json"])
    rollout = play(edit_case, [stumbling, *turns[1:]], reward)
    outputs = [call.output for call in rollout.trace.tool_calls]
    assert outputs == [call.output for call in edit_case.references[0].tool_calls]
    assert rollout.episode.malformed == 1


def test_student_cut_off_between_calls_has_not_answered(edit_sample: BCSample) -> None:
    cut = trace_of(edit_sample.messages[:-1], reference=None, student="s")
    garbage = [*edit_sample.messages[:2], {"role": "assistant", "content": ""}, {"role": "tool", "content": "<error>"}]
    assert cut.status == trace_of(garbage, reference=None, student="s").status == "interrupted"


def test_summary_counts_a_component_only_where_it_applies(edit_case: Case, edit_sample: Any, reward: Any) -> None:
    right = play(edit_case, teacher_turns(edit_sample), reward)
    wrong = play(edit_case, [ParsedTurn({"role": "assistant", "content": "No."}, ["{"])], reward)
    summary = summarise([right, wrong])
    assert summary.n == 2
    assert summary.exact_sequences == summary.malformed == 0.5
    assert summary.ci_low <= summary.reward <= summary.ci_high
    assert summary.alignment is not None
    assert 0 <= summary.alignment <= 1
    assert summary.components["tool_use"] == pytest.approx(2 * summary.alignment - 1)
    assert (summary.constraints is None) == (summary.components["constraints"] is None)
    assert sum(summary.coverage.values()) == pytest.approx(1.0)


def test_cases_of_a_split_in_both_modes(edit_sample: BCSample, record: SimpleNamespace) -> None:
    later = edit_sample.model_copy(update={"window": 1})
    other = edit_sample.model_copy(update={"trace_id": "t1", "split": "test"})
    masked = edit_sample.model_copy(update={"weights": [1.0, 0.0, 1.0, 1.0, 1.0]})
    traces = [record.trace_from(edit_sample), record.trace_from(other)]
    config = Config(ppo=PpoConfig(patch_penalty=0.5))
    assert [case.trace_id for case in cases_from([edit_sample, later, other], traces, config, "train")] == ["t0"]
    (held_out,) = cases_from([edit_sample, later, other], traces, config, "test")
    assert (held_out.trace_id, held_out.split, held_out.workflow_type) == ("t1", "test", "edit")
    steps = cases_from([masked], traces, config, "train", mode="step")
    assert [len(case.make_environment().reset()) for case in steps] == [2, 7, 9, 11]
    with pytest.raises(TrainerError, match="sample t1 has no trace"):
        cases_from([other], traces[:1], config, "test")
    environment = held_out.make_environment()
    environment.step(record.turn("", record.call(0, "Bash", command="cat nowhere")))
    assert isinstance(environment, ReplayEnvironment)
    assert environment.penalties == [0.5]


def test_other_runs_of_a_prompt_are_references_too(edit_sample: BCSample, record: SimpleNamespace) -> None:
    runs = [edit_sample.model_copy(update={"trace_id": f"t{i}", "workspace": "w"}) for i in range(4)]
    runs[2] = runs[2].model_copy(update={"split": "test"})
    traces = [record.trace_from(sample) for sample in runs]
    traces[3] = traces[3].model_copy(update={"turn_index": 2})  # later in its session: the same words ask for else
    known = {
        case.trace_id: [r.trace_id for r in case.references] for case in cases_from(runs, traces, Config(), "train")
    }
    assert known == {"t0": ["t0", "t1"], "t1": ["t1", "t0"], "t3": ["t3"]}
    (held_out,) = cases_from(runs, traces, Config(), "test")
    assert [trace.trace_id for trace in held_out.references] == ["t2"], "a run of another split is no reference"
    apart = [runs[0], runs[1].model_copy(update={"workspace": "other"})]
    assert [len(case.references) for case in cases_from(apart, traces, Config(), "train")] == [1, 1]


def test_greedy_scores_of_a_model_are_repeatable_and_fill_the_gate_page(
    micro_model: Callable[[], Any], tokenizer: Any, edit_sample: BCSample, record: SimpleNamespace, tmp_path: Path
) -> None:
    samples = [edit_sample.model_copy(update={"trace_id": f"t{i}", "split": "test"}) for i in range(3)]
    cases = cases_from(samples, [record.trace_from(sample) for sample in samples], Config(), "test")
    model, reward = micro_model().get_base_model(), BehavioralRewardModel(RewardConfig())
    limits = PpoConfig(max_turns=2, max_new_tokens=8)
    one = score_cases(model, tokenizer, cases, reward, limits)
    one_by_one = limits.model_copy(update={"episodes_at_once": 1})
    two = score_cases(model, tokenizer, cases, reward, one_by_one)
    assert [row.episode.ids for row in one.rows] == [row.episode.ids for row in two.rows]
    assert one.summary == two.summary
    assert [breakdown.trace_id for breakdown in one.breakdowns] == ["t0", "t1", "t2"]

    scores = one.scores("llama-claude-bc-v1", "settings")
    assert read_scores(write_scores(tmp_path / "scores.json", scores)) == scores
    assert read_scores(tmp_path / "none.json") is None
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(TrainerError, match="not a student's scores"):
        read_scores(tmp_path / "broken.json")

    report = judge(
        one.breakdowns,
        GateConfig(min_workflow_prompts=2),
        student="llama-claude-ppo-v1",
        workflows=one.workflows,
        previous=scores,
        between=reference_range(one.references, reward),
    )
    assert [(row.workflow, row.n, row.difference, row.verdict) for row in report.workflows] == [
        ("edit", 3, 0.0, "PASS")
    ]
    assert report.floor is not None
    files = write_gate_report(tmp_path, report, one)
    page = files[1].read_text("utf-8")
    assert "INCONCLUSIVE: 3 held-out prompts cannot tell whether llama-claude-ppo-v1 may go on." in page
    assert "Each type of work against llama-claude-bc-v1" in page
    assert "What to do next" in page
    assert "floor" in page
    assert GateReport.model_validate_json(files[0].read_bytes()) == report


def test_gate_page_warns_where_the_replay_had_to_guess(edit_case: Case, reward: Any, record: SimpleNamespace) -> None:
    astray = record.turn("", record.call(0, "Bash", command="cat nowhere.txt"))
    rollout = play(edit_case, [astray, record.turn("Done.")], reward)
    heldout = Heldout([rollout], summarise([rollout]))
    assert not heldout.summary.reliable
    html = gate_page(judge(heldout.breakdowns, GateConfig()), heldout).html()
    assert "do not rely on these figures" in html


def test_turn_cut_off_by_its_length_is_scored(
    micro_model: Callable[[], Any], tokenizer: Any, edit_case: Case, reward: Any
) -> None:
    model = micro_model().get_base_model()
    (rollout,) = collect(model, tokenizer, [edit_case], reward, PpoConfig(max_turns=2, max_new_tokens=8)).rollouts
    assert rollout.episode.stop == "max_tokens"
    assert len(rollout.turn_rewards) == len(rollout.turn_ends) == 1
    assert rollout.turn_ends[-1] == len(rollout.written) == 8


def test_page_of_a_run_shows_its_curves() -> None:
    row = {"kl": 0.1, "clip_fraction": 0.0, "malformed": 0.5, "unfinished": 0.5, "exact_sequences": 0.0}
    row |= {"reward": 0.2, "written_tokens": 30.0, "seconds": {"generate": 1.0, "reward": 0.1, "learn": 2.0}}
    rows = [{"update": 0, "validation": {"reward": 0.1}}, {"update": 1, **row, "validation": {"reward": 0.3}}]
    html = ppo_page(rows).html()
    assert html.count("<svg") == 5
    assert "best validation reward" in html
    assert "No update was made" in ppo_page(rows[:1]).html()


def test_page_of_a_run_names_what_was_out_of_the_ordinary() -> None:
    clocks = {"generate": 1.0, "reward": 0.1, "learn": 2.0}
    coverage = {"recorded": 0.5, "cached": 0.0, "patched": 0.5, "stopped": 0.0, "error": 0.0}
    rows: list[dict[str, Any]] = [
        {"update": 0, "left_out": {"trace-7": 5000}},
        {"update": 1, "reward": 0.2, "kl": 1.0, "coverage": coverage, "reliable": False, "seconds": clocks},
        {"update": 2, "dropped": {"reward": 8}, "seconds": clocks},
        {
            "update": 3,
            "dropped": {"reward": 7, "environment": 1},
            "skipped_minibatches": 2,
            "runaway": {"reason": "KL 41.0 nats per episode", "returned_to": 1},
            "seconds": clocks,
        },
    ]
    html = ppo_page(rows).html()
    for words in (
        "In 1 updates over 30 % of the calls were patched",
        "Update 3: KL 41.0 nats per episode; back to the student of update 1",
        "1 prompts do not fit the window and were left out: trace-7",
        "Episodes dropped: 15 (reward), 1 (environment)",
        "2 minibatches were skipped",
        "How the replay answered the calls",
    ):
        assert words in html
    nothing = ppo_page([rows[0], rows[2]]).html()  # not one episode could be scored
    assert "Episodes dropped: 8 (reward)" in nothing
    assert "Mean reward" not in nothing
