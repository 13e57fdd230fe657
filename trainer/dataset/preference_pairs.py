"""Pairs of a better and a worse next turn at the same place, for DPO-style training later.

    rewound            the person took a continuation back and had the same prompt answered again: the first turn in
                       which the two differ
    person_rejected    the person refused a call; the accepted one that followed it in the next turn
    mistake_recovery   a call failed; the call of the next turn that mends it

Both sides are one assistant message: DPO has no mask, so results of tools must not stand in them. What follows a
failed or refused call has seen more than the call had: so words on both sides are those of the worse turn, and a pair
is left out where its better call holds something that only the result has told, or where other turns lie between.

The same rules as for the dataset: only declared teachers, no student's own work, and the split of the session family;
families that the dataset does not hold have no split and give no pairs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
from pydantic import Field

from claude_capture.claude_trace_schema import SCHEMA_VERSION, Record, Teacher, ToolCall, Trace
from trainer.config import Config
from trainer.dataset.conversation import Turn, conversation_of, turn_kinds, turns_of
from trainer.dataset.near_duplicates import near_pairs, signatures
from trainer.dataset.prepared_traces import checked_text
from trainer.dataset.samples_file import iterate_dataset
from trainer.dataset.session_digest import with_digest
from trainer.dataset.splits import normalised_prompt
from trainer.dataset.stored_traces import StoredTraces
from trainer.dataset.teacher_rights import basis_for, by_student, main_teacher, undeclared
from trainer.dataset.windows import CountTokens, estimate_tokens, split_into_windows
from trainer.errors import TrainerError
from trainer.records import Message, Split
from trainer.run_folder import write_atomic
from trainer.student.chat_format import render

Source = Literal["rewound", "person_rejected", "mistake_recovery"]
SOURCES: dict[Source, str] = {
    "rewound": "a continuation that the person took back, and the one that stands",
    "person_rejected": "a call that the person refused, and the accepted one after it",
    "mistake_recovery": "a call that failed, and the one that mends it",
}
NEAR_PAIR = 0.95
"""Of two pairs this much alike the later one is dropped (Jaccard index of shingles, see near_duplicates)."""
SAME_PROMPT = 0.9
"""Prompts this much alike ask the same: a retry with a slip of the pen mended."""
REASONS = {
    "answered_by_student": "answered by one of our own students",
    "undeclared": "a teacher of one of the sides is not declared",
    "not_in_dataset": "its session family has no split: the dataset holds nothing of it",
    "no_accepted_trace": "what stands in place of the rewound turn was never answered",
    "another_prompt": "the person asked something else after rewinding",
    "later_in_branch": "a later turn of a rewound branch: its context was taken back, too",
    "not_mended_next": "what follows the call directly does not stand for it, or failed as well",
    "failed_check": "a command that ran and reported what was wrong: what follows is no better way to run it",
    "told_by_result": "the better call holds something that only the result of the worse one told",
    "unknown_tool": "a call uses a tool that the dataset's list for this family does not hold",
    "same_on_both_sides": "both sides are equal",
    "repeats_another": "as good as equal to an earlier pair",
    "too_long": "does not fit into dataset.max_tokens",
    "invalid": "the trace, or its rendered text, cannot be read back",
}
_WORTH_READING = (b'"branch":{', b'"user_rejected"', b'"self_corrections":[{')
_WORD = re.compile(r"\w{3,}")


class PreferencePair(Record):
    """One pair in TRL's conversational format for preferences, with where it comes from."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this schema")
    prompt: list[Message] = Field(description="The shared context: system and user message, then what came before")
    chosen: list[Message] = Field(description="The better next turn: one assistant message")
    rejected: list[Message] = Field(description="The worse next turn: one assistant message")
    tools: list[dict[str, Any]] = Field(default_factory=list, description="Short tool schemas offered")
    source: Source = Field(description="What tells that one side is better")
    trace_id: str = Field(description="Trace of the better side")
    rejected_trace_id: str = Field(description="Trace of the worse side; another one for a rewound branch")
    split: Split = Field(description="As in the dataset: by session family")
    family: str = Field(description="Session family")
    teacher: Teacher = Field(description="Who wrote the better side")
    basis: str = Field(description="The declaration that allows learning from this teacher")


class PairsReport(Record):
    """What became pairs, and what did not."""

    path: str = Field(description="The pairs file")
    sha256: str = Field(description="First 12 hex digits of the file's SHA-256")
    pairs: int = Field(description="Pairs written")
    by_source: dict[str, int] = Field(description="Pairs by source")
    by_split: dict[str, int] = Field(description="Pairs by split")
    left_out: dict[str, dict[str, int]] = Field(description="Candidates left out, by source and reason")


class _LeftOut(Exception):
    """A candidate that becomes no pair; its text is a key of REASONS."""


class _Family(NamedTuple):
    split: Split
    tools: list[dict[str, Any]]


@dataclass(frozen=True)
class _Side:
    """Where one side of a candidate stands: a turn of a trace, and the call it is about (None: the whole turn)."""

    trace: Trace
    turns: list[Turn]
    position: int
    call: ToolCall | None = None


