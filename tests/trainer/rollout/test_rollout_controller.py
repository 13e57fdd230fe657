"""Up by proposal and a person's word, down at once and by itself; whatever is decided is kept."""

from __future__ import annotations

import json
import random
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stage_traffic import (
    Clock,
    answered,
    blind_test_report,
    config_with,
    failed,
    registry_with,
    shadow,
    stage_at,
    traffic,
)

from trainer.config import RolloutConfig
from trainer.errors import TrainerError
from trainer.rollout.controller import DAY, Controller, open_rollout
from trainer.rollout.preconditions import preconditions
from trainer.rollout.rollout_state import DATABASE, KILL_SWITCH, LOG, Decision, RolloutState
from trainer.rollout.stage_figures import score_path

CLI = [sys.executable, "-c", "from trainer.cli import main; main()", "rollout"]


def opened(folder: Path, **keys: Any) -> tuple[RolloutState, Controller, Clock]:
    config = config_with(folder, **keys)
    state = open_rollout(folder, config.rollout)
    clock = Clock(state)
    return state, Controller(state, config, clock), clock


def ready(folder: Path, **keys: Any) -> dict[str, Any]:
    """A model that has shown everything, and the keys that say so."""
    registry_with(folder / "models", "PASS")
    return {"blind_test": str(blind_test_report(folder / "report.json", 25))} | keys


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG).read_text("utf-8").splitlines()]


def test_a_stage_ends_by_time_sample_and_gate_and_not_before(tmp_path: Path) -> None:
    state, controller, clock = opened(tmp_path, **ready(tmp_path))
    with pytest.raises(TrainerError, match=r"0\.0 of 7 days; 0 of 3 sessions; wait"):
        controller.advance(who="kim")
    traffic(controller, state, sessions=2)
    with pytest.raises(TrainerError, match=r"0\.0 of 7 days; wait"):
        controller.advance(who="kim")
    clock.at += 7 * DAY
    with pytest.raises(TrainerError, match="shadow reward error without data"):
        controller.advance(who="kim")
    shadow(state, 0.9)
    assert controller.status().proposed
    assert controller.advance(who="kim").weight == 5
    clock.at = state.current().entered_at + 8 * DAY
    for number in range(10):  # the teacher's sessions say nothing about the student
        controller.observe(answered(state.current().id, f"t{number}", "teacher"))
    with pytest.raises(TrainerError, match="0 of 3 student sessions"):
        controller.advance(who="kim")
    traffic(controller, state)
    assert controller.advance(who="kim", note="quiet week").weight == 20
    last = log(tmp_path)[-1]
    assert (last["action"], last["who"], last["why"], last["from"], last["to"]) == (
        "advance",
        "kim",
        "quiet week",
        5,
        20,
    )
    assert last["figures"]["gate"]["phase"] == "Successful"
    assert last["figures"]["gate"]["metrics"][0]["name"] == "failures"
    state.close()


def test_an_inconclusive_stage_waits_for_a_person_and_a_reason(tmp_path: Path) -> None:
    state, controller, clock = opened(tmp_path, **ready(tmp_path, rollback=False))
    stage_at(state, 5)
    traffic(controller, state, share=0.05)
    clock.at += 8 * DAY
    decision = controller.tick()
    assert decision is not None
    assert decision.action == "judge"
    assert state.current().weight == 5
    with pytest.raises(TrainerError, match=r"failures inconclusive at .* wanted at most 5\.0 %"):
        controller.advance(who="kim")
    assert controller.advance(who="kim", force="they were all one broken file").weight == 20
    forced = log(tmp_path)[-1]
    assert (forced["action"], forced["why"]) == ("force", "they were all one broken file")
    assert "failures inconclusive" in forced["figures"]["missing"][0]
    state.close()


def test_a_good_stage_is_proposed_once_and_confirmed_by_a_person(tmp_path: Path) -> None:
    state, controller, clock = opened(tmp_path, **ready(tmp_path))
    stage_at(state, 5)
    assert controller.tick() is None, "too early"
    traffic(controller, state)
    clock.at += 8 * DAY
    decision = controller.tick()
    assert decision is not None
    assert (decision.action, decision.who) == ("propose", "controller")
    assert controller.tick() is None
    assert state.current().weight == 5
    assert [line["action"] for line in log(tmp_path)] == ["start", "force", "propose"]
    assert controller.advance(who="kim").weight == 20
    state.close()


