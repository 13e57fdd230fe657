"""What a student's calls are answered with, and what the ledger says about it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.errors import TrainerError
from trainer.ppo.replay_environment import Coverage, ReplayEnvironment
from trainer.ppo.tool_errors import invalid_call, unreadable_call
from trainer.records import BCSample
from trainer.student.chat_format import ParsedTurn


def contents(results: Any) -> list[str]:
    assert results is not None
    return [message["content"] for message in results]


def test_teacher_itself_is_answered_as_recorded(edit_sample: BCSample) -> None:
    replay = ReplayEnvironment(edit_sample)
    assert replay.reset() == edit_sample.messages[:2]
    served = []
    for message in edit_sample.messages:
        if message["role"] == "assistant":
            results = replay.step(ParsedTurn(message, []))
            served += results or []
    assert served == [message for message in edit_sample.messages if message["role"] == "tool"]
    assert results is None
    assert replay.coverage == Coverage(recorded=5)
    assert sum(replay.penalties) == 0


def test_reads_come_in_any_order_and_spelling(edit_sample: BCSample, record: SimpleNamespace) -> None:
    replay = ReplayEnvironment(edit_sample)
    listing = record.call(0, "Bash", command="ls", description="list the files")
    reading = record.call(1, "Read", file_path="./a.py")
    assert contents(replay.step(record.turn("", listing, reading))) == ["a.py", "teh end"]
    assert replay.coverage == Coverage(recorded=2)


def test_repeated_read_is_cached_until_something_is_written(edit_sample: BCSample, record: SimpleNamespace) -> None:
    replay = ReplayEnvironment(edit_sample)
    read = record.call(0, "Read", file_path="a.py")
    assert contents(replay.step(record.turn("", read, read))) == ["teh end", "teh end"]
    edited = contents(replay.step(record.turn("", record.call(2, "Edit", **record.EDIT))))
    assert edited == ["The file a.py has been updated."]
    # the file as it was is gone: the read is now the one recorded after the edit
    assert contents(replay.step(record.turn("", read, read))) == ["the end", "the end"]
    assert replay.coverage == Coverage(recorded=3, cached=2)


def test_failed_attempt_of_the_teacher_may_be_left_out(edit_sample: BCSample, record: SimpleNamespace) -> None:
    replay = ReplayEnvironment(edit_sample)
    for name, arguments in (("Edit", record.EDIT), ("Read", {"file_path": "a.py"})):
        replay.step(record.turn("", record.call(0, name, **arguments)))
    assert replay.step(record.turn("Fixed.")) is None
    assert replay.coverage == Coverage(recorded=2)


def test_change_that_the_student_never_made_is_not_seen(edit_sample: BCSample, record: SimpleNamespace) -> None:
    replay = ReplayEnvironment(edit_sample)
    read = record.call(0, "Read", file_path="a.py")
    for _ in range(3):
        assert contents(replay.step(record.turn("", read))) == ["teh end"]


@pytest.mark.parametrize("number", [2, 10, 7])
def test_another_number_is_another_call(number: int, record: SimpleNamespace) -> None:
    query = "sqlite3 grid.db 'SELECT * FROM transformers WHERE id = {}'"
    sample = record.sample_of(
        record.turn("", record.call(0, "Bash", command=query.format(1))).message,
        record.result(0, "1|630"),
        record.turn("630").message,
    )
    replay = ReplayEnvironment(sample, max_patches=0)
    assert replay.step(record.turn("", record.call(0, "Bash", command=query.format(number)))) is None
    assert replay.coverage == Coverage(stopped=1)


def test_unknown_call_is_patched_at_a_price_then_stops(edit_sample: BCSample, record: SimpleNamespace) -> None:
    replay = ReplayEnvironment(edit_sample, max_patches=1, patch_penalty=0.25)
    astray = record.turn("", record.call(0, "Bash", command="cat b.py"))
    assert contents(replay.step(astray)) == ["teh end"]  # what the teacher's next call returned
    assert replay.step(record.turn("", record.call(1, "Bash", command="cat c.py"))) is None
    assert replay.penalties == [0.25, 0.0]
    assert replay.coverage == Coverage(patched=1, stopped=1)
    assert not replay.coverage.reliable


def test_calls_that_cannot_run_get_the_error_of_claude_code(edit_sample: BCSample, record: SimpleNamespace) -> None:
    replay = ReplayEnvironment(edit_sample)
    bad = record.turn(
        "",
        record.call(0, "Reed", file_path="a.py"),
        record.call(1, "Read", path="a.py"),
        record.call(2, "Nap", seconds="2"),
        record.call(3, "Bash", command="ls"),
        malformed=['{"name": "Read", "parameters": {'],
    )
    results = replay.step(bad)
    assert results is not None
    assert [message.get("tool_call_id") for message in results] == ["call_0", "call_1", "call_2", "call_3", None]
    unknown, wrong, type_error, fine, unreadable = contents(results)
    assert unknown == "<tool_use_error>Error: No such tool available: Reed</tool_use_error>"
    assert wrong == (
        "<tool_use_error>InputValidationError: Read failed due to the following issues:\n"
        "The required parameter `file_path` is missing\n"
        "An unexpected parameter `path` was provided</tool_use_error>"
    )
    assert "The parameter `seconds` type is expected as `integer` but provided as `string`" in type_error
    assert fine == "a.py"
    assert unreadable.startswith("<tool_use_error>InputValidationError: Read was called with input that could not be")
    assert replay.coverage == Coverage(recorded=1, error=4)


def test_recorded_call_is_served_even_where_the_short_schema_does_not_know_it(record: SimpleNamespace) -> None:
    odd = record.call(0, "Read", file_path="a.py", pages="1-2")
    replay = ReplayEnvironment(record.sample_of(record.turn("", odd).message, record.result(0, "text")))
    assert contents(replay.step(record.turn("", odd))) == ["text"]


def test_turn_that_holds_only_garbage_goes_on_and_an_answer_ends(edit_sample: Any, record: SimpleNamespace) -> None:
    replay = ReplayEnvironment(edit_sample)
    assert contents(replay.step(record.turn("", malformed=["no json"])))[0].startswith("<tool_use_error>")
    assert replay.step(record.turn("Done.")) is None
    assert replay.penalties == [0.0, 0.0]


def test_step_mode_opens_at_the_turn_and_ends_after_it(edit_sample: BCSample, record: SimpleNamespace) -> None:
    replay = ReplayEnvironment(edit_sample, mode="step", turn=2)
    assert replay.reset() == edit_sample.messages[:7]
    assert replay.step(record.turn("", record.call(0, "Edit", **record.EDIT))) is None
    with pytest.raises(TrainerError, match="has 5 assistant turns, there is no turn 5"):
        ReplayEnvironment(edit_sample, mode="step", turn=5)


def test_session_without_calls_stops_the_student_that_calls(record: SimpleNamespace) -> None:
    replay = ReplayEnvironment(record.sample_of(record.turn("It is a typo.").message))
    assert replay.step(record.turn("", record.call(0, "Read", file_path="a.py"))) is None
    assert replay.coverage == Coverage(stopped=1)


def test_one_instance_does_not_see_what_another_served(edit_sample: BCSample, record: SimpleNamespace) -> None:
    read = record.turn("", record.call(0, "Read", file_path="a.py"))
    first, second = ReplayEnvironment(edit_sample), ReplayEnvironment(edit_sample)
    first.step(record.turn("", record.call(0, "Edit", **record.EDIT)))
    assert contents(second.step(read)) == ["teh end"]


arguments = st.dictionaries(
    st.sampled_from(["file_path", "command", "x", "seconds", "old_string"]),
    st.one_of(st.text(max_size=20), st.integers(), st.none(), st.booleans(), st.lists(st.integers(), max_size=2)),
    max_size=4,
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from(["Read", "Bash", "Edit", "Nap", "Foo"]), arguments), max_size=3),
            st.lists(st.text(max_size=30), max_size=2),
        ),
        max_size=5,
    )
)
def test_any_student_is_answered_call_by_call_and_every_call_is_in_the_ledger(
    record: SimpleNamespace, turns: list[Any]
) -> None:
    edit = record.turn("", record.call(0, "Read", file_path="a.py"), record.call(1, "Edit", **record.EDIT)).message
    replay = ReplayEnvironment(record.sample_of(edit, record.result(0, "teh"), record.result(1, "updated")))
    calls = answered = 0
    for wanted, malformed in turns:
        made = [record.call(index, name, **values) for index, (name, values) in enumerate(wanted)]
        results = replay.step(record.turn("", *made, malformed=malformed))
        if results is None:
            break
        assert len(results) == len(made) + len(malformed)
        calls += len(results)
        answered = replay.coverage.calls
    assert answered == calls
    assert len(replay.penalties) <= len(turns)
    assert replay.coverage.patched <= 2
    assert sum(replay.coverage.shares().values()) == pytest.approx(1.0 if replay.coverage.calls else 0.0)


def test_messages_name_what_was_sent() -> None:
    assert "You sent (first 200 of 301 bytes)" in unreadable_call("a" * 301)
    assert unreadable_call('{"name": "Bash", "para').startswith("<tool_use_error>InputValidationError: Bash was called")
    assert invalid_call("Nap", {"seconds": 2}, [{"function": {"name": "Nap"}}]) is not None
    assert invalid_call("Nap", {}, [{"function": {"name": "Nap"}}]) is None
