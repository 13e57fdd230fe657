"""What raters see gives nobody away, sides are balanced, and tampering shows."""

from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path

import pytest
from blind_test_traces import ROOT, student_of, trace, write_traces
from hypothesis import given
from hypothesis import strategies as st

from claude_capture.claude_trace_schema import Step, ToolCall
from trainer.config import Config, EvaluateConfig
from trainer.errors import TrainerError
from trainer.evaluate.blind_test_folder import ITEMS, KEY, create_test, open_key, read_items, read_training_ids
from trainer.evaluate.identity_scrubbing import Scrubber
from trainer.evaluate.pair_rendering import render
from trainer.evaluate.pair_sampling import choose_controls, choose_pairs, proportional
from trainer.evaluate.student_run import find_student_run
from trainer.run_folder import RunFolder


def test_pairs_follow_the_workflow_types_and_sides_are_balanced_in_each() -> None:
    kinds = ["database"] * 60 + ["edit"] * 30 + ["question"] * 10
    teachers = {item.trace_id: item for item in (trace(n, workflow=kind) for n, kind in enumerate(kinds))}
    pairs = choose_pairs(teachers, {name: student_of(item) for name, item in teachers.items()}, 50, 7, "s")
    assert Counter(pair.workflow_type for pair in pairs) == {"database": 30, "edit": 15, "question": 5}
    for kind in ("database", "edit", "question"):
        sides = Counter(pair.teacher_side for pair in pairs if pair.workflow_type == kind)
        assert abs(sides[1] - sides[2]) <= 1
    assert Counter(pair.teacher_side for pair in pairs) == {1: 25, 2: 25}
    for pair in pairs:
        teacher, student = (pair.first, pair.second) if pair.teacher_side == 1 else (pair.second, pair.first)
        assert teacher.trace_id == student.trace_id
        assert (teacher.teacher.student, student.teacher.student) == (None, "llama-claude-ppo-v2")


def test_the_seed_decides_which_pairs_and_only_the_secret_who_stands_where() -> None:
    teachers = {item.trace_id: item for item in (trace(n) for n in range(30))}
    students = {name: student_of(item) for name, item in teachers.items()}

    def drawn(seed: int, secret: str) -> dict[str, int | None]:
        return {p.first.trace_id: p.teacher_side for p in choose_pairs(teachers, students, 10, seed, secret)}

    assert drawn(1, "a") == drawn(1, "a")
    assert drawn(1, "a").keys() == drawn(1, "b").keys() != drawn(2, "a").keys()
    assert len({tuple(drawn(1, secret).items()) for secret in "abcdefgh"}) > 4


@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 100), min_size=1, max_size=8), st.integers(1, 200)
)
def test_proportional_shares_add_up(sizes: dict[str, int], count: int) -> None:
    shares = proportional(sizes, count)
    assert sum(shares.values()) == min(count, sum(sizes.values()))
    assert all(shares[name] <= size for name, size in sizes.items())


def test_controls_come_from_repeats_of_a_prompt_in_one_project_first() -> None:
    repeats = [trace(n, user_prompt="Run  the tests") for n in (1, 2)]
    elsewhere = trace(3, user_prompt="Run the tests")
    elsewhere.context = elsewhere.context.model_copy(update={"project_dir": "/other"})
    for seed in range(5):
        controls = choose_controls([*repeats, elsewhere, trace(4)], 5, seed, "s")
        assert [{pair.first.trace_id, pair.second.trace_id} for pair in controls] == [{"trace-001", "trace-002"}]
        assert controls[0].teacher_side is None


def test_a_prompt_repeated_in_two_projects_makes_a_control_where_no_better_one_is(tmp_path: Path) -> None:
    here, there = trace(1, user_prompt="Run the tests"), trace(2, user_prompt="Run the tests")
    there.context = there.context.model_copy(update={"project_dir": "/other"})
    assert len(choose_controls([here, there], 5, 0, "s")) == 1
    teachers = {item.trace_id: item for item in (here, there)}
    key = create_test(tmp_path / "t", teachers, {"trace-001": student_of(here)}, EvaluateConfig())
    assert any("1 of 1 controls repeat a prompt in two projects" in note for note in key.notes)