def test_promotion_goes_by_itself_where_the_config_says_so_but_not_without_preconditions(tmp_path: Path) -> None:
    registry_with(tmp_path / "models", None)
    state, controller, clock = opened(tmp_path, promotion="automatic")
    traffic(controller, state)
    shadow(state, 0.9)
    clock.at += 8 * DAY
    decision = controller.tick()
    assert decision is not None
    assert decision.action == "judge", "neither gate nor blind test"
    keys = ready(tmp_path, promotion="automatic")
    controller = Controller(state, config_with(tmp_path, **keys), clock)
    decision = controller.tick()
    assert decision is not None
    assert (decision.action, decision.who, state.current().weight) == ("advance", "controller", 5)
    state.close()


def test_a_stage_that_failed_its_gate_is_left_for_zero(tmp_path: Path) -> None:
    state, controller, clock = opened(tmp_path)
    stage_at(state, 20)
    state.pins.pin("s1", 100, state.current().id)
    traffic(controller, state, tool_errors=0.3)
    clock.at += 8 * DAY
    decision = controller.tick()
    assert decision is not None
    assert decision.action == "rollback"
    assert "tool errors failed at" in decision.why
    assert state.current().weight == 0
    assert state.pins.find("s1") == ("s1", "teacher", False)
    state.close()


def test_a_failing_student_loses_everything_at_once_and_its_sessions_for_good(tmp_path: Path) -> None:
    state, controller, _ = opened(tmp_path)
    visit = stage_at(state, 50)
    pins = {name: state.pins.pin(name, 100, visit.id).side for name in ("a", "b")}
    assert set(pins.values()) == {"student"}
    for number in range(40):
        controller.observe(answered(visit.id, f"s{number}"))
    for number in range(4):
        assert state.current().weight == 50
        controller.observe(failed(visit.id, f"f{number}"))
    controller.observe(failed(visit.id, "f4"))
    assert (state.current().weight, state.current().action) == (0, "rollback")
    assert {state.pins.find(name) for name in pins} == {(name, "teacher", False) for name in pins}
    decided = log(tmp_path)[-1]
    assert (decided["action"], decided["who"], decided["figures"]["test"]["failed"]) == ("rollback", "controller", 5)
    assert "5 of 45 requests failed" in decided["why"]
    controller.observe(failed(visit.id, "late"))  # was on its way
    assert [line["action"] for line in log(tmp_path)] == ["start", "force", "rollback"], "once"
    state.close()


def test_without_rollback_the_alarm_is_only_shown(tmp_path: Path) -> None:
    state, controller, _ = opened(tmp_path, rollback=False)
    visit = stage_at(state, 50)
    for number in range(10):
        controller.observe(failed(visit.id, f"s{number}"))
    assert state.current().weight == 50
    test = controller.status().stages[-1].figures.test
    assert test.score >= test.rolls_back_at
    state.close()


def test_a_session_that_outgrew_the_students_context_is_one_failure(tmp_path: Path) -> None:
    state, controller, _ = opened(tmp_path)
    visit = stage_at(state, 50)
    for number in range(50):
        controller.observe(failed(visit.id, "long", "context_overflow"))
        controller.observe(failed(visit.id, "long", "no_tools"))
        controller.observe(answered(visit.id, f"s{number}"))
    test = controller.status().stages[-1].figures.test
    assert (test.failed, test.answered, state.current().weight) == (1, 50, 50)
    state.close()


def test_the_page_draws_the_score_that_the_state_keeps(tmp_path: Path) -> None:
    state, controller, _ = opened(tmp_path)
    stage_at(state, 50)
    traffic(controller, state, share=0.03)
    visit = next(visit for visit in state.visits() if visit.weight == 50)
    assert score_path(state, visit, RolloutConfig())[-1] == pytest.approx(state.walk(visit.id).score)
    state.close()


def test_two_gateways_on_one_state_share_the_test(tmp_path: Path) -> None:
    one, first, _ = opened(tmp_path)
    other, second, _ = opened(tmp_path)
    visit = stage_at(one, 5)
    for number, controller in enumerate((first, second, first, second)):
        controller.observe(failed(visit.id, f"s{number}"))
    assert other.current().action == "rollback"
    one.close()
    other.close()


