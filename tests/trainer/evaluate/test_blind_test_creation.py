"""What raters see gives nobody away, sides are balanced, and tampering shows."""

from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path

import pytest
from blind_test_traces import ROOT, student_of, trace
from hypothesis import given
from hypothesis import strategies as st

from claude_capture.claude_trace_schema import Step, ToolCall
from trainer.config import EvaluateConfig
from trainer.errors import TrainerError
from trainer.evaluate.blind_test_folder import ITEMS, KEY, create_test, open_key, read_items, read_training_ids
from trainer.evaluate.identity_scrubbing import Scrubber
from trainer.evaluate.pair_rendering import render
from trainer.evaluate.pair_sampling import choose_controls, choose_pairs, proportional


def test_pairs_follow_the_workflow_types_and_sides_are_balanced_in_each() -> None:
    kinds = ["database"] * 60 + ["edit"] * 30 + ["question"] * 10
    teachers = {item.trace_id: item for item in (trace(n, workflow=kind) for n, kind in enumerate(kinds))}
    pairs = choose_pairs(teachers, {name: student_of(item) for name, item in teachers.items()}, 50, seed=7)
    assert Counter(pair.workflow_type for pair in pairs) == {"database": 30, "edit": 15, "question": 5}
    for kind in ("database", "edit", "question"):
        sides = Counter(pair.teacher_side for pair in pairs if pair.workflow_type == kind)
        assert abs(sides[1] - sides[2]) <= 1
    assert abs(sum(1 if pair.teacher_side == 1 else -1 for pair in pairs)) <= 1
    for pair in pairs:
        teacher, student = (pair.first, pair.second) if pair.teacher_side == 1 else (pair.second, pair.first)
        assert teacher.trace_id == student.trace_id
        assert (teacher.teacher.student, student.teacher.student) == (None, "llama-claude-ppo-v2")


def test_the_seed_decides_and_nothing_else() -> None:
    teachers = {item.trace_id: item for item in (trace(n) for n in range(30))}
    students = {name: student_of(item) for name, item in teachers.items()}

    def drawn(seed: int) -> list[tuple[str, int | None]]:
        return [(pair.first.trace_id, pair.teacher_side) for pair in choose_pairs(teachers, students, 10, seed)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 100), min_size=1, max_size=8), st.integers(1, 200)
)
def test_proportional_shares_add_up(sizes: dict[str, int], count: int) -> None:
    shares = proportional(sizes, count)
    assert sum(shares.values()) == min(count, sum(sizes.values()))
    assert all(shares[name] <= size for name, size in sizes.items())


def test_controls_come_from_repeats_of_a_prompt_in_one_project() -> None:
    repeats = [trace(n, user_prompt="Run  the tests") for n in (1, 2)]
    elsewhere = trace(3, user_prompt="Run the tests")
    elsewhere.context = elsewhere.context.model_copy(update={"project_dir": "/other"})
    controls = choose_controls([*repeats, elsewhere, trace(4)], 5, seed=0)
    assert [{pair.first.trace_id, pair.second.trace_id} for pair in controls] == [{"trace-001", "trace-002"}]
    assert controls[0].teacher_side is None


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
    ],
)
def test_identity_leaks_are_scrubbed_and_counted(leak: str) -> None:
    scrubber = Scrubber(["glm-4.6"])
    clean = scrubber.text(f"before\n{leak}\nafter").lower()
    assert not any(name in clean for name in ("claude", "anthropic", "llama", "co-authored", "glm"))
    assert "meta" not in clean
    assert clean.startswith("before\n")
    assert clean.endswith("\nafter")
    assert scrubber.found.total() >= 1


@pytest.mark.parametrize("text", ['<meta charset="utf-8">', "the metadata of a table", "ameliorate", "meta-analysis"])
def test_ordinary_words_stay(text: str) -> None:
    assert Scrubber().text(text) == text


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
