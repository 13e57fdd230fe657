"""Raters answer over a real loopback server, and the report judges what they said."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx2
import pytest
from blind_test_traces import student_of, trace, write_traces

from trainer.errors import TrainerError
from trainer.evaluate.answer_store import AnswerStore
from trainer.evaluate.blind_test_folder import ANSWERS, open_key
from trainer.evaluate.blind_test_report import report

get = partial(httpx2.get, verify=False, trust_env=False, timeout=120)
post = partial(httpx2.post, verify=False, trust_env=False, timeout=120)
CLI = [sys.executable, "-c", "from trainer.cli import main; main()", "blind-test"]


class Served:
    """`blind-test serve` as a process."""

    def __init__(self, folder: Path, *raters: str) -> None:
        invited = [part for name in raters for part in ("--rater", name)]
        self.process = subprocess.Popen(
            [*CLI, "serve", "--out", str(folder), "--port", "0", *invited], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.links = dict(self.process.stdout.readline().strip().split(": ", 1) for _ in raters or ("rater",))

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(how)
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def served(blind_test: Path) -> Iterator[Served]:
    server = Served(blind_test, "ada", "bob")
    yield server
    server.stop()


def item_on(page: str) -> str:
    found = re.search(r'name="item" value="([^"]+)"', page)
    assert found, page
    return found[1]


def progress_on(page: str) -> str:
    found = re.search(r"\d+/8", page)
    assert found, page
    return found[0]


def choose(link: str, choice: str) -> str:
    """Answers the shown item; the next page."""
    page = get(link).text
    data = {"item": item_on(page), "choice": choice}
    return post(f"{link}/answer", data=data, follow_redirects=True).text


def test_a_rater_answers_undoes_and_is_counted(served: Served) -> None:
    link = served.links["ada"]
    first = get(link).text
    assert progress_on(first) == "0/8"
    assert all(f'data-key="{key}"' in first for key in "120u")
    second = choose(link, "1")
    assert progress_on(second) == "1/8"
    assert item_on(second) != item_on(first)
    back = post(f"{link}/undo", follow_redirects=True).text
    assert progress_on(back) == "0/8"
    assert item_on(back) == item_on(first)
    for _ in range(8):
        last = choose(link, "0")
    assert "All answered" in last


def test_answers_survive_a_kill_and_the_link_stays(blind_test: Path) -> None:
    server = Served(blind_test, "ada")
    choose(server.links["ada"], "2")
    server.stop(signal.SIGKILL)
    again = Served(blind_test, "ada")
    try:
        assert again.links["ada"].split("/r/")[1] == server.links["ada"].split("/r/")[1]
        assert progress_on(get(again.links["ada"]).text) == "1/8"
    finally:
        again.stop()
    assert stat.S_IMODE((blind_test / ANSWERS).stat().st_mode) == 0o600


def test_raters_see_neither_each_other_nor_the_key(served: Served) -> None:
    choose(served.links["ada"], "1")
    response = get(served.links["bob"])
    assert progress_on(response.text) == "0/8"
    for word in ("glm", "llama", "trace-0", "workflow_type", "teacher_side"):
        assert word not in response.text
    assert response.headers["cache-control"] == "no-store"
    nonce = re.search(r"script-src 'nonce-([^']+)'", response.headers["content-security-policy"])
    assert nonce
    assert f'<script nonce="{nonce[1]}">' in response.text
    assert response.text.count("<script") == 1


def test_unknown_links_and_answers_are_refused(served: Served) -> None:
    link = served.links["ada"]
    assert get(link[:-3]).status_code == 404
    assert get(link.split("/r/")[0] + "/").status_code == 404
    assert post(f"{link}/answer", data={"item": "i999", "choice": "1"}).status_code == 400
    assert post(f"{link}/answer", data={"item": "i001", "choice": "3"}).status_code == 400
    assert post(f"{link}/answer", content=b"x" * 10_000).status_code == 400
    assert progress_on(get(link).text) == "0/8"


def test_what_traces_say_is_text_on_the_page(tmp_path: Path) -> None:
    evil = trace(1, user_prompt="<script>alert(1)</script>", claude_response="<img src=x onerror=alert(2)>")
    teacher = write_traces(tmp_path / "t.jsonl", [evil])
    student = write_traces(tmp_path / "s.jsonl", [student_of(evil)])
    arguments = ["create", "--teacher", str(teacher), "--student", str(student), "--out", str(tmp_path / "test")]
    subprocess.run([*CLI, *arguments], check=True, capture_output=True)
    server = Served(tmp_path / "test")
    try:
        page = get(server.links["rater"]).text
    finally:
        server.stop()
    assert "&lt;script&gt;alert(1)" in page
    assert "<img" not in page


def answer_all(folder: Path, rater: str, wrong: set[int]) -> None:
    """Answers every item through the store; the items numbered in `wrong` (0-based) wrongly."""
    store = AnswerStore(folder / ANSWERS)
    store.invite(rater)
    for number, entry in enumerate(open_key(folder).entries):
        assert entry.teacher_side is not None
        side = 3 - entry.teacher_side if number in wrong else entry.teacher_side
        assert store.record(rater, entry.item, str(side))  # type: ignore[arg-type]
    store.close()


def test_report_is_refused_while_the_test_is_open_and_closing_is_final(blind_test: Path) -> None:
    answer_all(blind_test, "ada", {0, 1, 2})
    with pytest.raises(TrainerError, match=r"the test is open \(8 of 8 answers\)"):
        report(blind_test)
    result = report(blind_test, close=True)
    assert (result.wrong, result.choices, result.undecided) == (3, 8, 0)
    store = AnswerStore(blind_test / ANSWERS)
    store.invite("late")
    assert not store.record("late", "i001", "1")
    store.undo("ada")
    store.close()
    assert report(blind_test).model_dump() == result.model_dump() | {
        "notes": [*result.notes, "closed with 8 of 16 answers"]
    }


def test_raters_who_agree_do_not_count_twice(blind_test: Path) -> None:
    answer_all(blind_test, "ada", {0, 1, 2, 3})
    answer_all(blind_test, "bob", {0, 1, 2, 3})
    result = report(blind_test, close=True)
    assert (result.wrong, result.choices) == (8, 16)
    assert (result.independent_wrong, result.independent_choices) == (4, 8)
    assert result.design_effect == pytest.approx(2)
    assert any("count as 8 independent" in note for note in result.notes)


def test_a_tampered_key_is_not_reported(blind_test: Path) -> None:
    answer_all(blind_test, "ada", set())
    key = blind_test / "key.json"
    key.write_text(key.read_text("utf-8").replace('"teacher_side": 1', '"teacher_side": 2', 1), "utf-8")
    with pytest.raises(TrainerError, match="key was changed"):
        report(blind_test, close=True)


def test_the_three_commands_end_in_json_and_a_page(tmp_path: Path) -> None:
    teachers = [trace(number, workflow="edit" if number % 2 else "database") for number in range(6)]
    teachers += [trace(20 + number, user_prompt="Again", workflow="question") for number in range(2)]
    files = [
        write_traces(tmp_path / "t.jsonl", teachers),
        write_traces(tmp_path / "s.jsonl", [student_of(item) for item in teachers[:6]]),
    ]
    folder = tmp_path / "test"
    created = subprocess.run(
        [*CLI, "create", "--teacher", str(files[0]), "--student", str(files[1]), "--out", str(folder), "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    counts = json.loads(created.stdout)
    assert (counts["pairs"], counts["controls"], counts["teacher_first"]) == (6, 1, 3)
    store = AnswerStore(folder / ANSWERS)
    store.invite("ada")
    for entry in open_key(folder).entries:
        store.saw("ada", entry.item)
        store.record("ada", entry.item, "1")
    store.close()
    refused = subprocess.run([*CLI, "report", "--out", str(folder)], capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "--close" in refused.stderr
    closed = subprocess.run(
        [*CLI, "report", "--out", str(folder), "--close", "--json"], check=True, capture_output=True, text=True
    )
    result = json.loads(closed.stdout)
    assert (result["wrong"], result["choices"]) == (3, 6)
    assert result["controls"] == {"n": 1, "first": 1, "undecided": 0}
    assert set(result["by_workflow"]) == {"database", "edit"}
    assert [verdict["interval"] for verdict in result["verdicts"]] == ["INCONCLUSIVE", "INCONCLUSIVE"]
    page = (folder / "report.html").read_text("utf-8")
    assert "Success: INCONCLUSIVE" in page
    assert "Replace: INCONCLUSIVE" in page
    assert json.loads((folder / "report.json").read_text("utf-8")) == result


def test_missing_traces_are_one_clear_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CLI, "create", "--teacher", str(tmp_path / "no.jsonl"), "--student", str(tmp_path / "no.jsonl")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no such file" in done.stderr


def test_help_does_not_load_the_server() -> None:
    code = (
        "import sys; from trainer.cli import main\n"
        "try: main(['blind-test', 'serve', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('starlette', 'uvicorn', 'scipy', 'matplotlib', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
