"""The raters' page and the report of the blind test in a real browser: is every state of them accessible, does it fit?

A small test is made from data/samples (the student is the teacher's trace, told a little differently), served on
loopback, answered and closed. Every page is opened in desktop and phone width, light and dark: violations that axe-core
finds, pixels that stick out sideways, and what the browser complains of are counted. All three ought to be 0.
axe-core comes from npm into ~/.cache/claude-capture/peers; without npm it is left out, with a line on stderr.

    python benchmarks/blind_test_pages.py [--shots FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from claude_capture.claude_trace_schema import ToolCall, Trace
from claude_capture.trace_storage import TraceStore
from trainer.config import EvaluateConfig
from trainer.evaluate.blind_test_folder import create_test
from trainer.evaluate.blind_test_report import report
from trainer.evaluate.blind_test_report_page import write_page

SAMPLES = Path(__file__).resolve().parents[1] / "data" / "samples" / "v1" / "traces.jsonl"
AXE = "axe-core@4.14.1"
_AXE_HOME = Path.home() / ".cache" / "claude-capture" / "peers" / AXE.replace("@", "-")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
_STICKS_OUT = "Math.max(0, document.documentElement.scrollWidth - innerWidth)"
_VIOLATIONS = "async () => (await axe.run()).violations.map(v => `${v.id}: ${v.nodes[0].html.slice(0, 120)}`)"


def axe_source() -> str | None:
    """The script of axe-core, fetched once; None without npm."""
    script = _AXE_HOME / "package" / "axe.min.js"
    if not script.exists():
        _AXE_HOME.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["npm", "pack", AXE], cwd=_AXE_HOME, check=True, capture_output=True, timeout=120)
            with tarfile.open(next(_AXE_HOME.glob("*.tgz"))) as archive:
                archive.extract("package/axe.min.js", _AXE_HOME, filter="data")
        except (OSError, subprocess.SubprocessError, StopIteration, tarfile.TarError) as error:
            print(f"{AXE} is left out: {error}", file=sys.stderr)
            return None
    return script.read_text("utf-8")


def retold(teacher: Trace) -> Trace:
    """A student's trace: one look-up less, another wording, a long output, a failure."""
    calls = [call.model_copy(deep=True) for call in teacher.tool_calls[1:]]
    listing = "\n".join(f"readings/2026-{n % 12 + 1:02}.csv  {n * 37 % 9000} bytes" for n in range(60))
    calls[0].output = listing
    calls.append(
        ToolCall(
            id="last", tool="Bash", input={"command": "make check"}, output="Exit code 2\nno rule", step=calls[-1].step
        )
    )
    answer = f"{teacher.claude_response.strip()}\nNothing else was changed."
    return teacher.model_copy(update={"tool_calls": calls, "claude_response": answer})


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The link of a rater, as long as the block runs."""
    command = [sys.executable, "-c", "from trainer.cli import main; main()", "blind-test", "serve", "--port", "0"]
    process = subprocess.Popen([*command, "--out", str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip().split(": ", 1)[1]
    finally:
        process.kill()
        process.communicate()


def look(page: Any, name: str, shots: Path | None) -> dict[str, Any]:
    """What is wrong with the page as it stands; a picture of it."""
    page.wait_for_timeout(60)
    if shots is not None:
        page.screenshot(path=str(shots / f"{name}.png"), full_page="sticky" not in name)
    violations = page.evaluate(_VIOLATIONS) if page.evaluate("'axe' in window") else []
    return {"page": name, "violations": violations, "sticks_out": page.evaluate(_STICKS_OUT)}


def walk(page: Any, link: str, folder: Path, name: str, shots: Path | None) -> Iterator[dict[str, Any]]:
    """Every state of the rater's page, answered by keys alone."""
    page.goto(link)
    yield look(page, f"{name}-first", shots)
    page.keyboard.press("d")
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    page.keyboard.press("1")
    yield look(page, f"{name}-unfolded", shots)
    page.keyboard.press("2")
    page.fill("#note", "B explains more than it was asked.")
    page.wait_for_function("document.getElementById('status').textContent === 'Saved'")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    yield look(page, f"{name}-answered-sticky", shots)
    page.keyboard.press("Enter")
    page.wait_for_url("**/item/2")
    yield look(page, f"{name}-second", shots)
    for key in ("2", "0", "Enter"):
        page.keyboard.press(key)
    page.wait_for_url("**/done")
    yield look(page, f"{name}-done", shots)
    page.goto(link[:-4])
    yield look(page, f"{name}-unknown", shots)


def _tell(told: list[str], error: Any) -> None:
    told.append(str(error))


def measure(shots: Path | None) -> list[dict[str, Any]]:
    """One entry per page, size and colour scheme."""
    teachers = {trace.trace_id: trace for trace in TraceStore(SAMPLES).load()}
    students = {name: retold(trace) for name, trace in teachers.items()}
    browser_path = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    axe = axe_source()
    found: list[dict[str, Any]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for size, (width, height) in SIZES.items():
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                    bypass_csp=True,  # for axe-core alone; the tests look at the page with its policy
                    has_touch=size == "phone",
                )
                if axe:
                    context.add_init_script(axe)
                page = context.new_page()
                complaints: list[str] = []
                page.on("pageerror", partial(_tell, complaints))
                name = f"{size}-{scheme}"
                with tempfile.TemporaryDirectory() as temporary:
                    folder = Path(temporary) / "test"
                    create_test(folder, teachers, students, EvaluateConfig(pairs=2, controls=0))
                    with served(folder) as link:
                        found += walk(page, link, folder, name, shots)
                        result = report(folder, close=True)
                        page.goto(link)
                        found.append(look(page, f"{name}-closed", shots))
                    page.goto(write_page(result, folder / "report.html").as_uri())
                    found.append(look(page, f"{name}-report", shots))
                found[-1]["complaints"] = complaints
                context.close()
        browser.close()
    return found


def main() -> None:
    """Prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shots", type=Path, help="folder for pictures of every page")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    found = measure(options.shots)
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        return
    for entry in found:
        for violation in entry["violations"]:
            print(f"{entry['page']}: {violation}")
        for complaint in entry.get("complaints", []):
            print(f"{entry['page']}: {complaint}")
    violations = sum(len(entry["violations"]) for entry in found)
    complaints = sum(len(entry.get("complaints", [])) for entry in found)
    widest = max(entry["sticks_out"] for entry in found)
    print(f"{len(found)} pages: {violations} violations, {widest} pixels stick out, {complaints} complaints")


if __name__ == "__main__":
    main()