@pytest.mark.parametrize(
    "leak",
    [
        "Co-Authored-By: Claude <noreply@anthropic.com>",
        "🤖 Generated with [Claude Code](https://claude.com/claude-code)",
        "I am Claude, made by Anthropic.",
        "model: claude-sonnet-4-5-20250929",
        "served by ollama:latest",
        "meta-llama/Llama-3.1-8B-Instruct",
        "Meta made LLaMA",
        "glm-4.6 wrote this",
        "cc-claude-agent wrote this",
        "cc-claude-agent:3f9a0c11d2e4",
    ],
)
def test_identity_leaks_are_scrubbed_and_counted(leak: str) -> None:
    scrubber = Scrubber(["glm-4.6"])
    clean = scrubber.text(f"before\n{leak}\nafter").lower()
    assert not any(name in clean for name in ("claude", "anthropic", "llama", "co-authored", "glm", "cc-"))
    assert "meta" not in clean
    assert clean.startswith("before\n")
    assert clean.endswith("\nafter")
    assert scrubber.found.total() >= 1


@pytest.mark.parametrize("text", ['<meta charset="utf-8">', "the metadata of a table", "ameliorate", "meta-analysis"])
def test_ordinary_words_stay(text: str) -> None:
    assert Scrubber().text(text) == text


@pytest.mark.parametrize(
    ("leak", "kind"),
    [
        ("call toolu_01893bfcca60c6fa14cf7665fc failed", "id"),
        ("msg_local_0123456789abcdef0123, toolu_local_0123456789abcdef0123, req_local_0123456789abcdef0123", "id"),
        ("call_3 and call_0123456789abcdef", "id"),
        ("session 3153e5f4-f1c4-455d-b148-1c06ab6c9882", "id"),
        ("see /home/someone/.claude/projects/-home-ada-grid/x.jsonl", "session folder"),
        ("see ~/.claude/todos", "session folder"),
        ("in /tmp/demo-live-x1y2/data", "session folder"),
        ("/private/var/folders/ab/cdef/T/tmp123/x", "session folder"),
        ("cat /home/someone/notes /home/user/notes", "home folder"),
    ],
)
def test_ids_and_folders_of_a_session_are_scrubbed_and_counted(leak: str, kind: str) -> None:
    scrubber = Scrubber()
    clean = scrubber.text(leak)
    assert scrubber.found == {kind: scrubber.found.total()}
    assert scrubber.found.total() >= 1
    for part in ("toolu", "local", "call_", "3153e5f4", ".claude", "demo-live", "tmp123", "someone", "/user/"):
        assert part not in clean


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("3 passed in 0.12s", "3 passed in [time]"),
        ("real\t0m0.123s", "real\t[time]"),
        ("a\n<system-reminder>be nice</system-reminder>\nb", "a\nb"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("<tool_use_error>no such file</tool_use_error>", "no such file"),
        ("     1→first\n    12\tsecond", "1  first\n12  second"),
        ("(Bash completed with no output)", ""),
        ("a\r\nb\n\n", "a\nb"),
    ],
)
def test_what_only_one_client_adds_to_an_output_is_taken_out(output: str, shown: str) -> None:
    call = ToolCall(id="c", tool="Read", input={"file_path": "./a.py"}, output=output)
    side = render(trace(1, tool_calls=[call], steps=[Step(index=0, call_ids=["c"])]), Scrubber())
    assert side.steps[0].calls[0].output == shown
    assert side.steps[0].calls[0].arguments == [("file_path", "a.py")]


def test_a_version_name_is_scrubbed_as_a_word_only() -> None:
    assert Scrubber(["ppo"]).text("ppo supports opposite PPO-v2") == "[name] supports opposite [name]-v2"


@given(st.text())
def test_scrubbing_any_text_is_stable(text: str) -> None:
    scrubber = Scrubber(["glm-4.6"])
    once = scrubber.output(text)
    assert Scrubber(["glm-4.6"]).output(once) == once


