"""Follow-up prompts know what came before, in training as in service, and never more than fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dataset_traces import ROOT, TEACHER, call, trace, transformer_trace
from hypothesis import given
from hypothesis import strategies as st

from claude_capture.claude_trace_schema import Branch, Teacher, Trace
from trainer.config import Config, DatasetConfig, TeacherRights
from trainer.dataset import read_dataset
from trainer.dataset.behavioral_cloning_builder import build_dataset
from trainer.dataset.preference_pairs import PreferencePair, build_pairs
from trainer.dataset.session_digest import Deed, digest, trace_lines, turn_lines, with_digest
from trainer.export.student_prompt import StudentPrompt
from trainer.rollout.student_view import student_request
from trainer.student.chat_format import parse, render

DECLARED = [TeacherRights(match=TEACHER, basis="our own script")]
CONFIG = Config(teachers=DECLARED)
PROMPT = CONFIG.dataset.system_prompt


def first(session: str = "s", **fields: Any) -> Trace:
    """The turn that is told: it reads, edits, edits in vain, and runs the tests."""
    return trace(
        f"Set the limit in {ROOT}/a.cfg to 5\nand say so",
        (
            "I look.",
            [call("Read", "limit = 4", file_path=f"{ROOT}/a.cfg"), call("Read", "x", file_path=f"{ROOT}/b.py")],
        ),
        ("Edit.", [call("Edit", "not found", error="tool_use_error", file_path=f"{ROOT}/c.cfg", old_string="l")]),
        ("Edit.", [call("Edit", file_path=f"{ROOT}/a.cfg", old_string="limit = 4")]),
        ("Test.", [call("Bash", "1 failed", error="exit_code", command="make test")]),
        answer="The limit is 5 now,\nbut a test fails.",
        session=session,
        **fields,
    )


TOLD = """\
Earlier in this session:
- asked: Set the limit in a.cfg to 5 and say so
  changed a.cfg; ran `make test` (failed); read b.py
  answered: The limit is 5 now, but a test fails."""


def second(session: str = "s", **fields: Any) -> Trace:
    """A follow-up."""
    return trace(
        "Mend the test, too",
        ("I look.", [call("Bash", "test.py", command="ls")]),
        answer="Mended.",
        session=session,
        started_at="2026-01-02",
        turn_index=1,
        **fields,
    )


def system_messages(folder: Path, traces: list[Trace], config: Config = CONFIG, **options: Any) -> dict[str, str]:
    """trace_id → system message of its sample."""
    others = [transformer_trace(n, session=f"o{n}", started_at=f"2026-02-{n + 1:02}") for n in range(3)]
    build_dataset([*traces, *others], config, folder / "bc_dataset.jsonl", **options)
    return {sample.trace_id: sample.messages[0]["content"] for sample in read_dataset(folder / "bc_dataset.jsonl")}


def test_a_follow_up_is_told_what_was_asked_done_and_found(tmp_path: Path) -> None:
    found = system_messages(tmp_path, [second(), first()])
    assert found[second().trace_id] == f"{PROMPT}\n\n{TOLD}"
    assert {text for name, text in found.items() if name != second().trace_id} == {PROMPT}


def test_training_and_service_tell_the_same(tmp_path: Path) -> None:
    """What Claude Code sends for the second prompt becomes, for the student, what it was trained on."""
    earlier = first()
    messages: list[dict[str, Any]] = [{"role": "user", "content": earlier.user_prompt}]
    for step in earlier.steps:
        made = [item for item in earlier.tool_calls if item.step == step.index]
        uses = [{"type": "tool_use", "id": item.id, "name": item.tool, "input": item.input} for item in made]
        messages.append({"role": "assistant", "content": [{"type": "text", "text": step.text}, *uses]})
        results = [
            {"type": "tool_result", "tool_use_id": item.id, "content": item.output, "is_error": item.is_error}
            for item in made
        ]
        if results:
            messages.append({"role": "user", "content": results})
    reminder = {"type": "text", "text": "<system-reminder>Be brief.</system-reminder>"}
    messages.append({"role": "user", "content": [reminder, {"type": "text", "text": "Mend the test, too"}]})
    messages.append({"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Bash", "input": {}}]})
    messages.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "ok"}]})
    body = {"system": f"Primary working directory: {ROOT}", "messages": messages, "tools": []}

    sent = student_request(body, StudentPrompt(CONFIG.dataset), "student")

    assert sent["system"] == system_messages(tmp_path, [earlier, second()])[second().trace_id]
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert sent["messages"][0]["content"] == [{"type": "text", "text": "Mend the test, too"}]
    whole = student_request(body, StudentPrompt(DatasetConfig(digest_tokens=0)), "student")
    assert (whole["system"], len(whole["messages"])) == (PROMPT, len(messages))


def test_a_call_that_the_person_interrupted_ends_its_turn_in_service() -> None:
    def result(**fields: Any) -> dict[str, Any]:
        return {"type": "tool_result", "tool_use_id": "t", "content": "The user doesn't want …", **fields}

    use = {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "rm -r build"}}
    stopped = {"type": "text", "text": "[Request interrupted by user for tool use]"}
    messages = [
        {"role": "user", "content": "Clean up"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result(is_error=True), stopped, {"type": "text", "text": "Use make clean"}]},
        {"role": "assistant", "content": [use]},
        {
            "role": "user",
            "content": [result(), {"type": "text", "text": "<task-notification>done</task-notification>"}],
        },
    ]
    sent = student_request({"messages": messages}, StudentPrompt(CONFIG.dataset), "student")
    assert sent["system"] == with_digest(
        PROMPT, "Earlier in this session:\n- asked: Clean up\n  ran `rm -r build` (failed)"
    )
    assert len(sent["messages"]) == 3
    assert sent["messages"][0]["content"] == [{"type": "text", "text": "Use make clean"}]


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_turns_that_are_no_samples_are_told_all_the_same(tmp_path: Path, status: str) -> None:
    found = system_messages(tmp_path, [first(status=status), second()])
    assert found == found | {second().trace_id: f"{PROMPT}\n\n{TOLD}"}
    assert first().trace_id not in found


def test_what_was_rewound_is_not_told(tmp_path: Path) -> None:
    back = first()
    back.branch = Branch(accepted_trace_id=second().trace_id)
    assert system_messages(tmp_path, [back, second()])[second().trace_id] == PROMPT


@pytest.mark.parametrize("fields", [{"model": "claude-x"}, {"teacher": Teacher(model=TEACHER, student="ppo-v1")}])
def test_of_an_undeclared_teacher_only_the_question_is_told(tmp_path: Path, fields: dict[str, Any]) -> None:
    found = system_messages(tmp_path, [first(**fields), second()])
    asked = "Earlier in this session:\n- asked: Set the limit in a.cfg to 5 and say so"
    assert found[second().trace_id] == f"{PROMPT}\n\n{asked}"


def test_the_newest_version_of_a_turn_is_told_once(tmp_path: Path) -> None:
    found = system_messages(tmp_path, [first(claude_response="Old."), first(claude_response="New."), second()])
    assert found[second().trace_id].count("- asked") == 1
    assert "answered: New." in found[second().trace_id]


def test_other_sessions_and_later_turns_are_not_told(tmp_path: Path) -> None:
    third = second(user_prompt="And now?").model_copy(update={"trace_id": "third", "turn_index": 2})
    found = system_messages(tmp_path, [third, second("else", root="/home/me/other"), first("else2"), second()])
    assert found[second("else").trace_id] == PROMPT
    assert found[second().trace_id] == PROMPT
    assert found["third"].endswith("- asked: Mend the test, too\n  answered: Mended.")


def test_turns_of_one_number_are_told_in_the_same_order_however_they_are_stored(tmp_path: Path) -> None:
    twins = [first(claude_response=f"{name}.").model_copy(update={"trace_id": name}) for name in ("Aa", "Bb")]
    one = system_messages(tmp_path / "one", [*twins, second()])
    assert system_messages(tmp_path / "other", [*reversed(twins), second()]) == one
    told = one[second().trace_id]
    assert told.index("answered: Aa.") < told.index("answered: Bb.")


def test_a_digest_can_be_turned_off(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"dataset": DatasetConfig(digest_tokens=0)})
    assert set(system_messages(tmp_path, [first(), second()], config).values()) == {PROMPT}


def test_digests_do_not_depend_on_chunks(tmp_path: Path) -> None:
    traces = [
        transformer_trace(
            n, session=f"s{n % 4}", turn_index=n // 4, started_at=f"2026-01-01T{n:02}", root=f"/p/{n % 4}"
        )
        for n in range(20)
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = system_messages(whole, traces)
    assert system_messages(parts, traces, chunk_bytes=5000) == expected
    assert (whole / "bc_dataset.jsonl").read_bytes() == (parts / "bc_dataset.jsonl").read_bytes()
    assert sum("Earlier" in text for text in expected.values()) == 16


def test_a_pair_stands_in_the_same_context(tmp_path: Path) -> None:
    mended = trace(
        "Now the other one",
        ("Edit.", [call("Edit", "not found", error="tool_use_error", file_path="a.cfg", old_string="limit=4")]),
        ("Again.", [call("Edit", file_path="a.cfg", old_string="limit = 4")]),
        session="s",
        turn_index=1,
        mends=(0, 1),
    )
    source = tmp_path / "traces.jsonl"
    source.write_text("".join(f"{item.model_dump_json()}\n" for item in [first(), mended]), "utf-8")
    found = system_messages(tmp_path, [first(), mended])
    build_pairs(source, tmp_path / "bc_dataset.jsonl", CONFIG, tmp_path / "pairs.jsonl")
    (line,) = (tmp_path / "pairs.jsonl").read_text("utf-8").splitlines()
    assert PreferencePair.model_validate_json(line).prompt[0]["content"] == found[mended.trace_id]


texts = st.text(max_size=300)
deeds = st.builds(
    Deed,
    st.sampled_from(["Bash", "Read", "Edit", "Write", "Grep", "mcp__x__get", "Unknown"]),
    st.dictionaries(st.sampled_from(["command", "file_path", "path", "pattern"]), texts | st.none() | st.integers()),
    st.booleans(),
)


@given(st.lists(st.tuples(texts, st.lists(deeds, max_size=4), texts), max_size=6), st.integers(0, 400))
def test_any_history_fits_reads_back_and_counts_what_it_leaves_out(history: list[Any], tokens: int) -> None:
    turns = [turn_lines(*turn) for turn in history]
    told = digest(turns, tokens)
    assert not told or len(told.encode()) <= max(tokens * 3, len(digest(turns, 1).encode()))
    messages = [{"role": "system", "content": with_digest("Be brief.", told)}, {"role": "user", "content": "Go"}]
    assert parse(render(messages)) == messages
    if told and "left out]" not in told.split("\n")[1]:
        assert sum(line.startswith("- asked: ") for line in told.split("\n")) == len(turns)
    assert json.loads(json.dumps(told)) == told


def test_older_turns_give_way_first() -> None:
    turns = [
        turn_lines(f"question {n}", [Deed("Edit", {"file_path": f"f{n}.py"}, False)], "x" * 100) for n in range(40)
    ]
    told = digest(turns[-16:], 100, further_back=24)
    assert told.split("\n")[1].endswith("earlier prompts left out]")
    asked = [line for line in told.split("\n") if line.startswith("- asked")]
    assert asked[-1] == "- asked: question 39"
    assert int(told.split("[")[1].split(" ")[0]) + len(asked) == 40
    assert told.endswith("x" * 100)


def test_a_trace_is_told_by_its_main_agent_alone() -> None:
    made = first()
    made.tool_calls[2].agent_id = made.tool_calls[3].agent_id = "sub"
    assert "changed" not in trace_lines(made, DECLARED)
