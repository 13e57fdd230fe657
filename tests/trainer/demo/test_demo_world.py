"""Episodes: real outputs, learnable texts, and a held-out side that training never touches."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.demo.session_file import SYSTEM_PROMPT
from trainer.demo.tools import WorkspaceTools
from trainer.demo.world import (
    FAMILIES,
    HEADLINE,
    TOOLS,
    DemoEpisode,
    check_answer,
    check_workspace,
    headline_episode,
    is_held_out,
    make_episode,
    make_episodes,
)
from trainer.errors import TrainerError
from trainer.student.chat_format import parse, render


@pytest.fixture(scope="module")
def training() -> list[DemoEpisode]:
    return make_episodes(200, False, 0)


@pytest.fixture(scope="module")
def held_out() -> list[DemoEpisode]:
    return make_episodes(60, True, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9), st.booleans(), st.sampled_from(sorted(FAMILIES)))
def test_a_plan_gives_the_same_outputs_in_a_fresh_workspace(seed: int, held: bool, family: str) -> None:
    episode = make_episode(seed, held, family)
    assert make_episode(seed, held, family) == episode
    assert is_held_out(episode.key) is held
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tools = WorkspaceTools(episode.workspace.materialise(folder))
        for step in episode.plan:
            results = [tools.run(call.name, call.arguments) for call in step.calls]
            assert tuple(result.text for result in results) == step.outputs
            assert tuple(result.is_error for result in results) == step.failed
        assert check_workspace(episode, folder)
        (folder / "stray.txt").touch()
        assert not check_workspace(episode, folder)
    assert check_answer(episode, episode.answer)


def test_no_entity_combination_is_on_both_sides(training: list[DemoEpisode], held_out: list[DemoEpisode]) -> None:
    assert not {episode.key for episode in training} & {episode.key for episode in held_out}
    assert not {episode.prompt for episode in training} & {episode.prompt for episode in held_out}


def test_the_headline_is_held_out_and_has_its_two_rows() -> None:
    assert is_held_out(("diff", 1, 2))
    episodes = [headline_episode(seed) for seed in range(5)]
    assert {episode.prompt for episode in episodes} == {HEADLINE}
    assert len({episode.answer for episode in episodes}) == 5
    for episode in episodes:
        assert [call.name for call in episode.calls] == ["Read", "Grep", "Bash", "Bash"]
        assert {1, 2} <= {row.id for row in episode.workspace.transformers}
        assert episode.held_out
    prompts = [make_episode(seed, False, "diff").prompt for seed in range(300)]
    assert HEADLINE not in prompts
    assert not any("transformers 1 and 2" in prompt or "transformers 2 and 1" in prompt for prompt in prompts)


def test_every_family_makes_two_to_eight_calls(training: list[DemoEpisode]) -> None:
    assert {episode.family for episode in training} == set(FAMILIES)
    assert len(FAMILIES) >= 6
    assert all(2 <= len(episode.calls) <= 8 for episode in training)


def test_the_mix_holds_what_the_student_has_to_learn(training: list[DemoEpisode]) -> None:
    conf = [episode for episode in training if episode.family == "conf"]
    mended = [e for e in conf if [step.failed for step in e.plan[:3]] == [(True,), (False,), (False,)]]
    assert 0.2 < len(mended) / len(conf) < 0.6
    limited = [episode for episode in training if episode.constraint]
    assert len(limited) / len(training) > 1 / 3
    assert all(
        e.plan[0].text.startswith(f"{e.constraint} ") and e.constraint.startswith("I must ")
        for e in limited
        if e.constraint
    )
    assert len({e.constraint for e in limited}) >= 5
    parallel = Counter(episode.family for episode in training if any(len(step.calls) > 1 for step in episode.plan))
    assert set(parallel) == {"diff", "readonly"}


def test_only_config_tasks_change_files_and_only_the_named_one(training: list[DemoEpisode]) -> None:
    for episode in training:
        named = [path for path in episode.workspace.settings if path in episode.prompt]
        assert list(episode.changed_files) == (named if episode.family == "conf" else [])


_FIXED = """sqlite3 line grid db schema transformers feeders py queries content grep id name rated_kva voltage_kv status
feeder_id SELECT FROM WHERE COUNT AND ORDER BY DESC LIMIT"""


def test_every_argument_can_be_copied_from_the_prompt_or_an_earlier_output(training: list[DemoEpisode]) -> None:
    fixed = set(re.findall(r"\w+", json.dumps(TOOLS) + _FIXED))
    for episode in training:
        seen = episode.prompt
        for step in episode.plan:
            known = set(re.findall(r"\w+", seen)) | fixed
            for call in step.calls:
                words = set(re.findall(r"\w+", " ".join(call.arguments.values())))
                assert words <= known, (episode.prompt, call, words - known)
            seen += "\n" + "\n".join(step.outputs)


def test_the_teacher_says_the_same_in_the_same_situation(
    training: list[DemoEpisode], held_out: list[DemoEpisode]
) -> None:
    said: dict[str, str] = {}
    for episode in [*training, *held_out]:
        context = episode.prompt
        for step in episode.plan:
            turn = repr((step.text, step.calls))
            assert said.setdefault(context, turn) == turn
            context += turn + repr(step.outputs)
        assert said.setdefault(context, episode.answer) == episode.answer


def test_episodes_fit_the_chat_format_and_stay_short(training: list[DemoEpisode]) -> None:
    for episode in training:
        messages = episode.messages(SYSTEM_PROMPT)
        text = render(messages, TOOLS)
        assert parse(text, TOOLS) == messages
        assert len(text) < 2_400


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_wrong_answers_are_told_from_right_ones(family: str) -> None:
    episode, other = make_episode(1, False, family), make_episode(2, False, family)
    assert check_answer(episode, f"Well: {episode.answer}\n")
    assert not check_answer(episode, other.answer)
    assert not check_answer(episode, "")
    assert not check_answer(episode, episode.answer + " Also 99.")
    digit = next(character for character in reversed(episode.answer) if character.isdigit())
    assert not check_answer(episode, episode.answer.replace(digit, str((int(digit) + 1) % 10)))


def test_an_unknown_family_is_named_with_the_known_ones() -> None:
    with pytest.raises(TrainerError, match="unknown family 'dif' of demo tasks; known: diff, count"):
        make_episode(0, False, "dif")
