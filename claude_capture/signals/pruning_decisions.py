"""Pruning decisions: the agent names an approach, hypothesis, place or tool and dismisses it before carrying it out.

Two things must come together in one sentence, or in two that follow each other: something named, and its dismissal.
Choosing ("I'll use B") without dismissing a named other is not pruning; neither is mending what was already done,
nor reporting a finished replacement ("uses B instead of A").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from claude_capture.claude_trace_schema import PruningDecision, SignalSource
from claude_capture.signals.cued_rules import CuedRules
from claude_capture.signals.sentences import Statement, word_set
from claude_capture.signals.trace_reading import TraceReading


class _Rule(NamedTuple):
    name: str
    cues: frozenset[str]
    pattern: re.Pattern[str]


def _rule(name: str, cues: str, pattern: str) -> _Rule:
    return _Rule(name, word_set(cues), re.compile(pattern))


_VERDICT = (
    r"(?:overkill|over-?engineer\w*|too\s+(?:complex|complicated|heavy|heavyweight|risky|slow|invasive|expensive"
    r"|brittle|fragile"
    r"|broad|aggressive|costly|hacky|disruptive|verbose|big\s+a\s+change)|not\s+worth\s+(?:it|the|doing)"
    r"|impractical|unworkable"
    r"|(?:not|isn't|wouldn't\s+be)\s+(?:\w+ly\s+)?(?:an\s+option|viable|feasible|suitable|practical|workable"
    r"|applicable|worth\s+(?:it|the))"
    r"|out\s+of\s+scope|beyond\s+(?:the\s+)?scope|(?:a\s+)?(?:bigger|larger|separate)\s+(?:undertaking|effort"
    r"|project|refactor(?:ing)?))"
)
_OBSTACLE = (
    r"(?:would(?:n't|\s+not)?\s+(?:\w+ly\s+)?(?:\w+)|will\s+not|won't|doesn't|does\s+not|don't|can't|cannot|isn't"
    r"|is\s+not"
    r"|(?:would\s+)?(?:requires?|needs?|breaks?|means|adds?|loses?|misses|fails?|conflicts?|changes?|costs?)"
    r"|(?:is|seems|feels|looks|'s)\s+(?:\w+\s+)?(?:too|overkill|more\s+complex|more\s+work|risky|slow|fragile"
    r"|brittle|messy|wrong|for\s|only\s+for))"
)
_OPTION = r"(?:option|approach|alternative|solution|route|idea|possibility|hypothesis|strategy|method)"

_RULES = (
    _rule(
        "considered_but",
        "could might considered alternative option approach one tempting thought maybe possibility idea consider",
        rf"(?:\b(?:i|we|one|you)\s+(?:could|might|considered|thought\s+(?:about|of))\s+(?:also\s+|just\s+"
        rf"|try\s+)?(?P<option>[^;]{{3,110}}?)"
        rf"|\b(?:one|another|an?|the|first|second|other)\s+(?:\w+\s+)?{_OPTION}\s+(?:is|would\s+be|could\s+be"
        rf"|might\s+be)\s+(?:to\s+)?(?P<option2>[^;]{{3,110}}?)"
        r"|\b(?:it(?:'s|\s+is)\s+)?tempting\s+to\s+(?P<option3>[^;]{3,110}?))"
        rf"[,;]?\s*[—–(-]?\s*\b(?:but|however|though|although|yet"
        rf"|except)\b,?\s*(?P<reason>.{{0,60}}?\b(?:{_OBSTACLE}|{_VERDICT})\b.*)",
    ),
    _rule(
        "option_dismissed",
        "option approach alternative solution route idea strategy method possibility hypothesis",
        rf"\b(?P<option>(?:{_OPTION}\s+(?:[a-e]|\d|one|two|three)|(?:that|this|the|a"
        rf"|another)\s+(?:[\w-]+\s+){{0,3}}?{_OPTION}))\b"
        rf"[^;]{{0,40}}?\s*(?P<reason>(?:would\s+(?:need|require|break|mean|add|force|not)|wouldn't|won't\s+work"
        rf"|doesn't\s+work"
        rf"|(?:is|seems|would\s+be|feels)\s+(?:\w+\s+)?{_VERDICT}).*)",
    ),
    _rule(
        "verdict_against",
        "overkill overengineered overengineering over too worth impractical unworkable option viable feasible "
        "suitable practical "
        "workable applicable scope undertaking effort project refactor refactoring",
        rf"(?P<option>\b[\w`'\"./()-]+(?:\s+[\w`'\"./()-]+){{0,9}}?)\s+(?:is|are|would\s+be|seems|feels|looks"
        rf"|sounds|might\s+be|isn't|'s)\s+"
        rf"(?:probably\s+|likely\s+|really\s+|just\s+|a\s+bit\s+|also\s+|clearly\s+"
        rf"|simply\s+)*(?P<reason>{_VERDICT}\b.*)",
    ),
    _rule(
        "not_worth",
        "worth",
        r"(?P<option>[^;]{3,110}?)[;,—–-]\s*(?:so\s+)?(?:it's\s+)?(?P<reason>not\s+worth\s+(?:it|the|doing)\b.*)",
    ),
    _rule(
        "ruled_out",
        "rule ruled ruling rules dismiss dismissed discard discarded reject rejected rejecting eliminate eliminated",
        r"\b(?:rules?|ruled|ruling)\s+out\s+(?P<option>[^,;]+)|\b(?P<option2>[^,;]{3,80}?)\s+(?:is|are"
        r"|can\s+be)\s+(?:ruled\s+out|dismissed|discarded)"
        r"|\b(?:i(?:'ll|\s+will|'m)?|we(?:'ll)?|so)\s+(?:\w+\s+)?(?:dismiss|discard|reject|eliminate)(?:ed"
        r"|ing)?\s+(?P<option3>[^,;]+)",
    ),
    _rule(
        "not_the_cause",
        "not isn't wasn't aren't unrelated irrelevant",
        r"(?P<option>\b(?:that|this|it|these|those|the\s+[\w`./' -]{2,50}?|`[^`]+`))\s+(?:is|are|was|'s)(?:n't"
        r"|\s+not)\s+(?:actually\s+|really\s+|likely\s+)?"
        r"(?:the\s+(?:\w+\s+)?(?:cause|culprit|problem|issue|reason|caller|bug|one|source|right\s+(?:place|file"
        r"|one|approach|tool|function)|place)\b"
        r"|(?:it\b(?=[.,;]|$))|(?:related|relevant|involved|responsible|what\s+we(?:'re| are)\s+looking))"
        r"|(?P<option2>\b(?:that|this|it|these|those|the\s+[\w`./' -]{2,60}?|`[^`]+`))\s+(?:is|are|was|were|seems?"
        r"|looks?)\s+(?:probably\s+|likely\s+|all\s+)?"
        r"(?:unrelated|irrelevant|not\s+relevant|a\s+red\s+herring|pre-?existing)\b",
    ),
    _rule(
        "skipped",
        "skip skipping ignore ignoring",
        r"(?:\bso\s+(?:i(?:'ll|\s+will|\s+can)?\s+|we\s+can\s+|let's\s+)?|\b(?:i'll|i\s+will|i\s+can|we\s+can"
        r"|let\s+me|let's|can)\s+(?:safely\s+|just\s+)?)"
        r"(?:skip|ignore)\s+(?P<option>[^,;—]{2,80})(?:[,;—–-]\s*(?P<reason>.+)|\s+(?:since|because"
        r"|as)\s+(?P<reason2>.+))?"
        r"|(?:[,;—–]\s*|^)skip(?:ping)?\s+(?:it|this|that|them)\b",
    ),
    _rule(
        "not_needed",
        "need needed necessary unnecessary needn't required",
        r"\b(?:(?:i|we)\s+(?:actually\s+|really\s+)?(?:don't|do\s+not|won't|needn't)\s+(?:actually\s+|really\s+"
        r"|even\s+)?(?:need\s+)?(?:to\s+)?"
        r"|no\s+need\s+(?:to|for)\s+|there's\s+no\s+need\s+(?:to|for)\s+)(?P<option>(?<=need\s)[^,;—–]{3,90}?"
        r"|(?<=need\sto\s)[^,;—–]{3,90}?"
        r"|(?<=need\sfor\s)[^,;—–]{3,90}?)\s*(?:[,;—–-]+\s*|\s)(?:since|because|as\s|so\s|(?:i|we)\s+can\s+(?:just"
        r"|simply)|it\s+already|it's\s+already"
        r"|that's\s+already|given\s+that)(?P<reason>.*)"
        r"|\b(?P<option2>[^;,]{3,90}?)\s+(?:is|are|isn't|aren't|would\s+be|seems)\s+(?:really\s+"
        r"|probably\s+)?(?:unnecessary|not\s+(?:really\s+)?(?:needed|necessary)"
        r"|needed|necessary)\s+(?:here|since|because|as)(?P<reason2>.*)",
    ),
    _rule(
        "chosen_rather_than",
        "rather instead",
        r"\b(?:i'll|i\s+will|we'll|we\s+should|let's|let\s+me|i\s+should|better\s+to|prefer(?:\s+to)?|i'd"
        r"|safer\s+to|simpler\s+to|cleaner\s+to|going\s+to|best\s+to)\s+"
        r"[^;]{3,110}?\b(?:rather\s+than|instead\s+of)\s+(?P<option>[^,;]{3,90}?)(?:\s*[,;—–(-]+\s*|\s+)(?:since"
        r"|because|as\s|which\s+(?:would|is|will|needs|could)|so\s+that"
        r"|to\s+(?:avoid|keep|preserve|prevent))(?P<reason>.*)"
        r"|\b(?:i'll|i\s+will|we'll|let's|i'd|prefer(?:\s+to)?|better\s+to|simpler\s+to"
        r"|best\s+to)\s+[^;]{3,110}?\brather\s+than\s+(?P<option2>\w+ing\b[^,;]{0,90})",
    ),
    _rule(
        "will_not_work",
        "work works help possible apply",
        r"(?P<option>\b(?:a|an|the|using|just|simply|that|this|it|`[^`]+`|\w+ing)\b[^;,]{0,80}?)\s+(?:won't"
        r"|wouldn't|would\s+not|will\s+not|can't|cannot)\s+"
        r"(?:\w+ly\s+)?(?:work|help|apply|be\s+possible|catch|cover|handle|suffice|scale)\b(?P<reason>.*)",
    ),
    _rule(
        "postponed",
        "now later",
        r"\b(?:keep(?:ing)?|leave|leaving|stick(?:ing)?\s+with"
        r"|go(?:ing)?\s+with)\s+[^;]{2,60}?\s+for\s+now\s*(?:[,;—–-]\s*)?(?:since|because|as"
        r"|and\s+not)\s+(?P<reason>.+)",
    ),
    _rule(
        "was_not_asked",
        "didn't not",
        r"\b(?:user|they)\s+(?:didn't|did\s+not)\s+ask\s+(?:me\s+)?(?:to|for)\s+(?P<option>[^,;]+)",
    ),
)
_CUED = CuedRules([(rule.cues, rule) for rule in _RULES])

_NAMED = re.compile(
    rf"\b(?:i|we|one|you)\s+(?:could|might|can\s+(?:also|either))\s+(?P<option>[^;:]{{4,110}})|\b(?:maybe"
    rf"|perhaps)\s+(?P<option2>[^;:]{{6,110}})"
    rf"|\b(?:one|another|an?|first|second)\s+(?:\w+\s+)?{_OPTION}\s*(?:\d\s*)?(?:is|would\s+be|could\s+be"
    rf"|:)\s*(?:to\s+)?(?P<option3>[^;]{{4,110}})"
)
_NAMED_CUES = frozenset({"could", "might", "maybe", "perhaps", "option", "approach", "alternative", "can"})
_TURNED_DOWN = re.compile(
    r"^[\W_]*(?:but|however|though|although|unfortunately|still|yet|that|this|it)\b,?\s*(?P<reason>"
    rf"(?:(?:that|this|it)\s+)?.{{0,90}}?\b(?:wouldn't|would\s+(?:need|require|break|mean|add|force|not)|won't"
    rf"|doesn't\s+work"
    rf"|(?:is|are|seems)\s+(?:too|{_VERDICT})|(?:isn't|not)\s+(?:worth|feasible|possible|straightforward|ideal"
    rf"|practical|enough)"
    r"|requires?|breaks?|(?:a|the)\s+(?:challenge|catch|downside)|fails\s+(?:on|for|when)|can't|cannot)\b.*)"
)
_TURNED_DOWN_CUES = word_set("but however though although unfortunately still yet that this it")
_DONE = re.compile(
    r"\b(?:test|tests|error|command|edit|build|it|that|this)\s+(?:still\s+)?(?:failed|fails|didn't\s+work"
    r"|is\s+still)\b|\bi\s+(?:was\s+wrong|already\s+did)\b"
)
_SUPPOSITION = re.compile(r"\b(?:if|when|whether|unless|in\s+case)\s[^,;:]*$")


def find_pruning_decisions(reading: TraceReading) -> list[PruningDecision]:
    """Every dismissal in the agent's thinking and text, one per statement, in reading order."""
    found: list[PruningDecision] = []
    for message in reading.messages:
        seen: set[str] = set()
        for source, statements in message.passages():
            if message.is_summary and source == "text":
                statements = [statement for statement in statements if not statement.bullet]
            for item in _scan(statements, message.index, source):
                key = item.option.lower()[:40] or item.quote.lower()[:60]
                if key not in seen:
                    seen.add(key)
                    found.append(item)
    return found