def build_pairs(
    traces: Path, dataset: Path, config: Config, output: Path, *, count_tokens: CountTokens = estimate_tokens
) -> PairsReport:
    """Writes the pairs of the traces to `output`, ordered by trace and turn.

    Args:
        traces: the trace file that the dataset was built from.
        dataset: the built dataset; it gives each session family its split and its tools.
        config: sections `dataset` and `teachers`.
        output: e.g. `<data>/datasets/preference_pairs.jsonl`; written whole, empty where there is no pair.
        count_tokens: measures the pairs against `dataset.max_tokens`.

    Raises:
        TrainerError: the dataset is missing or unreadable, or no teacher is declared; an earlier file stays then.
    """
    if not config.teachers:
        raise TrainerError(
            "no teacher is declared, so nothing can be learned from; --config wants the dataset's config"
        )
    families: dict[str, _Family] = {}
    for sample in iterate_dataset(dataset):
        families.setdefault(sample.family, _Family(sample.split, sample.tools))
    left_out: dict[str, Counter[str]] = {}
    store = StoredTraces(traces, _WORTH_READING)
    pairs: list[PreferencePair] = []
    for trace_id in store.marked:
        trace = store.get(trace_id)
        if trace is None:
            continue  # the build has set it aside in quarantine.jsonl
        for source, better, worse in _candidates(trace, store, left_out):
            try:
                pairs.append(_pair(source, better, worse, families, store, config, count_tokens))
            except _LeftOut as reason:
                left_out.setdefault(source, Counter())[str(reason)] += 1
    pairs = _distinct(pairs, left_out)
    data = b"".join(orjson.dumps(pair.model_dump(mode="json")) + b"\n" for pair in pairs)
    write_atomic(output, data)
    return PairsReport(
        path=str(output),
        sha256=hashlib.sha256(data).hexdigest()[:12],
        pairs=len(pairs),
        by_source=dict(sorted(Counter(pair.source for pair in pairs).items())),
        by_split=dict(sorted(Counter(pair.split for pair in pairs).items())),
        left_out={source: dict(sorted(counts.items())) for source, counts in sorted(left_out.items())},
    )


def _candidates(
    trace: Trace, store: StoredTraces, left_out: dict[str, Counter[str]]
) -> Iterator[tuple[Source, _Side, _Side]]:
    """(source, better side, worse side) of everything in a trace that may become a pair; counts what cannot."""

    def leave(source: Source, reason: str) -> None:
        left_out.setdefault(source, Counter())[reason] += 1

    try:
        turns = turns_of(trace)
    except TrainerError:
        return  # in quarantine.jsonl
    if trace.branch is not None:
        accepted = store.get(trace.branch.accepted_trace_id)
        if trace.branch.position:
            leave("rewound", "later_in_branch")
        elif accepted is None:
            leave("rewound", "no_accepted_trace")
        elif not trace.branch.same_prompt and not _same_prompt(trace.user_prompt, accepted.user_prompt):
            leave("rewound", "another_prompt")
        else:
            try:
                stands = turns_of(accepted)
            except TrainerError:
                return
            place = _parting(stands, turns)
            if place is None:
                leave("rewound", "same_on_both_sides")
            else:
                yield "rewound", _Side(accepted, stands, place), _Side(trace, turns, place)
        return  # what was taken back is no example of mending

    kinds = turn_kinds(trace, turns)
    mended = {item.corrects: item.by for item in trace.reasoning_signals.self_corrections if item.succeeded is True}
    for position, turn in enumerate(turns):
        following = turns[position + 1] if position + 1 < len(turns) else None
        for call in turn.calls:
            worse = _Side(trace, turns, position, call)
            if call.error_kind == "user_rejected":
                better = next((c for c in following.calls if not c.is_error), None) if following else None
                if better is None:
                    leave("person_rejected", "not_mended_next")
                else:
                    yield "person_rejected", _Side(trace, turns, position + 1, better), worse
            elif kinds[position] == "mistake" and call.id in mended:
                better = next((c for c in following.calls if c.id == mended[call.id]), None) if following else None
                if better is None or better.is_error:
                    leave("mistake_recovery", "not_mended_next")
                else:
                    yield "mistake_recovery", _Side(trace, turns, position + 1, better), worse


def _same_prompt(one: str, other: str) -> bool:
    one, other = normalised_prompt(one), normalised_prompt(other)
    return one == other or SequenceMatcher(None, one, other, autojunk=False).ratio() >= SAME_PROMPT


def _deeds(turn: Turn) -> list[object]:
    return [turn.content, [(call.tool, call.input) for call in turn.calls]]


def _parting(stands: Sequence[Turn], rewound: Sequence[Turn]) -> int | None:
    """The first turn in which two continuations differ; None where one is the other's beginning, or results differ."""
    for place, (one, other) in enumerate(zip(stands, rewound, strict=False)):
        if _deeds(one) != _deeds(other):
            return place
        if [call.output for call in one.calls] != [call.output for call in other.calls]:
            return None
    return None