def test_abort_takes_every_session_and_the_stages_start_again(tmp_path: Path) -> None:
    state, controller, _ = opened(tmp_path)
    stage_at(state, 50)
    state.pins.pin("a", 100, state.current().id)
    controller.abort("wrong answers", who="kim")
    found = controller.status()
    assert (found.weight, found.next_weight, found.kill_switch) == (0, 5, False)
    assert state.pins.find("a") == ("a", "teacher", False)
    assert [(s.weight, s.action, s.note) for s in found.stages][-1] == (0, "abort", "wrong answers")
    assert (found.decisions[-1]["who"], found.decisions[-1]["why"]) == ("kim", "wrong answers")
    state.close()


def test_the_kill_switch_blocks_the_next_stage(tmp_path: Path) -> None:
    state, controller, _ = opened(tmp_path)
    (tmp_path / KILL_SWITCH).touch()
    assert any("kill switch" in blocker for blocker in controller.status().blockers)
    state.close()


def test_the_last_stage_has_nothing_after_it(tmp_path: Path) -> None:
    state, controller, _ = opened(tmp_path)
    stage_at(state, 80)
    assert controller.status().next_weight is None
    with pytest.raises(TrainerError, match="last stage"):
        controller.advance(who="kim", force="more")
    state.close()


def test_a_decision_that_was_made_on_an_old_stage_is_refused_and_not_logged(tmp_path: Path) -> None:
    state, _, _ = opened(tmp_path)
    seen = state.current().id
    stage_at(state, 5)
    with pytest.raises(TrainerError, match="changed meanwhile"):
        state.enter(5, Decision("advance", "kim", "", {}), after=seen)
    assert [line["action"] for line in log(tmp_path)] == ["start", "force"]
    state.close()


def test_the_log_is_completed_after_a_kill_between_decision_and_line(tmp_path: Path) -> None:
    state, _, _ = opened(tmp_path)
    for weight in (5, 20, 50):
        stage_at(state, weight)
    state.close()
    whole = (tmp_path / LOG).read_bytes()
    for cut in random.Random(3).sample(range(len(whole)), 20):
        (tmp_path / LOG).write_bytes(whole[:cut])
        open_rollout(tmp_path, RolloutConfig()).close()
        lines = []
        for line in (tmp_path / LOG).read_bytes().splitlines():
            try:
                lines.append(json.loads(line)["id"])
            except ValueError:
                continue
        assert lines == [1, 2, 3, 4]
    assert stat.S_IMODE((tmp_path / LOG).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("verdict", "wrong", "keys", "expected"),
    [
        ("PASS", 25, {}, []),
        ("PASS", 31, {"blind_verdict": "interval"}, []),
        ("PASS", 25, {"blind_verdict": "interval"}, ["SUPPORTED wanted"]),
        ("PASS", 22, {}, ["was not passed"]),
        ("PASS", 10, {}, ["REFUTED"]),
        ("FAIL", 25, {}, ["gate verdict FAIL"]),
        (None, 25, {}, ["not gated"]),
        (None, None, {}, ["not gated", "set rollout.blind_test"]),
        ("PASS", 25, {"student": "llama-claude-ppo-v9"}, ["has no model llama-claude-ppo-v9"]),
        ("PASS", 25, {"student": "elsewhere.gguf"}, ["not in"]),
    ],
)
def test_gate_and_blind_test_stand_before_the_first_session(
    tmp_path: Path, verdict: str | None, wrong: int | None, keys: dict[str, str], expected: list[str]
) -> None:
    registry_with(tmp_path / "models", verdict)
    if wrong is not None:
        keys = keys | {"blind_test": str(blind_test_report(tmp_path / "report.json", wrong))}
    found = preconditions(config_with(tmp_path, **keys))
    assert len(found) == len(expected), found
    for line, part in zip(found, expected, strict=True):
        assert part in line
        assert "\n" not in line


def test_a_blind_test_of_another_model_or_an_unreadable_one_does_not_count(tmp_path: Path) -> None:
    registry_with(tmp_path / "models", "PASS")
    path = blind_test_report(tmp_path / "report.json", 25, student="llama-claude-bc-v1")
    config = config_with(tmp_path, blind_test=str(path))
    assert preconditions(config) == [f"{path}: the blind test was of llama-claude-bc-v1, not of llama-claude-ppo-v1"]
    for text in ("", "[]", "{}", "nonsense"):
        path.write_text(text)
        (line,) = preconditions(config)
        assert "not the report of a blind test" in line
    path.unlink()
    (line,) = preconditions(config)
    assert "does not exist" in line


