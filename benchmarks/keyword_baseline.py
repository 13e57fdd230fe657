"""The plain keyword extractor that the signals are measured against. Not part of the package.

It does what one writes first: one list of words per signal, a hit wherever a word stands, no sentences, no actions.
It floods self-corrections with "wait" and "actually", takes plans for constraints and misses most prunings.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from claude_capture.claude_trace_schema import Trace

CONSTRAINT_WORDS = re.compile(
    r"\b(?:must|should|need to|have to|required?|only|cannot|can't|don't|do not|never|always|without|limit"
    r"|constraint|"
    r"make sure|ensure|at least|at most|no more than)\b",
    re.IGNORECASE,
)
PRUNING_WORDS = re.compile(
    r"\b(?:instead|rather than|alternatively|option|different approach|but|however|skip|not worth|won't work"
    r"|unnecessary|"
    r"don't need|ruled? out|reject)\b",
    re.IGNORECASE,
)
CORRECTION_WORDS = re.compile(
    r"\b(?:wait|actually|oops|mistake|wrong|sorry|correct(?:ion)?|fix|retry|try again|let me (?:check|verify|re))\b",
    re.IGNORECASE,
)


class KeywordHit(NamedTuple):
    """One keyword where it stands: step (−1 for the prompt), source, offsets in characters."""

    signal: str
    step: int
    source: str
    start: int
    end: int


def keyword_signals(trace: Trace) -> list[KeywordHit]:
    """Every keyword hit of the three text signals in the prompt (constraints only), thinking and text."""
    hits = [KeywordHit("constraints", -1, "user", *m.span()) for m in CONSTRAINT_WORDS.finditer(trace.user_prompt)]
    for step in trace.steps:
        for source, text in (("thinking", step.thinking), ("text", step.text)):
            for signal, pattern in (
                ("constraints", CONSTRAINT_WORDS),
                ("pruning_decisions", PRUNING_WORDS),
                ("self_corrections", CORRECTION_WORDS),
            ):
                hits.extend(KeywordHit(signal, step.index, source, *m.span()) for m in pattern.finditer(text))
    return hits


def keyword_depth(trace: Trace) -> str:
    """Depth by the number of calls alone: minimal up to 1, moderate up to 4, thorough up to 12, exhaustive above."""
    count = len(trace.tool_calls)
    return "minimal" if count <= 1 else "moderate" if count <= 4 else "thorough" if count <= 12 else "exhaustive"