def _scan(statements: Sequence[Statement], step: int, source: SignalSource) -> list[PruningDecision]:
    found: list[PruningDecision] = []
    previous: Statement | None = None
    for statement in statements:
        item = None
        if not statement.question:
            item = _judge(statement, step, source)
            if item is None and previous is not None and not _TURNED_DOWN_CUES.isdisjoint(statement.words):
                item = _judge_pair(previous, statement, step, source)
        if item is not None:
            found.append(item)
        previous = statement
    return found


def _judge(statement: Statement, step: int, source: SignalSource) -> PruningDecision | None:
    for rule in _CUED.candidates(statement.words):
        match = rule.pattern.search(statement.lower)
        if match is None or _DONE.search(statement.lower) or _SUPPOSITION.search(statement.lower, 0, match.start()):
            continue
        return PruningDecision(
            step=step,
            quote=statement.text,
            source=source,
            rule=rule.name,
            start=statement.start,
            end=statement.end,
            option=_group(statement, match, "option"),
            reason=_group(statement, match, "reason"),
        )
    return None


def _judge_pair(first: Statement, second: Statement, step: int, source: SignalSource) -> PruningDecision | None:
    """An option named in one sentence and turned down in the next; the quote is the second one."""
    if _NAMED_CUES.isdisjoint(first.words):
        return None
    named = _NAMED.search(first.lower)
    if named is None:
        return None
    turned_down = _TURNED_DOWN.match(second.lower)
    if turned_down is None:
        return None
    return PruningDecision(
        step=step,
        quote=second.text,
        source=source,
        rule="named_then_turned_down",
        start=second.start,
        end=second.end,
        option=_group(first, named, "option"),
        reason=_group(second, turned_down, "reason"),
    )


def _group(statement: Statement, match: re.Match[str], name: str) -> str:
    """Text of the first group `name`, `name2`, … that took part in the match, else an empty string."""
    for key, value in match.groupdict().items():
        if value and key.rstrip("23") == name:
            start, end = match.span(key)
            return statement.text[start:end].strip(" ,;:—–-()*")
    return ""