def _pair(
    source: Source,
    better: _Side,
    worse: _Side,
    families: dict[str, _Family],
    store: StoredTraces,
    config: Config,
    count_tokens: CountTokens,
) -> PreferencePair:
    """The pair of two sides. Raises _LeftOut."""
    trace = better.trace
    if any(by_student(side.trace) for side in (better, worse)):
        raise _LeftOut("answered_by_student")
    if any(undeclared(side.trace, config.teachers) is not None for side in (better, worse)):
        raise _LeftOut("undeclared")
    name = trace.family or trace.session_id
    family = families.get(name)
    if family is None or families.get(worse.trace.family or worse.trace.session_id) != family:
        raise _LeftOut("not_in_dataset")
    try:
        told = store.digest(trace, config) if config.dataset.digest_tokens else ""
        return _fitted(source, better, worse, name, family, told, config, count_tokens)
    except (TrainerError, TypeError, ValueError):
        raise _LeftOut("invalid") from None


def _fitted(
    source: Source,
    better: _Side,
    worse: _Side,
    name: str,
    family: _Family,
    told: str,
    config: Config,
    count_tokens: CountTokens,
) -> PreferencePair:
    context = conversation_of(worse.trace, worse.turns[: worse.position], config.dataset)
    context[0]["content"] = with_digest(config.dataset.system_prompt, told)
    if source == "rewound":  # the prompt that stands
        context[1] = conversation_of(better.trace, [], config.dataset)[1]
    first = sum(len(message.get("tool_calls") or ()) for message in context)
    chosen, rejected = (_message(side, first, config) for side in (better, worse))
    if worse.call is not None:
        chosen["content"] = rejected["content"]
        if worse.call.error_kind == "exit_code" and better.call is not None and better.call.tool != worse.call.tool:
            raise _LeftOut("failed_check")
        if _told(chosen, rejected, context, worse.call.output or ""):
            raise _LeftOut("told_by_result")
    if _arguments(chosen) == _arguments(rejected):
        raise _LeftOut("same_on_both_sides")
    offered = {tool["function"]["name"] for tool in family.tools}
    calls = [call for message in (*context, chosen, rejected) for call in message.get("tool_calls") or ()]
    if any(call["function"]["name"] not in offered for call in calls):
        raise _LeftOut("unknown_tool")

    longer = max((chosen, rejected), key=lambda message: len(render([message])))
    turns = sum(message["role"] == "assistant" for message in context)
    made = split_into_windows(
        [*context, longer], [*[0.0] * turns, 1.0], family.tools, config.dataset.max_tokens, count_tokens
    ).windows
    if not made:
        raise _LeftOut("too_long")
    prompt = made[0].messages[:-1]
    first = sum(len(message.get("tool_calls") or ()) for message in prompt)
    sides = [_numbered(message, first) for message in (chosen, rejected)]
    for side in sides:
        checked_text([*prompt, side])
    return PreferencePair(
        prompt=prompt,
        chosen=sides[:1],
        rejected=sides[1:],
        tools=family.tools,
        source=source,
        trace_id=better.trace.trace_id,
        rejected_trace_id=worse.trace.trace_id,
        split=family.split,
        family=name,
        teacher=better.trace.teacher,
        basis=basis_for(main_teacher(better.trace), config.teachers) or "",
    )


def _message(side: _Side, first: int, config: Config) -> Message:
    """The assistant message of a side, with all its calls or the one that the side is about."""
    turn = side.turns[side.position]
    if side.call is not None:
        turn = Turn(turn.content, [side.call], turn.steps)
    return _numbered(conversation_of(side.trace, [turn], config.dataset)[2], first)


def _numbered(message: Message, first: int) -> Message:
    if "tool_calls" not in message:
        return message
    calls = [{**call, "id": f"call_{first + place}"} for place, call in enumerate(message["tool_calls"])]
    return {**message, "tool_calls": calls}


def _arguments(message: Message) -> list[object]:
    """What a side says and does; how a command is described is no difference."""
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    calls = [(f["name"], {k: v for k, v in f["arguments"].items() if k != "description"}) for f in functions]
    return [message["content"].split(), calls]


def _told(chosen: Message, rejected: Message, context: Sequence[Message], result: str) -> bool:
    """Whether the better call holds a word of the worse one's result that nobody could know before it."""
    known = json.dumps([*context, rejected], ensure_ascii=False)
    new = set(_WORD.findall(json.dumps(chosen["tool_calls"], ensure_ascii=False))) - set(_WORD.findall(known))
    return not new.isdisjoint(_WORD.findall(result))


def _distinct(pairs: list[PreferencePair], left_out: dict[str, Counter[str]]) -> list[PreferencePair]:
    """The pairs without those that are as good as equal to an earlier one."""
    texts = [render([*pair.prompt[1:], *pair.chosen, *pair.rejected]) for pair in pairs]
    found = near_pairs(signatures(texts), np.zeros(len(pairs), int), NEAR_PAIR).rows
    repeats = {int(later) for _, later in found}
    for place in repeats:
        left_out.setdefault(pairs[place].source, Counter())["repeats_another"] += 1
    return [pair for place, pair in enumerate(pairs) if place not in repeats]