def test_same_work_written_by_two_clients_reads_the_same() -> None:
    teacher = ToolCall(
        id="toolu_1", tool="Bash", input={"command": "ls", "description": "List files"}, output="a\n", duration_ms=7
    )
    student = ToolCall(id="call_0", tool="Bash", input={"command": "ls"}, output="a")
    scrubber = Scrubber()
    sides = [
        render(trace(1, tool_calls=[call], steps=[Step(index=0, call_ids=[call.id], thinking=thinking)]), scrubber)
        for call, thinking in ((teacher, "hm"), (student, ""))
    ]
    assert sides[0] == sides[1]
    assert scrubber.found == {"call id": 2, "run time": 1, "thinking": 1, "idle argument": 1}


def test_absolute_paths_call_ids_and_thinking_do_not_tell_the_sides_apart() -> None:
    teacher = trace(1)
    teacher.steps[0].thinking = "SECRET-THOUGHT"
    shown = render(teacher, Scrubber()).model_dump_json()
    assert "data/t1.json" in shown
    assert ROOT not in shown
    assert "toolu_1" not in shown
    assert "SECRET-THOUGHT" not in shown


def test_final_answer_is_shown_once_and_an_edit_as_a_diff() -> None:
    edit = ToolCall(
        id="e", tool="Edit", input={"file_path": "a.py", "old_string": "x = 1\ny = 2", "new_string": "x = 1\ny = 3"}
    )
    shown = render(
        trace(
            1,
            tool_calls=[edit],
            steps=[Step(index=0, call_ids=["e"]), Step(index=1, text="Done.")],
            claude_response="Done.",
        ),
        Scrubber(),
    )
    assert len(shown.steps) == 1
    assert dict(shown.steps[0].calls[0].arguments)["change"].splitlines() == [" x = 1", "-y = 2", "+y = 3"]
    assert shown.answer == "Done."


def test_several_edits_are_one_diff_and_odd_ones_are_shown_as_they_are() -> None:
    edits = [{"old_string": "a", "new_string": "b"}, {"old_string": "c", "new_string": "d"}]
    calls = [
        ToolCall(id="m", tool="MultiEdit", input={"file_path": "a.py", "edits": edits}),
        ToolCall(id="n", tool="MultiEdit", input={"edits": ["odd"]}),
        ToolCall(id="o", tool="Edit", input={"old_string": 3, "new_string": None}),
    ]
    shown = render(trace(1, tool_calls=calls, steps=[Step(index=0, call_ids=["m", "n", "o"])]), Scrubber())
    assert [call.arguments for call in shown.steps[0].calls] == [
        [("file_path", "a.py"), ("change", "-a\n+b\n-c\n+d")],
        [("edits", '["odd"]')],
        [("new_string", "null"), ("old_string", "3")],
    ]


