"""Raters answer over a real loopback server: nothing acknowledged is lost, and nobody else gets in."""

from __future__ import annotations

import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from blind_test_traces import student_of, trace, write_traces
from hypothesis import given
from hypothesis import strategies as st
from served_blind_test import CLI, Rater, Served

from trainer.errors import TrainerError
from trainer.evaluate.answer_store import MAX_NOTE, Answer, AnswerStore
from trainer.evaluate.blind_test_folder import ANSWERS, Item
from trainer.evaluate.blind_test_html import Progress, question
from trainer.evaluate.blind_test_page import BlindTestPage, Place
from trainer.evaluate.pair_rendering import Rendering, ShownCall, ShownStep


@pytest.fixture
def served(blind_test: Path) -> Iterator[Served]:
    server = Served(blind_test, "ada", "bob")
    yield server
    if server.process.poll() is None:
        server.stop()


def stored(folder: Path, rater: str | None = None) -> list[Answer]:
    store = AnswerStore(folder / ANSWERS)
    try:
        return store.answers(rater)
    finally:
        store.close()


def test_a_rater_answers_goes_back_changes_and_is_counted(served: Served, blind_test: Path) -> None:
    ada = Rater(served.links["ada"])
    first = ada.field("item")
    assert ada.progress == "0/8"
    ada.answer("1", "2", "looks stiff")
    assert ada.progress == "1/8"
    assert ada.field("item") != first
    assert ada.open("/item/1") == 200
    assert ada.checked == [("choice", "1"), ("preference", "2")]
    assert ">\nlooks stiff</textarea>" in ada.page
    ada.answer("2", "3")
    assert (ada.number, ada.progress) == (2, "1/8")
    for _ in range(7):
        ada.answer("0")
    assert "All answered" in ada.page
    assert "8/8" in ada.page
    answers = stored(blind_test, "ada")
    assert {a.item: a[2:5] for a in answers}[first] == ("2", "3", "")
    assert all(a.seconds >= 0 for a in answers)


def test_half_an_answer_is_kept_and_asked_for_again(served: Served, blind_test: Path) -> None:
    ada = Rater(served.links["ada"])
    reply = ada.post(choice="1")
    assert reply.status_code == 400
    assert "Please answer both questions" in reply.text
    assert [a[2:4] for a in stored(blind_test)] == [("1", None)]
    again = Rater(served.links["ada"])
    assert (again.number, again.progress, again.checked) == (1, "0/8", [("choice", "1")])


def test_double_submit_and_two_tabs_leave_one_answer_the_last_one(served: Served, blind_test: Path) -> None:
    tab, other = Rater(served.links["ada"]), Rater(served.links["ada"])
    assert tab.field("item") == other.field("item")
    sent = {"choice": "1", "preference": "1"}
    assert tab.post(**sent).status_code == tab.post(**sent).status_code == 200
    other.answer("2", "2")
    assert [a[2:4] for a in stored(blind_test)] == [("2", "2")]
    assert other.progress == "1/8"


def test_every_acknowledged_answer_survives_a_kill(blind_test: Path) -> None:
    server = Served(blind_test, "ada")
    ada = Rater(server.links["ada"])
    acknowledged: list[tuple[str, str]] = []
    enough = threading.Event()

    def vote() -> None:
        for number in range(10_000):
            choice = "12"[number % 2]
            try:
                reply = ada.post(choice=choice, preference="0", note=str(number), autosave="1")
            except httpx2.HTTPError:
                return
            if reply.status_code == 204:
                acknowledged.append((choice, str(number)))
            if number == 40:
                enough.set()

    voter = threading.Thread(target=vote)
    voter.start()
    assert enough.wait(60)
    server.stop(signal.SIGKILL)
    voter.join(60)
    (kept,) = stored(blind_test, "ada")
    following = str(int(acknowledged[-1][1]) + 1)  # may have been stored without a reply
    assert kept.note in (acknowledged[-1][1], following)
    again = Served(blind_test, "ada")
    try:
        assert again.links["ada"].split("/r/")[1] == server.links["ada"].split("/r/")[1]
        assert Rater(again.links["ada"]).progress == "1/8"
    finally:
        again.stop()
    assert stat.S_IMODE((blind_test / ANSWERS).stat().st_mode) == 0o600


def test_a_closed_test_takes_no_answer_and_says_so(served: Served, blind_test: Path) -> None:
    ada = Rater(served.links["ada"])
    store = AnswerStore(blind_test / ANSWERS)
    with store.closing():
        pass
    store.close()
    late = ada.post(choice="1", preference="1")
    assert late.status_code == 409
    assert "was not stored" in late.text
    assert ada.post(choice="1", preference="1", autosave="1").status_code == 409
    assert stored(blind_test) == []
    for path in ("/", "/item/1", "/done"):
        ada.open(path)
        assert "This test is closed" in ada.page


