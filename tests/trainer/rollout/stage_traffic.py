"""Requests as the gateway would have counted them, models and blind tests as they lie on a disk."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import orjson

from trainer.config import Config, RolloutConfig
from trainer.rollout.controller import Controller
from trainer.rollout.rollout_state import SCORES, AnsweredRequest, Decision, RolloutState, Visit
from trainer.rollout.session_pinning import Side


class Clock:
    """A clock that is set by hand, ahead of the real one."""

    def __init__(self, state: RolloutState) -> None:
        self.at = state.current().entered_at

    def __call__(self) -> float:
        return self.at


def config_with(folder: Path, **keys: Any) -> Config:
    """A config whose models, where there are any, lie in `folder`."""
    return Config(models=str(folder / "models"), rollout=RolloutConfig(**({"min_sessions": 3} | keys)))


def answered(visit: int, session: str, side: Side = "student", **fields: Any) -> AnsweredRequest:
    """A request that its side answered."""
    return AnsweredRequest(visit, session, side, side, **({"total_ms": 900.0, "first_byte_ms": 300.0} | fields))


def failed(visit: int, session: str, reason: str = "unknown_tool", **fields: Any) -> AnsweredRequest:
    """A request that the student failed."""
    return AnsweredRequest(visit, session, "student", "teacher", reason, **fields)


def stage_at(state: RolloutState, weight: float) -> Visit:
    """Goes to a stage without asking anybody, and says so."""
    decision = Decision("force", "test", "test", {"unmet": ["it was not asked for"]})
    return state.enter(weight, decision, after=state.current().id)


def traffic(
    controller: Controller, state: RolloutState, *, sessions: int = 60, requests: int = 10, share: float = 0.0,
    tool_errors: float = 0.02, pushback: float = 0.0, seed: int = 1,
) -> None:  # fmt: skip
    """Student's and teacher's sessions; the teacher's calls fail in 2 %, the student fails as told."""
    draw = random.Random(seed)
    visit = state.current().id
    for number in range(sessions):
        for _ in range(requests):
            bad = {"after": "student", "results": 1, "failed": int(draw.random() < tool_errors)}
            bad["interrupted"] = draw.random() < pushback
            one = failed(visit, f"s{number}") if draw.random() < share else answered(visit, f"s{number}", **bad)
            controller.observe(one)
            good = {"after": "teacher", "results": 1, "failed": int(draw.random() < 0.02)}
            controller.observe(answered(visit, f"t{number}", "teacher", **good))


def shadow(state: RolloutState, total: float, *, sessions: int = 40, failures: int = 0) -> None:
    """Scores as the shadow writes them."""
    draw = random.Random(1)
    with (state.folder / SCORES).open("ab") as stream:
        for number in range(sessions):
            for turn in range(5):
                line: dict[str, Any] = {"session": f"s{number}", "visit": state.current().id, "dropped": 0}
                if turn == 0 and number < failures:
                    line |= {"reason": "unknown_tool", "total": -1.0}
                else:
                    line |= {"reason": "", "total": max(-1.0, min(1.0, total + draw.gauss(0, 0.1))), "same_tools": True}
                stream.write(orjson.dumps(line) + b"\n")


def registry_with(folder: Path, verdict: str | None, name: str = "llama-claude-ppo-v1") -> None:
    """A registry whose current model has this gate verdict; None: it was not gated."""
    gate = None if verdict is None else {"passed": verdict == "PASS", "verdict": verdict, "n": 200}
    file = {"path": f"{name}.gguf", "bytes": 1, "sha256": "0" * 64, "type": "q4_k_m", "seconds": 1}
    model = {"name": name, "created_at": "2026-01-01T00:00:00+00:00", "files": [file], "gate": gate}
    model["doctor"] = {"path": file["path"], "healthy": True, "checks": []}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "registry.json").write_text(json.dumps({"schema_version": 1, "current": name, "models": [model]}))


def blind_test_report(path: Path, wrong: int, choices: int = 50, student: str = "llama-claude-ppo-v1") -> Path:
    """What `blind-test report` writes of so many wrong choices."""
    from trainer.evaluate.blind_test_report import BlindTestReport, Share
    from trainer.evaluate.indistinguishability_test import THRESHOLDS, clopper_pearson, judge
    from trainer.report.statistics import wilson_interval

    bounds = wilson_interval(wrong, choices)[1:3]
    share = Share(count=wrong, n=choices, share=wrong / choices, wilson=bounds)
    report = BlindTestReport(
        closed_at="2026-01-01", teachers=["claude"], students=[student], pairs=choices, same=0, unanswered=0, raters={},
        wrong=wrong, choices=choices, undecided=0, indistinguishability=wrong / choices,
        with_undecided=wrong / choices, wilson=bounds, clopper_pearson=clopper_pearson(wrong, choices)[1:3],
        bootstrap=bounds, design_effect=1.0, independent_wrong=wrong, independent_choices=choices,
        verdicts={claim: judge(wrong, choices, claim) for claim in THRESHOLDS}, naive_pass_rate=0.2, differing=None,
        length_guess=None, controls=None, first_side=share, by_workflow={}, preferences={}, agreement=None,
        preference_agreement=None, median_seconds=None, scrubbed={},
    )  # fmt: skip
    path.write_text(report.model_dump_json())
    return path