def test_items_name_no_author_and_the_key_is_private(blind_test: Path) -> None:
    items = (blind_test / ITEMS).read_text("utf-8")
    assert "glm" not in items
    assert "llama" not in items
    assert "trace-0" not in items
    assert stat.S_IMODE((blind_test / KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE(blind_test.stat().st_mode) == 0o700
    header, shown = read_items(blind_test)
    assert header.items == len(shown) == 8
    assert [entry.item for entry in open_key(blind_test).entries] == [item.item for item in shown]


def test_key_puts_the_teacher_where_it_really_is(blind_test: Path) -> None:
    _, items = read_items(blind_test)
    for item, entry in zip(items, open_key(blind_test).entries, strict=True):
        teacher = item.first if entry.teacher_side == 1 else item.second
        assert teacher.answer.startswith("Transformer")


def test_changed_key_and_changed_items_show(blind_test: Path) -> None:
    key = json.loads((blind_test / KEY).read_text("utf-8"))
    items = (blind_test / ITEMS).read_text("utf-8")
    (blind_test / ITEMS).write_text(items.replace("400 kVA", "500 kVA", 1), "utf-8")
    with pytest.raises(TrainerError, match="items were changed"):
        open_key(blind_test)
    (blind_test / ITEMS).write_text(items, "utf-8")
    key["entries"][0]["teacher_side"] = 3 - key["entries"][0]["teacher_side"]
    (blind_test / KEY).write_text(json.dumps(key), "utf-8")
    with pytest.raises(TrainerError, match="key was changed"):
        open_key(blind_test)


def test_trained_prompts_are_left_out_and_shortages_are_said(tmp_path: Path) -> None:
    teachers = {item.trace_id: item for item in (trace(n) for n in range(6))}
    students = {name: student_of(item) for name, item in teachers.items()}
    dataset = tmp_path / "bc.jsonl"
    rows = [{"trace_id": "trace-000", "split": "train"}, {"trace_id": "trace-001", "split": "test"}]
    dataset.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    key = create_test(
        tmp_path / "t", teachers, students, EvaluateConfig(pairs=50), trained_on=read_training_ids(dataset)
    )
    assert {entry.trace_ids[0] for entry in key.entries} == {f"trace-{n:03}" for n in range(1, 6)}
    assert any("5 of 50 pairs" in note for note in key.notes)
    assert any("no teacher-against-teacher controls" in note for note in key.notes)
    assert any("left out because" in note for note in key.notes)


def test_a_test_is_not_overwritten_and_strangers_make_none(blind_test: Path, tmp_path: Path) -> None:
    teachers = {"trace-001": trace(1)}
    with pytest.raises(TrainerError, match="holds a blind test already"):
        create_test(blind_test, teachers, {"trace-001": student_of(trace(1))}, EvaluateConfig())
    with pytest.raises(TrainerError, match="no held-out prompt has both"):
        create_test(tmp_path / "new", teachers, {"other": student_of(trace(2))}, EvaluateConfig())
    assert not (tmp_path / "new").exists()


def test_a_student_without_an_answer_is_shown_and_a_teacher_without_one_is_not(tmp_path: Path) -> None:
    teachers = {item.trace_id: item for item in (trace(1), trace(2), trace(3, claude_response=" "))}
    students = {name: student_of(item) for name, item in teachers.items()}
    students["trace-001"] = student_of(trace(1), claude_response="", status="interrupted", steps=[], tool_calls=[])
    key = create_test(tmp_path / "t", teachers, students, EvaluateConfig())
    assert {entry.trace_ids[0] for entry in key.entries} == {"trace-001", "trace-002"}
    assert key.unanswered == 1
    assert any("1 teacher traces were left out because the teacher gave no answer" in note for note in key.notes)


def test_the_key_may_be_kept_apart(tmp_path: Path) -> None:
    teachers = {"trace-001": trace(1)}
    apart = tmp_path / "safe" / "key.json"
    create_test(tmp_path / "t", teachers, {"trace-001": student_of(trace(1))}, EvaluateConfig(), key_path=apart)
    assert stat.S_IMODE(apart.stat().st_mode) == 0o600
    assert not (tmp_path / "t" / KEY).exists()
    assert len(open_key(tmp_path / "t", apart).entries) == 1
    with pytest.raises(TrainerError, match=r"say where with --key"):
        open_key(tmp_path / "t")
    with pytest.raises(TrainerError, match="is there already"):
        create_test(tmp_path / "u", teachers, {"trace-001": student_of(trace(1))}, EvaluateConfig(), key_path=apart)


def test_a_finished_test_of_the_student_is_found_by_the_config(tmp_path: Path) -> None:
    config = Config(runs=str(tmp_path))
    with pytest.raises(TrainerError, match="claude-trainer gate"):
        find_student_run(config, "ppo")
    other = config.model_copy(update={"sft": config.sft.model_copy(update={"epochs": 9.0})})
    for name, made_with, coverage in (
        ("test-ppo-1", config, {"recorded": 0.7, "patched": 0.3}),
        ("test-ppo-2", config, {}),
        ("test-ppo-3", other, {}),
        ("test-ppo-v2-4", config, {"patched": 0.1}),
        ("test-sft-5", config, {}),
    ):
        run = RunFolder(tmp_path, name, made_with)
        write_traces(run.path / "traces.jsonl", [trace(1)])
        run.finish(coverage=coverage)
    RunFolder(tmp_path, "test-ppo-unfinished", config)
    assert find_student_run(config, "ppo").traces.parent.name == "test-ppo-2"
    assert "fresh workspaces" in find_student_run(config, "ppo").note()
    longer = config.model_copy(update={"ppo": config.ppo.model_copy(update={"iterations": 7})})
    assert find_student_run(longer, "ppo") == find_student_run(config, "ppo")
    replayed = find_student_run(config, "ppo-v2")
    assert replayed.traces.parent.name == "test-ppo-v2-4"
    assert "10% of them had no recorded answer" in replayed.note()