def test_an_error_while_closing_leaves_the_test_open(blind_test: Path) -> None:
    store = AnswerStore(blind_test / ANSWERS)
    store.invite("ada")
    with pytest.raises(ValueError, match="broken"), store.closing():
        raise ValueError("broken")
    assert store.closed_at is None
    assert store.save(Answer("ada", "i001", "1", "0"))
    store.close()


def test_raters_see_neither_each_other_nor_the_key(served: Served) -> None:
    ada, bob = Rater(served.links["ada"]), Rater(served.links["bob"])
    ada.answer("1", note="mine alone")
    bob.open("/item/1")
    assert bob.progress == "0/8"
    for word in ("glm", "llama", "trace-0", "workflow_type", "teacher_side", "mine alone"):
        assert word not in bob.page


def test_the_token_leaves_the_address_and_becomes_a_cookie(served: Served) -> None:
    reply = httpx2.get(served.links["ada"], trust_env=False, follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert served.links["ada"].split("/r/")[1] not in Rater(served.links["ada"]).page


def test_answers_forbid_what_the_page_does_not_need(served: Served) -> None:
    reply = Rater(served.links["ada"]).http.get("/item/1")
    assert reply.headers["cache-control"] == "no-store"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    nonce = re.search(r"script-src 'nonce-([^']+)'", policy)
    assert nonce
    assert f'<script nonce="{nonce[1]}">' in reply.text
    assert reply.text.count("<script") == 1
    assert nonce[1] not in Rater(served.links["ada"]).page


def test_strangers_are_refused(served: Served, blind_test: Path) -> None:
    ada, bob = Rater(served.links["ada"]), Rater(served.links["bob"])
    with httpx2.Client(base_url=served.base, trust_env=False) as fresh:
        assert fresh.get(served.links["ada"][:-3]).status_code == 404
        assert fresh.get("/r/%00%ff").status_code == 404
        assert fresh.get("/").status_code == 403
        assert fresh.get("/item/1").status_code == 403
        assert fresh.post("/item/1", data={"item": "i001", "choice": "1"}).status_code == 403
        assert fresh.get("/key.json").status_code == 404
    good = {"form": ada.field("form"), "item": ada.field("item"), "choice": "1", "preference": "1"}
    path = f"/item/{ada.number}"
    refused = [
        ada.http.post(path, data=good | {"form": bob.field("form")}),
        ada.http.post(path, data=good | {"form": ""}),
        ada.http.post(path, data=good, headers={"Origin": "http://evil.example"}),
        ada.http.post(path, data=good, headers={"Origin": "null"}),
        ada.http.get(path, headers={"Host": "evil.example"}),
        ada.http.get(path, headers={"Host": "evil.example:" + served.base.rsplit(":", 1)[1]}),
    ]
    assert [reply.status_code for reply in refused] == [403] * 6
    assert stored(blind_test) == []


def test_odd_answers_are_refused(served: Served, blind_test: Path) -> None:
    ada = Rater(served.links["ada"])
    assert ada.post(item="i999", choice="1").status_code == 400
    assert ada.post(choice="3").status_code == 400
    assert ada.post(preference="7").status_code == 400
    assert ada.http.post("/item/99", data={"form": ada.field("form"), "item": "i001"}).status_code == 400
    assert ada.open("/item/0") == ada.open("/item/99") == ada.open("/item/x") == 404
    assert stored(blind_test) == []


def test_oversized_bodies_are_refused(served: Served, blind_test: Path) -> None:
    ada = Rater(served.links["ada"])
    assert ada.post(choice="1", note="x" * 40_000).status_code == 413
    chunks = (b"note=" + b"x" * 10_000 for _ in range(10))
    assert ada.http.post(f"/item/{ada.number}", content=chunks).status_code == 413
    assert stored(blind_test) == []
    assert ada.post(choice="1", preference="1", note="ü" * 3000).status_code == 200
    assert stored(blind_test)[0].note == "ü" * MAX_NOTE


def test_the_server_logs_nothing_of_what_is_said(served: Served) -> None:
    ada = Rater(served.links["ada"])
    ada.answer("1", "1", "a secret remark")
    ada.http.post("/item/1", content=b"\xff\xfe=%zz&note=another secret")
    assert served.stop().strip() == "claude-trainer: interrupted"


def test_time_is_measured_without_the_clock_of_the_wall(blind_test: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock runs backwards here; the seconds still add up."""
    import asyncio
    import datetime
    import time

    class Backwards(datetime.datetime):
        seen = 10**9

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            cls.seen -= 10_000
            return datetime.datetime.fromtimestamp(cls.seen, tz)

    monkeypatch.setattr("trainer.evaluate.answer_store.datetime", Backwards)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    now = 100.0
    monkeypatch.setattr("trainer.evaluate.blind_test_page.time.monotonic", lambda: now)
    page = BlindTestPage(blind_test)
    token = page.answers.invite("ada")
    transport = httpx2.ASGITransport(app=page.app(Place.of(["test"], 80)))

    async def work() -> None:
        nonlocal now
        async with httpx2.AsyncClient(transport=transport, base_url="http://test", follow_redirects=True) as http:
            shown = (await http.get(f"/r/{token}")).text
            fields = dict(re.findall(r'name="(form|item)" value="([^"]*)"', shown))
            for seconds, choice in ((7, "1"), (5, "2")):
                now += seconds
                await http.post("/item/1", data=fields | {"choice": choice, "autosave": "1"})

    asyncio.run(work())
    assert [(a.choice, a.seconds) for a in page.answers.answers()] == [("2", 12.0)]
    page.answers.close()


@given(st.text(min_size=1), st.text(), st.text())
def test_whatever_a_trace_or_a_rater_says_is_text(tool: str, text: str, note: str) -> None:
    evil = f'{text}<script>x</script></pre></textarea>"><img src=x onerror=y>'
    call = ShownCall(tool=tool + "<b>", arguments=[(evil, evil), ("change", f"+{evil}\n-{evil}")], output=evil)
    side = Rendering(steps=[ShownStep(text=evil, calls=[call])], answer=evil)
    item = Item(item="i001", prompt=evil, first=side, second=Rendering(answer=text))
    page = question(item, Answer("ada", "i001", note=note + evil), Progress(1, 0, 8), "token")
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in page
    assert (page.count("<textarea"), page.count("</textarea>"), page.count("</main>")) == (1, 1, 1)
    assert page.count("<pre") == page.count("</pre>")


def test_every_rater_has_an_order_of_their_own(blind_test: Path) -> None:
    page = BlindTestPage(blind_test)
    orders = {tuple(item.item for item in page.order(name)) for name in ("ada", "bob", "cyd", "dan")}
    assert len(orders) == 4
    assert {frozenset(order) for order in orders} == {frozenset(next(iter(orders)))}
    page.answers.close()


def test_an_older_or_broken_file_of_answers_is_one_clear_line(tmp_path: Path) -> None:
    import sqlite3

    broken, older = tmp_path / "a.sqlite3", tmp_path / "b.sqlite3"
    broken.write_bytes(b"not a database, by far" * 100)
    with sqlite3.connect(older) as connection:
        connection.execute("CREATE TABLE answer (number INTEGER)")
    connection.close()
    for path in (broken, older):
        with pytest.raises(TrainerError, match="not a file of answers"):
            AnswerStore(path)


def test_place_names_what_browsers_send() -> None:
    assert Place.of(["127.0.0.1", "localhost"], 8096).hosts == {"127.0.0.1:8096", "localhost:8096"}
    assert "127.0.0.1" in Place.of(["127.0.0.1"], 80).hosts
    public = Place.of(["10.0.0.5"], 8096, "https://Rate.example")
    assert (public.secure, "rate.example" in public.hosts) == (True, True)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["serve", "--host", "0.0.0.0", "--port", "0"], 1, "say with --url"),
        (["serve", "--url", "rate.example"], 2, "expected http:// or https://"),
        (["create"], 2, "say what is compared"),
        (["create", "--teacher", "no.jsonl", "--student", "no.jsonl"], 1, "no such file"),
        (["report", "--out", "nowhere"], 1, "no blind test here"),
    ],
)
def test_known_errors_are_one_clear_line(blind_test: Path, arguments: list[str], code: int, told: str) -> None:
    out = ["--out", str(blind_test)] if arguments[0] == "serve" else []
    done = subprocess.run([*CLI, *arguments, *out], capture_output=True, text=True, cwd=blind_test)
    assert done.returncode == code
    assert told in done.stderr
    assert code == 2 or done.stderr.count("\n") == 1


def test_a_taken_port_is_one_clear_line(blind_test: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run([*CLI, "serve", "--out", str(blind_test), "--port", port], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cannot listen" in done.stderr


def test_what_traces_say_is_text_on_the_page(tmp_path: Path) -> None:
    evil = trace(1, user_prompt="<script>alert(1)</script>", claude_response="<img src=x onerror=alert(2)>")
    teacher = write_traces(tmp_path / "t.jsonl", [evil])
    student = write_traces(tmp_path / "s.jsonl", [student_of(evil)])
    arguments = ["create", "--teacher", str(teacher), "--student", str(student), "--out", str(tmp_path / "test")]
    subprocess.run([*CLI, *arguments], check=True, capture_output=True)
    server = Served(tmp_path / "test")
    try:
        page = Rater(server.links["rater"]).page
    finally:
        server.stop()
    assert "&lt;script&gt;alert(1)" in page
    assert "<img" not in page


def test_help_does_not_load_the_server() -> None:
    code = (
        "import sys; from trainer.cli import main\n"
        "try: main(['blind-test', 'serve', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('starlette', 'uvicorn', 'scipy', 'matplotlib', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
