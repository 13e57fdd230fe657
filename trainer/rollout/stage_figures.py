"""What happened in a stage: student and teacher side by side, from the requests that the state keeps.

Requests of one session are not independent: a student that is lost fails several times in a row. Every share therefore
comes with a Wilson interval on the number of requests that would tell as much if they were independent: n divided by
the design effect 1 + (m - 1)·ICC of sessions of m requests. Few failures, or none, cannot show how they cluster, so an
ICC below LEAST_ICC is not believed. Where the interval is too wide, more sessions help and longer ones do little.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import orjson
from pydantic import Field

from claude_capture.claude_trace_schema import Record
from trainer.config import RolloutConfig, TeacherPrice
from trainer.evaluate.indistinguishability_test import design_effect, effective
from trainer.report.statistics import mean_interval, wilson_interval
from trainer.rollout.bounded_log import lines_of
from trainer.rollout.rollout_state import SCORES, AnsweredRequest, RolloutState, Visit
from trainer.rollout.sequential_test import NO_FAILURE, ROLL_BACK, Outcome, Walk, outcome, step
from trainer.rollout.session_pinning import Side

BYTES_PER_TOKEN = 4.0
"""Rough; only for the estimate of what was saved."""
LEAST_ICC = 0.1
"""Smallest correlation within a session that is assumed."""
_NOT_THE_STUDENT = frozenset(("unreadable_teacher", "shadow_failed", "no_tools", "wrong_model"))
_BY_SCHEMA = frozenset(("unknown_tool", "invalid_arguments", "malformed_call"))
SIDES: tuple[Side, Side] = ("student", "teacher")


class Rate(Record):
    """A share with its interval."""

    count: int = Field(description="How many")
    n: int = Field(description="Out of how many")
    share: float = Field(description="count / n")
    low: float = Field(description="Lower end of the interval (95 % where nothing else is said), sessions considered")
    high: float = Field(description="Upper end")


class SideFigures(Record):
    """One side of a stage. None: no data."""

    sessions: int = Field(description="Sessions pinned to this side with a request in this stage")
    requests: int = Field(description="Requests that this side answered")
    tool_errors: Rate | None = Field(
        description="Results that are errors, out of all results of this side's calls; rejections not counted"
    )
    rejected: int = Field(description="Calls of this side that the person did not allow")
    interrupted: int = Field(description="Requests that say that the person stopped this side")
    pushback: Rate | None = Field(description="Requests with a rejection or an interrupt, out of the side's requests")
    retries: int = Field(description="Requests that the client repeated after a failure")
    answer_p50_ms: float | None = Field(description="Request to the end of the answer, in its sessions; median")
    answer_p95_ms: float | None = Field(description="The same, 95th percentile; rescues by the teacher are in it")
    first_byte_p50_ms: float | None = Field(description="Request to the first byte, pings included; median")
    first_byte_p95_ms: float | None = Field(description="95th percentile")
    output_tokens: int | None = Field(description="Tokens that it wrote; None: the teacher's replies are not read")


class Savings(Record):
    """What the student's answers would have cost at the teacher's price. An estimate."""

    amount: float | None = Field(description="In the currency of the config; None without a price")
    input_tokens: int = Field(description="Estimated from the size of the requests, 4 bytes to a token")
    output_tokens: int = Field(description="What the student wrote")
    unpriced: dict[str, int] = Field(description="Model that the config has no price for → requests, not in `amount`")


class ShadowFigures(Record):
    """What the student would have done in a stage that shows it to nobody."""

    turns: int = Field(description="Turns that were compared with the teacher's")
    sessions: int = Field(description="Sessions that they are of")
    dropped: int = Field(description="Turns that came too fast")
    reward: tuple[float, float, float] | None = Field(
        description="Mean over sessions of their mean reward, with its 95 % interval, in [-1, 1]; a failure is -1"
    )
    same_tools: float | None = Field(description="Share of scored turns with the teacher's tools in its order")
    failures: Rate | None = Field(description="Turns in which the student had no answer fit to be released")
    reasons: dict[str, int] = Field(description="Why → n")
    deaths: int = Field(default=0, description="How often the process that asks the student died")
    fault: str = Field(default="", description="Why it did at its latest turn; empty where that turn went well")


class RollbackFigures(Record):
    """Where the rollback test stands."""

    score: float = Field(description="Log-likelihood ratio since its latest restart")
    rolls_back_at: float = Field(description="Bound of the score")
    answered: int = Field(description="Requests that the student answered")
    failed: int = Field(description="Failures; an outage is one")
    accepted: int = Field(description="How often the student was accepted and the test restarted")


class StageFigures(Record):
    """One visit in figures."""

    session_share: float | None = Field(description="Student's sessions out of all sessions")
    request_share: float | None = Field(description="Requests that the student answered, out of all")
    student: SideFigures = Field(description="The student")
    teacher: SideFigures = Field(description="The teacher")
    failures: Rate | None = Field(description="Requests where the student failed and the teacher answered")
    schema_failures: int = Field(description="Of them, calls that do not fit the tools that the client offered")
    fallbacks: dict[str, int] = Field(description="Why → n")
    passed_on: dict[str, int] = Field(description="Requests that were not meant for the student: reason → n")
    saved: Savings = Field(description="Money")
    shadow: ShadowFigures | None = Field(description="None where nothing was compared")
    test: RollbackFigures = Field(description="The rollback test")


def stage_figures(
    state: RolloutState, visit: Visit, config: RolloutConfig, *, confidence: float = 0.95
) -> StageFigures:
    """Everything that is known of a visit, with intervals of this confidence."""
    answers = list(state.answers(visit.id))
    sides = {side: _side(side, answers, confidence) for side in SIDES}
    reasons = Counter(answer.reason for answer in answers if answer.reason)
    tried: dict[str, list[bool]] = defaultdict(list)
    for answer in answers:
        if answer.pinned == "student" and (answer.answered_by == "student" or answer.reason not in NO_FAILURE):
            tried[answer.session].append(answer.answered_by != "student")
    walk = state.walk(visit.id)
    sessions = sum(side.sessions for side in sides.values())
    return StageFigures(
        session_share=sides["student"].sessions / sessions if sessions else None,
        request_share=sides["student"].requests / len(answers) if answers else None,
        student=sides["student"],
        teacher=sides["teacher"],
        failures=rate(tried.values(), confidence),
        schema_failures=sum(n for reason, n in reasons.items() if reason in _BY_SCHEMA),
        fallbacks={reason: n for reason, n in sorted(reasons.items()) if reason not in NO_FAILURE},
        passed_on={reason: n for reason, n in sorted(reasons.items()) if reason in NO_FAILURE},
        saved=_saved(answers, config.prices),
        shadow=_shadow(state.folder / SCORES, visit.id, confidence),
        test=RollbackFigures(
            score=walk.score, rolls_back_at=ROLL_BACK, answered=walk.answered, failed=walk.failed,
            accepted=walk.accepted,
        ),
    )  # fmt: skip


def score_path(state: RolloutState, visit: Visit, config: RolloutConfig) -> list[float]:
    """The score of the rollback test after each request of a visit, starting at 0."""
    walk, scores = Walk(), [0.0]
    latest: dict[str, Outcome] = {}
    for answer in state.answers(visit.id):
        seen = outcome(answer.answered_by, answer.reason) if answer.pinned == "student" else None
        if seen is not None:
            walk = step(walk, seen, latest.get(answer.session), config.good_failures, config.max_failures)
            latest[answer.session] = seen
            scores.append(walk.score)
    return scores


def _side(side: Side, answers: Sequence[AnsweredRequest], confidence: float) -> SideFigures:
    results: dict[str, list[bool]] = defaultdict(list)
    pushed: dict[str, list[bool]] = defaultdict(list)
    waited: list[AnsweredRequest] = []
    sessions: set[str] = set()
    requests = rejected = interrupted = retries = tokens = 0
    for answer in answers:
        requests += answer.answered_by == side
        if answer.answered_by == "student":
            tokens += answer.output_tokens
        if answer.pinned == side:
            sessions.add(answer.session)
            retries += answer.retry
            if answer.reason not in NO_FAILURE:
                waited.append(answer)
        # the teacher's calls in a rescued session are no sample of its work: that session was hard for the student
        whose = answer.after or answer.pinned
        if answer.retry or whose != side or (side == "teacher" and answer.pinned != "teacher"):
            continue
        errors = answer.failed - answer.rejected
        results[answer.session] += [True] * errors + [False] * (answer.results - answer.failed)
        pushed[answer.session].append(bool(answer.rejected or answer.interrupted))
        rejected += answer.rejected
        interrupted += answer.interrupted
    whole = [answer.total_ms for answer in waited if answer.total_ms is not None]
    first = [answer.first_byte_ms for answer in waited if answer.first_byte_ms is not None]
    return SideFigures(
        sessions=len(sessions),
        requests=requests,
        tool_errors=rate(results.values(), confidence),
        rejected=rejected,
        interrupted=interrupted,
        pushback=rate(pushed.values(), confidence),
        retries=retries,
        answer_p50_ms=_quantile(whole, 0.5),
        answer_p95_ms=_quantile(whole, 0.95),
        first_byte_p50_ms=_quantile(first, 0.5),
        first_byte_p95_ms=_quantile(first, 0.95),
        output_tokens=tokens if side == "student" else None,
    )


def rate(sessions: Iterable[Sequence[bool]], confidence: float = 0.95) -> Rate | None:
    """The share of True, its interval by Wilson on as many requests as would tell as much independently.

    Args:
        sessions: per session its requests; None is returned where there is no request at all.
    """
    groups = [group for group in sessions if group]
    n, count = sum(map(len, groups)), sum(map(sum, groups))
    if not n:
        return None
    size = sum(len(group) ** 2 for group in groups) / n
    effect = 1 + (size - 1) * LEAST_ICC
    if 0 < count < n:
        effect = max(effect, design_effect(groups))
    interval = wilson_interval(*effective(count, n, effect), confidence=confidence)
    share = count / n  # rounding to whole requests may put the interval a trifle beside it
    return Rate(count=count, n=n, share=share, low=min(interval.low, share), high=max(interval.high, share))


def _quantile(values: list[float], q: float) -> float | None:
    """The smallest value that a share `q` of the values does not exceed."""
    return sorted(values)[max(math.ceil(q * len(values)) - 1, 0)] if values else None


def _saved(answers: Sequence[AnsweredRequest], prices: Sequence[TeacherPrice]) -> Savings:
    by_model: dict[str, list[AnsweredRequest]] = defaultdict(list)
    for answer in answers:
        if answer.answered_by == "student":
            by_model[answer.model].append(answer)
    amount, given, written = None, 0, 0
    unpriced: dict[str, int] = {}
    for model, group in sorted(by_model.items()):
        tokens_in = round(sum(answer.request_bytes for answer in group) / BYTES_PER_TOKEN)
        tokens_out = sum(answer.output_tokens for answer in group)
        given, written = given + tokens_in, written + tokens_out
        price = next((price for price in prices if fnmatchcase(model, price.match)), None)
        if price is None:
            unpriced[model] = len(group)
        else:
            amount = (amount or 0.0) + (tokens_in * price.input + tokens_out * price.output) / 1e6
    return Savings(amount=amount, input_tokens=given, output_tokens=written, unpriced=unpriced)


def _shadow(path: Path, visit: int, confidence: float) -> ShadowFigures | None:
    rewards: dict[str, list[float]] = defaultdict(list)
    failed: dict[str, list[bool]] = defaultdict(list)
    same: list[bool] = []
    reasons: Counter[str] = Counter()
    dropped = 0
    deaths, fault = 0, ""
    for line in lines_of(path):
        try:
            score = orjson.loads(line)
        except orjson.JSONDecodeError:  # torn by a kill
            continue
        if score["visit"] != visit:
            continue
        dropped += score["dropped"]
        fault = score.get("fault", "")
        deaths += score["reason"] == "shadow_failed"
        if score["reason"]:
            reasons[score["reason"]] += 1
        if score["reason"] in _NOT_THE_STUDENT:
            continue
        failed[score["session"]].append(bool(score["reason"]))
        if score.get("total") is not None:
            rewards[score["session"]].append(score["total"])
        if "same_tools" in score:
            same.append(score["same_tools"])
    if not failed and not reasons:
        return None
    means = [sum(group) / len(group) for group in rewards.values()]
    interval = mean_interval(means, bounds=(-1, 1), confidence=confidence) if means else None
    return ShadowFigures(
        turns=sum(map(len, failed.values())),
        sessions=len(failed),
        dropped=dropped,
        reward=interval[:3] if interval else None,
        same_tools=sum(same) / len(same) if same else None,
        failures=rate(failed.values(), confidence),
        reasons=dict(sorted(reasons.items())),
        deaths=deaths,
        fault=fault,
    )
