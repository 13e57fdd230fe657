"""Where the rollout stands, as a page: verdict, both sides, the rollback test, stage after stage, the log.

python -m trainer.rollout.status_page FOLDER < config.json     the page on standard output (for the gateway)
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from trainer.config import Config, RolloutConfig
from trainer.report.page import Page
from trainer.report.plots import bar_chart, interval_chart, line_chart
from trainer.rollout.controller import Controller, RolloutStatus, StageReport, metric_line, open_rollout
from trainer.rollout.rollout_state import RolloutState
from trainer.rollout.sequential_test import ACCEPT, ROLL_BACK
from trainer.rollout.stage_figures import score_path
from trainer.rollout.status_table import last_busy, look_of, notes, share, side_rows

_DECIDED = {"Successful": True, "Failed": False}
MAX_POINTS = 2000


def status_page(state: RolloutState, config: Config) -> Page:
    """The page of a rollout."""
    found = Controller(state, config).status()
    current = found.stages[-1]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    model = f" of {current.model}" if current.model else ""
    page = Page("Rollout", f"Stage {current.weight:g} %{model}, as of {now}")
    _verdict(page, found)
    busy = last_busy(found)
    figures = busy.figures
    page.figures(
        {
            "of new sessions": f"{current.weight:g} %",
            "student's sessions": figures.student.sessions,
            "of requests": "–" if figures.request_share is None else f"{100 * figures.request_share:.1f} %",
            "failed, rescued": f"{100 * figures.failures.share:.1f} %" if figures.failures else "–",
            "saved (estimate)": "–" if figures.saved.amount is None else f"{figures.saved.amount:,.2f}",
        }
    )
    which = "This stage" if busy is current else f"The last stage with requests, {busy.weight:g} %"
    page.text(f"## {which}\nShares with 95 % intervals; sessions are taken into account.")
    page.table(["figure", "student", "teacher"], [list(row) for row in side_rows(figures)])
    if lines := notes(busy):
        page.text("\n".join(f"- {line}" for line in lines))
    page.text(f"### Gate{look_of(current.gate)}")
    page.table(["figure and limit", "verdict"], [[metric_line(m), m.phase] for m in current.gate.metrics])
    _rollback_test(page, state, config.rollout, found)
    _stages(page, found.stages, config.rollout)
    page.text("## Decisions\nNewest first; all of them stand in `stages.jsonl`.")
    lines = [
        f"- **{_at(line['t'])} {line['action']}, {line['to']:g} %** by {line['who']}: "
        + " ".join((line["why"] or "no reason given").split())
        for line in reversed(found.decisions[-50:])
    ]
    return page.text("\n".join(lines))


def _verdict(page: Page, found: RolloutStatus) -> None:
    current = found.stages[-1]
    label = f"Stage {current.weight:g} %: {current.gate.phase}"
    if found.kill_switch:
        page.verdict("Kill switch: every request goes to the teacher", False, ["`rm KILL` in the rollout's folder"])
    if found.withheld:
        page.verdict("Not served: the gateway refuses this stage", False, found.withheld)
    if found.outdated:
        page.verdict("Another model than this stage's is current", False, found.outdated)
    if current.action == "rollback":
        page.verdict("Rolled back", False, [current.note])
    if current.action == "new_model":
        page.verdict("Started again: another model", None, [current.note])
    if found.next_weight is None:
        reasons = ["This is the last stage."]
    elif found.proposed:
        reasons = [f"{found.next_weight:g} % is proposed: `claude-trainer rollout advance`"]
    else:
        reasons = [f"{found.next_weight:g} % waits for: {blocker}" for blocker in found.blockers]
    page.verdict(label, _DECIDED.get(current.gate.phase), reasons)


def _rollback_test(page: Page, state: RolloutState, config: RolloutConfig, found: RolloutStatus) -> None:
    """The score of the newest visit in which the student was asked."""
    asked = [stage for stage in found.stages if stage.figures.test.answered + stage.figures.test.failed]
    page.text(
        f"## Rollback test\nAfter each request: {100 * config.good_failures:g} % failures against "
        f"{100 * config.max_failures:g} %. "
        "At the upper line everything goes back to the teacher; at the lower one the test starts again."
    )
    if not asked:
        page.text("The student has not been asked yet.")
        return
    visit = next(visit for visit in state.visits() if visit.id == asked[-1].visit)
    scores = score_path(state, visit, config)
    pace = max(len(scores) // MAX_POINTS, 1)
    points = [(float(x), score) for x, score in enumerate(scores) if not x % pace or x == len(scores) - 1]
    chart = line_chart(
        {"score": points}, "request of the student's sessions", "log-likelihood ratio", smooth=1,
        lines={"roll back": ROLL_BACK, "accept": ACCEPT},
    )  # fmt: skip
    page.figure(f"Score of the rollback test at {visit.weight:g} %, request by request", chart)


def _stages(page: Page, stages: list[StageReport], config: RolloutConfig) -> None:
    page.text("## Stage after stage")
    names = {stage.visit: f"{stage.weight:g} % ({stage.visit})" for stage in stages}
    rows = [
        [
            names[s.visit], s.entered_at[:16].replace("T", " "), s.action, f"{s.days:.1f}", s.figures.student.sessions,
            s.figures.student.requests, share(s.figures.failures), s.gate.phase,
        ]
        for s in stages
    ]  # fmt: skip
    page.table(["stage (visit)", "since (UTC)", "by", "days", "sessions", "answered", "failed", "gate"], rows)
    failures = {
        names[s.visit]: (100 * s.figures.failures.share, 100 * s.figures.failures.low, 100 * s.figures.failures.high)
        for s in stages
        if s.figures.failures
    }
    if failures:
        chart = interval_chart(
            failures, "failed requests in %", line=(f"limit {100 * config.max_failures:g} %", 100 * config.max_failures)
        )
        page.figure("Requests that the student failed and the teacher answered, with 95 % intervals", chart)
    busy = [s for s in stages if s.figures.student.sessions]
    if busy:
        groups = [names[s.visit] for s in busy]
        shares = {
            "sessions": [100 * (s.figures.session_share or 0) for s in busy],
            "requests": [100 * (s.figures.request_share or 0) for s in busy],
        }
        page.figure("The student's share of sessions and of requests, in %", bar_chart(groups, shares, ylabel="%"))
        seconds = {
            f"{side} {name}": [_seconds(getattr(getattr(s.figures, side), f"answer_{name}_ms")) for s in busy]
            for side in ("student", "teacher")
            for name in ("p50", "p95")
        }
        caption = "Time to the whole answer, in seconds; rescued requests are among the student's"
        page.figure(caption, bar_chart(groups, seconds, ylabel="s"))


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def main() -> None:
    """Prints the page."""
    config = Config.model_validate_json(sys.stdin.buffer.read())
    state = open_rollout(Path(sys.argv[1]), config.rollout)
    sys.stdout.write(status_page(state, config).html())
    state.close()


if __name__ == "__main__":
    main()