def test_preconditions_are_asked_before_every_stage_and_an_unreadable_registry_is_one(tmp_path: Path) -> None:
    state, controller, _ = opened(tmp_path)
    for weight in (0, 5, 50):
        if weight:
            stage_at(state, weight)
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / "registry.json").unlink(missing_ok=True)
        assert sum("models" in blocker for blocker in controller.status().blockers) == 1
        (tmp_path / "models" / "registry.json").write_text("{")
        assert any("not a model registry" in blocker for blocker in controller.status().blockers)
    state.close()


@pytest.mark.parametrize("weights", [[5, 20], [0, 5, 20]])
def test_a_stage_is_not_served_before_its_model_has_passed_its_tests_or_somebody_says_why(
    tmp_path: Path, weights: list[float]
) -> None:
    state, controller, _ = opened(tmp_path, weights=weights)
    if weights[0] == 0:
        controller.admit(who="kim")  # the shadow wants nothing
        with state._connection as database:  # by hand, past `advance`
            database.execute("UPDATE visit SET weight = 5")
    missing = "stage 5 % may not be served: .*no current model.*; no blind test: set rollout.blind_test"
    for _ in range(3):
        with pytest.raises(
            TrainerError, match=f"{missing}.*`rollout serve --force REASON`, or `rollout abort`"
        ) as found:
            controller.admit(who="kim")
        assert "\n" not in str(found.value)
    assert len(controller.status().withheld) == 2
    controller.admit(who="kim", force="a trial among ourselves")
    controller.admit(who="kim")
    assert controller.status().withheld == []
    assert [(line["action"], line["who"]) for line in log(tmp_path)[1:]] == [("refuse", "controller"), ("force", "kim")]
    assert (log(tmp_path)[-1]["why"], len(log(tmp_path)[-1]["figures"]["unmet"])) == ("a trial among ourselves", 2)
    with pytest.raises(TrainerError, match="no blind test"):
        controller.advance(who="kim")  # the next stage asks for itself
    assert controller.advance(who="kim", force="it went well").weight == 20
    controller.admit(who="kim")  # said with the stage
    state.close()


def test_a_model_with_gate_and_blind_test_needs_no_force(tmp_path: Path) -> None:
    state, controller, _ = opened(tmp_path, **ready(tmp_path, weights=[5]))
    controller.admit(who="kim")
    assert controller.may_serve(state.current())
    assert [line["action"] for line in log(tmp_path)] == ["start"]
    state.close()


def test_another_current_model_starts_again_in_the_shadow_with_figures_of_its_own(tmp_path: Path) -> None:
    state, controller, clock = opened(tmp_path, **ready(tmp_path))
    assert controller.follow_model() is None
    stage_at(state, 50)
    state.pins.pin("s1", 100, state.current().id)
    traffic(controller, state)
    clock.at += 8 * DAY
    assert controller.status().proposed
    registry_with(tmp_path / "models", "PASS", name="llama-claude-ppo-v2")
    assert any("current model is llama-claude-ppo-v2" in blocker for blocker in controller.status().blockers)
    with pytest.raises(TrainerError, match="stage 50 % is of llama-claude-ppo-v1 000000000000, and"):
        controller.advance(who="kim", force="impatience")
    visit = controller.follow_model()
    assert visit is not None
    assert (visit.weight, visit.action, visit.model) == (0, "new_model", "llama-claude-ppo-v2 000000000000")
    assert state.pins.find("s1") == ("s1", "teacher", False)
    found = controller.status().stages[-1]
    assert (found.figures.student.requests, found.figures.teacher.requests, found.gate.phase) == (0, 0, "Running")
    decided = log(tmp_path)[-1]
    assert (decided["action"], decided["who"], decided["to"]) == ("new_model", "controller", 0)
    assert "stage 50 % was of llama-claude-ppo-v1" in decided["why"]
    assert controller.follow_model() is None
    state.close()


