"""Why a sound trace is not to be learned from.

Each reason is a name that the report counts and `REASONS` puts in words. The rules look at one trace alone;
duplicates and caps, which look at all of them, are in selection.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from claude_capture.claude_trace_schema import Trace
from claude_capture.signals.tool_actions import read_action
from trainer.config import DatasetConfig
from trainer.dataset.conversation import NO_RESULT, Turn
from trainer.dataset.teacher_rights import by_student

REASONS = {
    "answered_by_student": "answered by one of our own students: a model is not trained on its own output",
    "rewound": "taken back by the person",
    "interrupted": "interrupted by the person",
    "failed": "ended with an error",
    "in_flight": "not finished when the dataset was built",
    "no_prompt": "without a prompt",
    "no_answer": "without a final answer",
    "superseded": "an earlier version of a trace that is there in a later one",
    "too_few_calls": "fewer tool calls than `dataset.min_tool_calls`",
    "refusal": "the assistant declined and changed nothing",
    "placeholder_only": "the answer, or every result, is nothing but placeholders",
    "nothing_to_imitate": "every turn is a mistake",
    "duplicate": "the same work on the same prompt in the same workspace as an earlier trace",
    "near_duplicate": "as like an earlier trace as `dataset.near_duplicate_threshold` says, or more",
    "family_cap": "over `dataset.max_per_family`",
    "project_cap": "over `dataset.max_per_project`",
    "workflow_cap": "over `dataset.max_per_workflow`",
    "too_long": "no turn fits into `dataset.max_tokens`",
}

_REFUSAL = re.compile(
    r"(?:(?:i(?:'m| am) (?:very )?sorry|sorry|unfortunately|i apologi[sz]e)\b[^.!?\n]{0,40}?[,.:;]?\s*(?:but )?)?"
    r"(?:i (?:can't|cannot|can not|won't|will not)|i(?:'m| am) (?:not able|unable|not going|not willing) to)\s+"
    r"(?:help|assist|comply|participate|engage|support|fulfil+|(?:do|carry out) (?:that|this))\b"
    r"|(?:i(?:'m| am) sorry, but )?i (?:must|have to|need to) (?:decline|refuse)\b",
    re.IGNORECASE,
)
_LONGEST_REFUSAL = 600
_PLACEHOLDER = re.compile(
    rf"«[A-Z_]{{3,40}}(?::\d{{1,9}})?»|{re.escape(NO_RESULT)}|\[result left out: [\d,]+ characters\]"
)


def unwanted(trace: Trace, turns: Sequence[Turn], config: DatasetConfig) -> str | None:
    """The first reason (a key of REASONS) that speaks against the trace, or None."""
    if by_student(trace):
        return "answered_by_student"
    if trace.branch is not None:
        return "rewound"
    if trace.status != "complete":
        return trace.status
    if not trace.user_prompt.strip():
        return "no_prompt"
    if not turns or turns[-1].calls:
        return "no_answer"
    calls = [call for turn in turns for call in turn.calls]
    if len(calls) < config.min_tool_calls:
        return "too_few_calls"
    answer = turns[-1].content
    if is_refusal(answer) and not any(read_action(call).changes for call in calls):
        return "refusal"
    results = [NO_RESULT if call.output is None else call.output for call in calls]
    if _only_placeholders(answer) or (results and all(map(_only_placeholders, results))):
        return "placeholder_only"
    return None


def is_refusal(answer: str) -> bool:
    """Whether an answer declines: it is short and begins by saying that the assistant will not, or may not, help.

    What could not be found or done ("I can't find transformer 9", "I cannot reproduce it") is an answer.
    """
    text = answer.strip().replace("’", "'")
    return len(text) <= _LONGEST_REFUSAL and _REFUSAL.match(text) is not None


def _only_placeholders(text: str) -> bool:
    """True for a text that holds placeholders and, beside them, nothing that could be read; empty text is False."""
    return _PLACEHOLDER.search(text) is not None and re.search(r"\w", _PLACEHOLDER.sub("", text)) is None
