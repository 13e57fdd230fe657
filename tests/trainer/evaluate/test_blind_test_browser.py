"""The raters' page in a real browser: keys, autosave, resume, and everybody can read it.

Chromium is driven over its own protocol by playwright, with the browser of the system (no download).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from blind_test_traces import student_of, trace
from playwright.sync_api import sync_playwright
from served_blind_test import Served

from claude_capture.claude_trace_schema import Step, ToolCall
from trainer.config import EvaluateConfig
from trainer.evaluate.answer_store import AnswerStore
from trainer.evaluate.blind_test_folder import ANSWERS, create_test
from trainer.evaluate.blind_test_report import report

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
HOSTILE = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'></pre></textarea></form></main>"
LOWEST_CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const parse = color => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const color = parse(getComputedStyle(node).backgroundColor);
      if (color[3] === 255) return color;
    }
  };
  let worst = [99, ''];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
    if (!text || !node.checkVisibility() || node.closest('progress, script, style')) continue;
    const pair = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < worst[0]) worst = [ratio, text.slice(0, 40)];
  }
  return worst;
}"""


def chromium() -> str:
    """The browser of the system; without it the test is skipped, or fails where CLAUDE_CAPTURE_REQUIRE_CLI=1."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    if os.environ.get("CLAUDE_CAPTURE_REQUIRE_CLI") == "1":
        pytest.fail("no Chromium on PATH: apt-get install chromium")
    pytest.skip("no Chromium on PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A test of four pairs: a long output, an edit, markup everywhere, and two sides that read the same."""
    listing = "\n".join(f"file {number}" for number in range(80))
    edit = {"file_path": "a.py", "old_string": "x = 1", "new_string": "x = 2"}
    teachers = [
        trace(0, tool_calls=[ToolCall(id="l", tool="Bash", input={"command": "ls"}, output=listing)]),
        trace(1, tool_calls=[ToolCall(id="e", tool="Edit", input=edit, output="done")]),
        trace(
            2,
            user_prompt=HOSTILE,
            claude_response=HOSTILE,
            steps=[Step(index=0, text=HOSTILE, call_ids=["h"])],
            tool_calls=[ToolCall(id="h", tool=HOSTILE, input={HOSTILE: HOSTILE}, output=HOSTILE * 9)],
        ),
        trace(3),
    ]
    by_id = {item.trace_id: item for item in teachers}
    students = {name: student_of(item) if item is not teachers[3] else item for name, item in by_id.items()}
    create_test(tmp_path / "test", by_id, students, EvaluateConfig(pairs=4, controls=0))
    return tmp_path / "test"


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    server = Served(folder, "ada", "bob", "cyd")
    yield server
    if server.process.poll() is None:
        server.stop()