def test_a_model_that_is_exported_again_under_its_name_is_another_one(tmp_path: Path) -> None:
    state, controller, _ = opened(tmp_path, **ready(tmp_path))
    controller.follow_model()
    registry = tmp_path / "models" / "registry.json"
    registry.write_text(registry.read_text().replace("0" * 64, "1" * 64))
    visit = controller.follow_model()
    assert visit is not None
    assert visit.model == "llama-claude-ppo-v1 111111111111"
    state.close()


def test_a_full_disk_decides_nothing_and_counting_goes_on_after_it(tmp_path: Path) -> None:
    state, controller, _ = opened(tmp_path)
    visit = stage_at(state, 50)
    pages = state._connection.execute("PRAGMA page_count").fetchone()[0]
    state._connection.execute(f"PRAGMA max_page_count = {pages}")
    written = 0

    def until_full() -> None:
        nonlocal written
        while written < 10_000:
            controller.observe(answered(visit.id, f"s{written}"))
            written += 1

    with pytest.raises(sqlite3.OperationalError, match="full"):
        until_full()
    with pytest.raises(TrainerError, match="full; nothing was decided"):
        controller.abort("x" * 20_000, who="kim")
    assert state.current().weight == 50
    state._connection.execute("PRAGMA max_page_count = 1000000")
    assert state.walk(visit.id).answered == written
    controller.observe(answered(visit.id, "b"))
    assert state.walk(visit.id).answered == written + 1
    assert controller.abort(who="kim").weight == 0
    assert [line["action"] for line in log(tmp_path)] == ["start", "force", "abort"]
    state.close()


def test_a_log_that_cannot_be_written_does_not_undo_a_decision(tmp_path: Path) -> None:
    state, controller, _ = opened(tmp_path)
    stage_at(state, 50)
    (tmp_path / LOG).unlink()
    (tmp_path / LOG).mkdir()
    with pytest.raises(TrainerError, match="the decision stands"):
        controller.abort(who="kim")
    assert state.current().weight == 0
    state.close()
    (tmp_path / LOG).rmdir()
    open_rollout(tmp_path, RolloutConfig()).close()
    assert [line["action"] for line in log(tmp_path)] == ["start", "force", "abort"]


@pytest.mark.parametrize("weights", [[], [5, 5], [20, 5], [0, 101], [-1, 5]])
def test_weights_must_rise_within_percent(tmp_path: Path, weights: list[float]) -> None:
    with pytest.raises(TrainerError, match="rising percentages"):
        open_rollout(tmp_path, RolloutConfig(weights=weights))


def test_a_right_share_of_failures_is_below_a_wrong_one(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="must be below"):
        open_rollout(tmp_path, RolloutConfig(good_failures=0.05, max_failures=0.05))


def test_a_foreign_file_is_not_taken_for_a_state(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_text("not a database, and long enough to be looked at" * 50)
    with pytest.raises(TrainerError, match="not the state of a rollout"):
        open_rollout(tmp_path, RolloutConfig())


def cli(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    config = folder / "config.toml"
    config.write_text(f'models = "{folder / "models"}"\n')
    named = ["--config", str(config), "--state", str(folder / "rollout")]
    return subprocess.run([*CLI, *arguments, *named], capture_output=True, text=True)


def test_commands_report_refuse_force_and_abort(tmp_path: Path) -> None:
    refused = cli("advance", folder=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "0 of 40 sessions" in refused.stderr
    assert cli("advance", "--force", folder=tmp_path).returncode == 2, "a reason is wanted"
    assert cli("advance", "--force", "first users", folder=tmp_path).returncode == 0
    aborted = json.loads(cli("abort", "--note", "enough", "--json", folder=tmp_path).stdout)
    assert (aborted["weight"], aborted["decisions"][-1]["why"]) == (0, "enough")
    assert aborted["decisions"][-1]["who"] not in ("", "controller")
    assert [stage["action"] for stage in aborted["stages"]] == ["start", "force", "abort"]
    assert stat.S_IMODE((tmp_path / "rollout" / DATABASE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "rollout").stat().st_mode) == 0o700


def test_help_does_not_load_the_server() -> None:
    code = (
        "import sys; from trainer.cli import main\n"
        "try: main(['rollout', 'serve', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('starlette', 'uvicorn', 'httpx2', 'pydantic', 'sqlite3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
