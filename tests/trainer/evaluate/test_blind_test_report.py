"""The report is sealed until the test is closed, counts what raters said, and says what else could explain it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from blind_test_traces import student_of, trace, write_traces
from click.testing import CliRunner
from served_blind_test import CLI

from trainer.config import EvaluateConfig
from trainer.errors import TrainerError
from trainer.evaluate.answer_store import Answer, AnswerStore, Choice, Preference
from trainer.evaluate.blind_test_folder import ANSWERS, create_test, open_key
from trainer.evaluate.blind_test_report import report
from trainer.evaluate.command import blind_test as blind_test_command

PREFERRED: dict[str, Preference] = {"tie": "0", "both bad": "3"}


def answer_all(folder: Path, rater: str, wrong: set[int], *, prefer: str = "tie", note: str = "") -> None:
    """Answers every item through the store; the items numbered in `wrong` (0-based) wrongly."""
    store = AnswerStore(folder / ANSWERS)
    store.invite(rater)
    for number, entry in enumerate(open_key(folder).entries):
        teacher = entry.teacher_side or 1
        side = str(3 - teacher if number in wrong else teacher)
        preference = PREFERRED.get(prefer) or str(teacher if prefer == "teacher" else 3 - teacher)
        assert store.save(Answer(rater, entry.item, side, preference, note, 4.0))  # type: ignore[arg-type]
    store.close()


def test_report_is_refused_while_the_test_is_open_and_closing_is_final(blind_test: Path) -> None:
    answer_all(blind_test, "ada", {0, 1, 2})
    with pytest.raises(TrainerError, match=r"the test is open \(8 of 8 answers\)"):
        report(blind_test)
    result = report(blind_test, close=True)
    assert (result.wrong, result.choices, result.undecided) == (3, 8, 0)
    store = AnswerStore(blind_test / ANSWERS)
    store.invite("late")
    assert not store.save(Answer("late", "i001", "1"))
    assert not store.save(Answer("ada", "i001", "0"))
    store.close()
    assert report(blind_test).model_dump() == result.model_dump() | {
        "notes": [*result.notes, "closed with 8 of 16 answers"]
    }


def test_a_test_without_a_forced_choice_stays_open(blind_test: Path) -> None:
    with pytest.raises(TrainerError, match="no pair was answered"):
        report(blind_test, close=True)
    store = AnswerStore(blind_test / ANSWERS)
    store.invite("ada")
    store.save(Answer("ada", "i001", "0", "0"))
    with pytest.raises(TrainerError, match="all 1 answers on pairs are 'cannot tell'"):
        report(blind_test, close=True)
    assert store.save(Answer("ada", "i001", "1", "0"))
    store.close()
    assert report(blind_test, close=True).choices == 1


def test_raters_who_agree_do_not_count_twice(blind_test: Path) -> None:
    answer_all(blind_test, "ada", {0, 1, 2, 3})
    answer_all(blind_test, "bob", {0, 1, 2, 3})
    result = report(blind_test, close=True)
    assert (result.wrong, result.choices) == (8, 16)
    assert (result.independent_wrong, result.independent_choices) == (4, 8)
    assert result.design_effect == pytest.approx(2)
    assert result.agreement is not None
    assert result.agreement.alpha == pytest.approx(1)
    assert result.agreement.same == 1
    assert any("count as 8 independent" in note for note in result.notes)


def test_preferences_are_told_by_author_not_by_side(blind_test: Path) -> None:
    sides = [entry.teacher_side for entry in open_key(blind_test).entries]
    wrong = {sides.index(1), sides.index(2)}  # one on each side, wherever the key's secret has put the teacher
    for rater, prefer in (("ada", "student"), ("bob", "teacher"), ("cyd", "student"), ("dan", "both bad")):
        answer_all(blind_test, rater, wrong, prefer=prefer, note="odd" if rater == "dan" else "")
    result = report(blind_test, close=True)
    counts = {name: (share.count, share.n) for name, share in result.preferences.items()}
    assert counts == {"teacher": (8, 32), "student": (16, 32), "tie": (0, 32), "both bad": (8, 32)}
    assert result.first_side.share == 0.5
    assert {name: (r.wrong, r.choices, r.median_seconds) for name, r in result.raters.items()} == dict.fromkeys(
        ("ada", "bob", "cyd", "dan"), (2, 8, 4.0)
    )
    assert [(r.rater, r.text) for r in result.remarks] == [("dan", "odd")] * 8


def test_half_an_answer_counts_with_the_half_that_is_there(blind_test: Path) -> None:
    answer_all(blind_test, "ada", set())
    store = AnswerStore(blind_test / ANSWERS)
    store.save(Answer("ada", "i001", "1", None))
    store.save(Answer("ada", "i002", None, "1"))
    store.close()
    result = report(blind_test, close=True)
    assert result.choices == 7
    assert {share.n for share in result.preferences.values()} == {6}


def test_pairs_that_read_the_same_are_counted_apart(tmp_path: Path) -> None:
    teachers = {item.trace_id: item for item in (trace(number) for number in range(6))}
    students = {name: item if item.turn_index else student_of(item) for name, item in teachers.items()}
    for number in range(3):
        students[f"trace-{number:03}"] = teachers[f"trace-{number:03}"]
    create_test(tmp_path / "t", teachers, students, EvaluateConfig(pairs=6, controls=0))
    same = [n for n, e in enumerate(open_key(tmp_path / "t").entries) if e.trace_ids[0] < "trace-003"]
    answer_all(tmp_path / "t", "ada", set(same))
    result = report(tmp_path / "t", close=True)
    assert (result.same, result.wrong, result.choices) == (3, 3, 6)
    assert result.differing is not None
    assert (result.differing.count, result.differing.n) == (0, 3)
    assert any("3 of the pairs read the same" in note for note in result.notes)


@pytest.mark.parametrize(("choice", "expected"), [("1", False), ("0", None)])
def test_controls_show_a_bias_to_a_side(tmp_path: Path, choice: Choice, expected: bool | None) -> None:
    teachers = {item.trace_id: item for item in (trace(n, user_prompt=f"Ask {n // 2}") for n in range(12))}
    create_test(tmp_path / "t", teachers, {"trace-000": student_of(trace(0))}, EvaluateConfig(controls=6))
    answer_all(tmp_path / "t", "ada", set())
    store = AnswerStore(tmp_path / "t" / ANSWERS)
    for entry in open_key(tmp_path / "t").entries:
        if entry.kind == "control":
            store.save(Answer("ada", entry.item, choice, "0"))
    store.close()
    controls = report(tmp_path / "t", close=True).controls
    assert controls is not None
    assert (controls.n, controls.as_expected) == (6, expected)
    assert (controls.first is None) == (choice == "0")


def test_a_tampered_key_is_not_reported(blind_test: Path) -> None:
    answer_all(blind_test, "ada", set())
    key = blind_test / "key.json"
    key.write_text(key.read_text("utf-8").replace('"teacher_side": 1', '"teacher_side": 2', 1), "utf-8")
    with pytest.raises(TrainerError, match="key was changed"):
        report(blind_test, close=True)


def test_answers_of_another_test_are_refused(blind_test: Path) -> None:
    answer_all(blind_test, "ada", set())
    store = AnswerStore(blind_test / ANSWERS)
    store.save(Answer("ada", "i099", "1"))
    store.close()
    with pytest.raises(TrainerError, match="answers to i099"):
        report(blind_test, close=True)


def test_the_three_commands_end_in_json_and_a_page(tmp_path: Path) -> None:
    teachers = [trace(number, workflow="edit" if number % 2 else "database") for number in range(6)]
    teachers += [trace(20 + number, user_prompt="Again", workflow="question") for number in range(2)]
    files = [
        write_traces(tmp_path / "t.jsonl", teachers),
        write_traces(tmp_path / "s.jsonl", [student_of(item) for item in teachers[:6]]),
    ]
    folder, key = tmp_path / "test", tmp_path / "apart.json"
    there = ["--out", str(folder), "--key", str(key)]
    created = subprocess.run(
        [*CLI, "create", "--teacher", str(files[0]), "--student", str(files[1]), *there, "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    counts = json.loads(created.stdout)
    assert (counts["pairs"], counts["controls"], counts["teacher_first"]) == (6, 1, 3)
    store = AnswerStore(folder / ANSWERS)
    store.invite("ada")
    for entry in open_key(folder, key).entries:
        store.save(Answer("ada", entry.item, "1", "2", "<b>hm</b>", 3.0))
    store.close()
    refused = subprocess.run([*CLI, "report", *there], capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "--close" in refused.stderr
    closed = subprocess.run([*CLI, "report", *there, "--close", "--json"], check=True, capture_output=True, text=True)
    result = json.loads(closed.stdout)
    assert (result["wrong"], result["choices"]) == (3, 6)
    assert (result["controls"]["n"], result["controls"]["first"]["count"]) == (1, 1)
    assert set(result["by_workflow"]) == {"database", "edit"}
    assert {name: (v["point"], v["interval"]) for name, v in result["verdicts"].items()} == {
        "success": ("above", "INCONCLUSIVE"),
        "replace": ("above", "INCONCLUSIVE"),
    }
    page = (folder / "report.html").read_text("utf-8")
    assert "Success, I &gt; 45%: INCONCLUSIVE" in page
    assert "Replace, I &gt; 48%: INCONCLUSIVE" in page
    assert page.count("<svg") == 2
    assert "&lt;b&gt;hm" in page
    assert json.loads((folder / "report.json").read_text("utf-8")) == result
    told = CliRunner().invoke(blind_test_command, ["report", *there]).output
    assert "I = 0.500" in told
    assert "preferred: teacher 50%, student 50%" in told