def opened(browser: Any, link: str, *, size: str = "desktop", scheme: str = "light", **options: Any) -> Any:
    """A tab of a new browser profile at the rater's link; complaints of the page are kept in `tab.complaints`."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
    tab = context.new_page()
    tab.set_default_timeout(15_000)
    tab.complaints = []
    tab.on("console", lambda message: tab.complaints.append(message.text))
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.goto(link)
    return tab


def saved(tab: Any) -> None:
    tab.locator("#status:text-is('Saved')").wait_for()
    tab.evaluate("document.getElementById('status').textContent = ''")


def checked(tab: Any) -> list[str]:
    found: list[str] = tab.eval_on_selector_all("input:checked", "all => all.map(one => one.name + one.value)")
    return found


def test_three_raters_vote_by_keyboard_and_the_report_counts_them(browser: Any, served: Served, folder: Path) -> None:
    for rater, keys in (("ada", "12"), ("bob", "20"), ("cyd", "13")):
        tab = opened(browser, served.links[rater])
        for number in range(1, 5):
            assert tab.url.endswith(f"/item/{number}")
            assert tab.inner_text(".count") == f"{number - 1}/4 answered"
            tab.keyboard.press(keys[0])
            tab.keyboard.press(keys[1])
            tab.keyboard.press("Enter")
            tab.wait_for_url(f"**/item/{number + 1}" if number < 4 else "**/done")
        assert "All answered" in tab.inner_text("h1")
        assert tab.complaints == []
        tab.context.close()
    result = report(folder, close=True)
    assert {name: (rater.answers, rater.choices) for name, rater in result.raters.items()} == {
        "ada": (4, 4),
        "bob": (4, 4),
        "cyd": (4, 4),
    }
    assert (result.wrong, result.choices) == (6, 12)
    assert (result.preferences["tie"].count, result.preferences["both bad"].count) == (4, 4)
    tab = opened(browser, served.links["ada"])
    assert "This test is closed" in tab.inner_text("h1")
    tab.context.close()


def test_every_key_does_what_the_page_says(browser: Any, served: Served, folder: Path) -> None:
    tab = opened(browser, served.links["ada"])
    told = tab.inner_text(".keys")
    assert all(f"{key}\n" in told for key in ("1", "2", "0", "3", "U", "D", "Enter"))
    tab.keyboard.press("3")
    assert checked(tab) == [], "only the second question has such an answer"
    tab.keyboard.press("0")
    tab.keyboard.press("3")
    assert checked(tab) == ["choice0", "preference3"]
    tab.keyboard.press("1")
    assert checked(tab) == ["choice0", "preference3"], "no question is open"
    tab.keyboard.press("u")
    tab.keyboard.press("U")
    assert checked(tab) == []
    assert tab.evaluate("document.getElementById('differences').open") is False
    tab.keyboard.press("d")
    assert tab.evaluate("document.getElementById('differences').open") is True
    tab.keyboard.press("D")
    assert tab.evaluate("document.getElementById('differences').open") is False
    tab.keyboard.press("Enter")
    assert tab.url.endswith("/item/1"), "nothing is answered yet"
    tab.keyboard.press("2")
    tab.keyboard.press("1")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/item/2")
    tab.keyboard.press("u")
    tab.wait_for_url("**/item/1")
    assert checked(tab) == ["choice2", "preference1"]
    tab.click("text=Add a note")
    tab.focus("#note")
    tab.keyboard.type("12ud0")
    assert checked(tab) == ["choice2", "preference1"], "keys are letters in a note"
    tab.context.close()


def test_every_click_is_saved_at_once_and_the_link_goes_on_there(browser: Any, served: Served) -> None:
    tab = opened(browser, served.links["ada"])
    tab.keyboard.press("2")
    saved(tab)
    tab.click("text=Add a note")
    tab.fill("#note", "half a thought")
    saved(tab)
    tab.context.close()
    again = opened(browser, served.links["ada"], size="phone", has_touch=True)
    assert checked(again) == ["choice2"]
    assert again.input_value("#note") == "half a thought"
    assert again.inner_text(".count") == "0/4 answered"
    again.tap("input[name=preference][value='0']")
    saved(again)
    assert again.inner_text(".count") == "1/4 answered"
    again.reload()
    assert checked(again) == ["choice2", "preference0"]
    again.tap("button.next")
    again.wait_for_url("**/item/2")
    again.context.close()


def test_a_rater_is_told_when_an_answer_is_not_saved(browser: Any, served: Served, folder: Path) -> None:
    tab = opened(browser, served.links["ada"])
    store = AnswerStore(folder / ANSWERS)
    with store.closing():
        pass
    store.close()
    tab.keyboard.press("1")
    tab.locator("#status:text-is('The test is closed: not saved')").wait_for()
    served.process.kill()
    served.process.communicate()
    tab.keyboard.press("1")
    tab.locator("#status:text-is('Not saved: the server does not answer')").wait_for()
    tab.context.close()


def test_it_works_without_scripts(browser: Any, served: Served) -> None:
    tab = opened(browser, served.links["ada"], java_script_enabled=False)
    for number in range(1, 5):
        tab.check("input[name=choice][value='1']", force=True)
        tab.check("input[name=preference][value='0']", force=True)
        tab.click("button.next")
        assert tab.url.endswith(f"/item/{number + 1}" if number < 4 else "/done")
    tab.context.close()


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_everybody_can_read_and_use_it(browser: Any, served: Served, size: str, scheme: str) -> None:
    tab = opened(browser, served.links["ada"], size=size, scheme=scheme)
    for number in range(1, 5):
        tab.goto(f"{served.base}/item/{number}")
        tab.keyboard.press("1")
        for folded in (True, False):
            ratio, text = tab.evaluate(LOWEST_CONTRAST)
            assert ratio >= 4.5, text
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
            if folded:
                tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        nameless = "all => all.filter(one => one.type !== 'hidden' && !one.labels.length).length"
        assert tab.eval_on_selector_all("input, textarea", nameless) == 0
        assert tab.locator("h1").count() == tab.locator("main").count() == 1
        levels = tab.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(one => +one.tagName[1])")
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert tab.evaluate("typeof window.pwned") == "undefined"
        assert tab.locator(".sides img, .sides script, [onerror]").count() == 0
    sides = tab.eval_on_selector_all(".side", "all => all.map(one => one.getBoundingClientRect().top)")
    assert (sides[0] == sides[1]) == (size == "desktop")
    assert tab.complaints == []
    tab.context.close()


def test_tab_reaches_everything_and_focus_is_seen(browser: Any, served: Served) -> None:
    tab = opened(browser, served.links["ada"])
    seen: list[str] = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        name, outline = tab.evaluate(
            "() => { const one = document.activeElement; const shown = one.type === 'radio' ? one.nextSibling : one;"
            " return [one.name || one.className || one.id || one.textContent, getComputedStyle(shown).outlineStyle]; }"
        )
        if tab.evaluate("document.activeElement === document.body"):
            break
        seen.append(name)
        assert outline != "none", name
    assert seen[0] == "skip"
    assert {"choice", "preference", "next"} <= set(seen)
    tab.context.close()


def test_long_outputs_are_folded_edits_are_diffs_and_equal_sides_say_so(browser: Any, served: Served) -> None:
    tab = opened(browser, served.links["ada"])
    pages = []
    for number in range(1, 5):
        tab.goto(f"{served.base}/item/{number}")
        pages.append(tab.inner_text("main"))
        if "Output, 80 lines" in pages[-1]:
            assert not tab.locator(".side >> text=file 79").is_visible()
            tab.click("summary:has-text('80 lines')")
            assert tab.locator(".side >> text=file 79").is_visible()
        if tab.locator(".call .diff").count():
            assert tab.locator(".call .diff del").inner_text().strip() == "-x = 1"
            assert tab.locator(".call .diff ins").inner_text().strip() == "+x = 2"
        tab.keyboard.press("d")
        pages[-1] += tab.inner_text("#differences")
    assert sum("Output, 80 lines" in page for page in pages) == 1
    assert sum("read the same, word for word" in page for page in pages) == 1
    tab.context.close()
