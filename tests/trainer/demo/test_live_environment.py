"""A live environment runs what the student wrote and says what Claude Code would say."""

from __future__ import annotations

import gc
from pathlib import Path

from trainer.demo.scripted_teacher import DemoEpisode
from trainer.demo.world import LiveEnvironment, check_workspace, live_environment, make_episode
from trainer.student.chat_format import ParsedTurn, call_text, parse_assistant

SYSTEM = "You are a coding agent."


def turn(text: str, *calls: tuple[str, dict[str, str]]) -> ParsedTurn:
    return parse_assistant(text + "".join(call_text(name, arguments) for name, arguments in calls))


def play(environment: LiveEnvironment, episode: DemoEpisode) -> list[str]:
    outputs = []
    for step in episode.plan:
        results = environment.step(turn(step.text, *step.calls))
        assert results is not None
        outputs += [message["content"] for message in results]
    return outputs


def test_the_teachers_turns_give_the_recorded_outputs_again_after_a_reset() -> None:
    episode = make_episode(4, False, "conf")
    environment = live_environment(episode, SYSTEM)
    expected = [output for step in episode.plan for output in step.outputs]
    for _ in range(2):
        opening = environment.reset()
        assert [message["role"] for message in opening] == ["system", "user"]
        assert opening[1]["content"] == episode.prompt
        assert play(environment, episode) == expected
        assert environment.files_changed() == list(episode.changed_files)
        assert check_workspace(episode, environment.folder)
        assert environment.step(turn(episode.answer)) is None
    environment.close()


def test_absolute_paths_work_and_results_stay_relative() -> None:
    environment = live_environment(make_episode(0, False, "count"), SYSTEM)
    environment.reset()
    path = f"{environment.folder}/schema.py"
    results = environment.step(turn("", ("Read", {"file_path": path}), ("Read", {"file_path": "schema.py"})))
    assert results is not None
    assert results[0]["content"] == results[1]["content"]
    assert [message["tool_call_id"] for message in results] == ["call_0", "call_1"]
    missing = environment.step(turn("", ("Read", {"file_path": "nope.py"})))
    assert missing is not None
    assert missing[0]["content"].startswith("File does not exist. Note: your current working directory is .")
    assert str(environment.folder) not in missing[0]["content"]
    environment.close()


def test_each_call_gets_one_answer_and_unreadable_ones_come_last() -> None:
    environment = live_environment(make_episode(0, False, "count"), SYSTEM)
    environment.reset()
    text = '<|python_tag|>{"name": "Read", "parameters": {<|python_tag|>' + call_text("Nope", {}).removeprefix(
        "<|python_tag|>"
    )
    results = environment.step(parse_assistant(text))
    assert results is not None
    assert [message["role"] for message in results] == ["tool", "tool"]
    assert results[0]["content"] == "<tool_use_error>Error: No such tool available: Nope</tool_use_error>"
    assert results[1]["content"].startswith("<tool_use_error>InputValidationError: Read was called with input")
    assert environment.files_changed() == []
    environment.close()


def test_folders_are_removed_on_close_and_with_the_object() -> None:
    environment = live_environment(make_episode(0, False, "count"), SYSTEM)
    first: Path = environment.folder
    environment.close()
    assert not first.exists()
    second = environment.folder
    assert (second / "grid.db").exists()
    del environment
    gc.collect()
    assert not second.exists()
