"""Nothing that is written per request grows for ever; decisions and pins stay."""

from __future__ import annotations

import multiprocessing
import stat
import time
from pathlib import Path

from gateway_requests import CALL, TEACHER_SAYS, Build, ask
from loopback_servers import House, reply
from stage_traffic import Clock, answered, config_with, failed, shadow, stage_at, traffic

from trainer.config import RolloutConfig
from trainer.rollout.bounded_log import BoundedLog, lines_of
from trainer.rollout.controller import DAY, SETTLED_SECONDS, Controller, open_rollout
from trainer.rollout.gateway import DECISIONS
from trainer.rollout.rollout_state import DATABASE, SCORES, Decision
from trainer.rollout.stage_figures import stage_figures


def test_the_oldest_lines_go_and_the_others_stay_in_their_order(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "a.jsonl", limit=100, kept=2)
    for number in range(200):
        log.append(b"%09d" % number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.jsonl.1", "a.jsonl.2"]
    assert all(path.stat().st_size <= 110 for path in tmp_path.iterdir())
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())
    found = [int(line) for line in lines_of(tmp_path / "a.jsonl")]
    assert found == list(range(found[0], 200))
    assert len(found) >= 20


def test_a_line_that_a_kill_cut_off_takes_no_other_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    log = BoundedLog(path, limit=1000, kept=1)
    log.append(b"one")
    with path.open("ab") as stream:
        stream.write(b"tw")
    log.append(b"three")
    log.append(b"four")
    assert list(lines_of(path)) == [b"one", b"tw", b"three", b"four"]


def _write(path: Path, who: int) -> None:
    log = BoundedLog(path, limit=2000, kept=50)
    for number in range(500):
        log.append(b"%d %d" % (who, number))


def test_processes_that_write_at_once_lose_nothing_when_a_file_moves_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    processes = [multiprocessing.get_context("fork").Process(target=_write, args=(path, who)) for who in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(list(tmp_path.iterdir())) > 3
    assert sorted(lines_of(path)) == sorted(b"%d %d" % (who, n) for who in range(3) for n in range(500))


def test_the_gateways_log_of_requests_is_bounded(build: Build) -> None:
    house: House = build(lambda _: [TEACHER_SAYS], lambda _: [reply([CALL])], weight=0, shadow=False, log_bytes=2000)
    for number in range(60):
        ask(house, session=f"s{number}")
    logs = list(house.folder.glob(f"{DECISIONS}*"))
    assert len(logs) == 5
    assert sum(path.stat().st_size for path in logs) < 5 * 3000


def test_a_stage_is_judged_on_scores_that_have_moved_aside(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    state = open_rollout(tmp_path, config.rollout)
    shadow(state, 0.9)
    (tmp_path / SCORES).rename(tmp_path / f"{SCORES}.1")
    shadow(state, 0.9)
    found = stage_figures(state, state.current(), config.rollout).shadow
    assert found is not None
    assert found.turns == 400
    state.close()


def test_old_requests_go_and_what_they_told_stays(tmp_path: Path) -> None:
    config = config_with(tmp_path, keep_days=30, rollback=False)
    state = open_rollout(tmp_path, config.rollout)
    visit = stage_at(state, 50)
    clock = Clock(state)
    controller = Controller(state, config, clock)
    pin = state.pins.pin("s1", 100, visit.id).side
    traffic(controller, state, sessions=20, share=0.03)
    before = controller.status().stages[1].figures
    stage_at(state, 80)
    clock.at = time.time() + SETTLED_SECONDS + 1
    controller.tidy()
    assert len(list(state.answers(visit.id))) == 400, "nothing is old yet"
    clock.at += 31 * DAY
    controller.observe(answered(state.current().id, "s1"))
    controller.tidy()
    assert list(state.answers(visit.id)) == []
    after = controller.status()
    assert after.stages[1].figures == before
    assert [line["to"] for line in after.decisions] == [0, 50, 80]
    known = state.pins.find("s1")
    assert known is not None
    assert (known.side, pin) == ("student", "student"), "pins stay"
    state.close()


def test_the_database_stops_growing(tmp_path: Path) -> None:
    """A last stage for ever: each month's requests take the room of the month's before."""
    config = config_with(tmp_path, keep_days=30)
    state = open_rollout(tmp_path, config.rollout)
    visit = stage_at(state, 80)
    sizes = []
    now = time.time()
    for _ in range(6):
        for number in range(1500):
            one = (
                failed(visit.id, f"m{number % 40}", "no_tools") if number % 2 else answered(visit.id, f"m{number % 40}")
            )
            state.record(one, None, 0.02, 0.05)

        state._connection.execute("UPDATE answer SET at = at - ?", (20 * DAY,))  # time passes
        Controller(state, config, lambda: now + 1).tidy()
        state._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes.append((tmp_path / DATABASE).stat().st_size)
    assert sizes[-1] <= sizes[1] * 1.05, sizes
    state.close()


def test_the_state_of_an_earlier_version_is_read_and_brought_up_to_date(tmp_path: Path) -> None:
    state = open_rollout(tmp_path, RolloutConfig())
    visit = stage_at(state, 20)
    state.record(answered(visit.id, "a"), None, 0.02, 0.05)
    state.pins.pin("a", 100, visit.id)
    for statement in (
        "ALTER TABLE visit DROP COLUMN model", "ALTER TABLE answer DROP COLUMN at", "DROP TABLE summary",
        "PRAGMA user_version = 0",
    ):  # fmt: skip
        state._connection.execute(statement)
    state.close()
    state = open_rollout(tmp_path, RolloutConfig())
    assert (state.current().weight, state.current().model) == (20, "")
    assert [one.session for one in state.answers(visit.id)] == ["a"]
    assert state.pins.find("a") == ("a", "student", False)
    config = config_with(tmp_path)
    Controller(state, config).follow_model()
    assert state.current().model == "cc-claude-agent", "it is taken for the one that the stage was begun with"
    state.enter(0, Decision("abort", "kim", "", {}), after=None)
    assert state.current().model == "cc-claude-agent"
    state.close()
