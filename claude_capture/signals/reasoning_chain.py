"""The reasoning chain: statements that carry the work on, in the order they were made.

Thinking and text of one message often say the same thing twice; the first saying counts. Greetings, praise,
announcements without content ("Let me do that now"), headings and list items of a closing summary are no steps.
"""

from __future__ import annotations

import re

from claude_capture.claude_trace_schema import ReasoningStep
from claude_capture.signals.sentences import Statement, word_set
from claude_capture.signals.trace_reading import TraceReading

REPEATED_FROM = 0.8
"""Share of common content words (of the smaller set, 0–1) from which a statement repeats another of its message."""

_INFERENCE_CUES = word_set(
    "because since so therefore thus hence means suggests indicates implies likely "
    "probably apparently seems appears cause "
    "caused explains meaning consequently must due otherwise"
)
_INFERENCE = re.compile(
    r"\b(?:because|therefore|thus|hence|consequently|otherwise)\b|\bsince\s+\w+\s+\w+|(?:^|[,;—–]\s*)so\s+(?!far\b"
    r"|let\s+me|i'll|i\s+will)\w+\s+\w+"
    r"|\b(?:which|that|this)\s+(?:means|suggests|indicates|implies|explains)\b|\b(?:likely|probably|apparently)\b"
    r"|\b(?:it\s+|there\s+)?(?:seems|appears)\b"
    r"|\bmust\s+(?:be|have\s+been)\b|\b(?:the\s+)?(?:root\s+)?cause\b|\bcaused\s+by\b|\bdue\s+to\b"
)
_DECISION_CUES = word_set(
    "best better prefer choose chose decide decided instead rather option approach "
    "recommend recommended simplest safest "
    "should go use cleaner"
)
_DECISION = re.compile(
    r"\b(?:best|better|simplest|safest|cleanest|right|recommended)\s+(?:\w+\s+)?(?:approach|option|choice|way"
    r"|solution|thing|fix|is\s+to|to)\b"
    r"|\bi(?:'ll|\s+will)\s+(?:go\s+with|use|keep|choose|stick|pick|skip|leave)\b|\b(?:decided?|choose|chose"
    r"|prefer|opt)\b"
    r"|\b(?:instead\s+of|rather\s+than)\b|\blet's\s+(?:go\s+with|use|keep)\b|\bi\s+should\s+(?:just\s+)?(?:use"
    r"|keep|not|avoid|prefer|go)\b|\bi(?:'d|\s+would)\s+(?:suggest|recommend)\b"
)
_PLAN_CUES = word_set("let let's need needs i'll we'll will should going next first then now plan want have must")
_PLAN = re.compile(
    r"\b(?:i|we)(?:\s+(?:also|still|now|then|first|just))*\s+(?:need|have|want|plan|ought)\s+to\b|\bi(?:'ll"
    r"|\s+will|'m\s+going\s+to|\s+should|\s+must|\s+can\s+now)\b|\bwe(?:'ll|\s+should|\s+will)\b"
    r"|\blet\s+me\b|\blet's\b|\bnext(?:,|\s+step)|^(?:first|then|second|third|finally|next),?\s+\w+"
)
_OBSERVATION_CUES = word_set(
    "see found find shows show looks looking there issue problem error fails failing "
    "failed missing exists exist contains "
    "returns returned uses already but however passes pass works defined expects expected turns output confirms "
    "understand "
    "has have"
)
_OBSERVATION = re.compile(
    r"\bi\s+(?:can\s+|now\s+)?(?:see|found|notice[d]?|understand)\s+(?!the\s+(?:issue|problem)[.:!]?$)\w+"
    r"|\b(?:the\s+)?(?:\w+\s+){0,4}?(?:shows?|confirms?|contains?|returns?|returned|expects?|exists?|uses|fails?"
    r"|failed|defines|calls)\b"
    r"|\bthere(?:'s|\s+is|\s+are|\s+was|\s+were)\b|\b(?:issue|problem|bug|error)\s+(?:is|was|seems|might)\b"
    r"|\b(?:is|are)\s+(?:missing|already|not|only|defined|failing|passing|still)\b|\blooks\s+like\b|\bturns\s+out\b"
    r"|\b(?:doesn't|does\s+not|isn't|aren't|wasn't|don't)\s+\w+|\bhas\s+(?:a|an|the|no|two|three|\d+)\b"
)
_CUES = _INFERENCE_CUES | _DECISION_CUES | _PLAN_CUES | _OBSERVATION_CUES

_EMPTY = word_set(
    """a an the this that these those it its i i'll i'm i've we we'll let let's me us you your my our to of in on
    at by for from with into and or but so if is are was were be been do does did done have has had will
    would should can could may might must need needs now then next first also just start started starting
    begin continue continuing proceed go going ahead try trying make sure help here there great good perfect
    excellent okay ok ah oh hmm right yes no well sure thanks everything something anything things thing all
    more very really quickly step steps following summary summarize summarise provide create give user
    working work works task tasks change changes fix fixing issue issues problem update let's ready mark
    todo think thinking approach context completed complete done again back one last final s t ll ve re d m
    what how when which who as not"""
)
_PRAISE = re.compile(
    r"^\W*(?:perfect|great|excellent|good|nice|awesome|wonderful|ok(?:ay)?|alright|absolutely|sure|done"
    r"|thanks?)\b[^a-z]*$"
)
_LEAST_CONTENT = 2


def build_reasoning_chain(reading: TraceReading) -> list[ReasoningStep]:
    """The statements that count as reasoning steps, in reading order, without repeats."""
    chain: list[ReasoningStep] = []
    everywhere: set[str] = set()
    for message in reading.messages:
        kept: list[frozenset[str]] = []
        for source, statements in message.passages():
            closing = message.is_summary and source == "text"
            for statement in statements:
                if statement.question or (closing and statement.bullet) or statement.lower in everywhere:
                    continue
                kind = _kind(statement, closing)
                if kind is None:
                    continue
                content = statement.words - _EMPTY
                if len(content) < _LEAST_CONTENT or _repeats(content, kept):
                    continue
                kept.append(content)
                everywhere.add(statement.lower)
                chain.append(
                    ReasoningStep(
                        step=message.index,
                        quote=statement.text,
                        source=source,
                        rule=f"{kind}_cue",
                        start=statement.start,
                        end=statement.end,
                        kind=kind,
                    )
                )
    return chain


def _kind(statement: Statement, closing: bool) -> str | None:
    """inference, decision, plan or observation, in this order of precedence; None for anything else.

    A closing summary reports; of it only inferences count.
    """
    words = statement.words
    if _CUES.isdisjoint(words) or _PRAISE.match(statement.lower):
        return None
    if not _INFERENCE_CUES.isdisjoint(words) and _INFERENCE.search(statement.lower):
        return "inference"
    if closing:
        return None
    if not _DECISION_CUES.isdisjoint(words) and _DECISION.search(statement.lower):
        return "decision"
    if not _PLAN_CUES.isdisjoint(words) and _PLAN.search(statement.lower):
        return "plan"
    if not _OBSERVATION_CUES.isdisjoint(words) and _OBSERVATION.search(statement.lower):
        return "observation"
    return None


def _repeats(content: frozenset[str], kept: list[frozenset[str]]) -> bool:
    size = len(content)
    return any(len(content & other) >= REPEATED_FROM * min(size, len(other)) for other in kept)
