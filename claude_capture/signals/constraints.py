"""Constraints: statements that limit what may be done, or how it must be done or look.

The prompt and the agent's own words are read with different rules. A person states limits as orders ("don't touch
the tests", "only the standard library", "make sure …"). An agent mostly plans, and "I need to read the file" limits
nothing; of its words only prohibitions, restated wishes of the user and hard facts of the environment count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from claude_capture.claude_trace_schema import Constraint, SignalSource
from claude_capture.signals.constraint_slots import constraint_slot
from claude_capture.signals.cued_rules import CuedRules
from claude_capture.signals.sentences import Statement, word_set
from claude_capture.signals.trace_reading import TraceReading


class _Rule(NamedTuple):
    name: str
    kind: str
    cues: frozenset[str]
    pattern: re.Pattern[str]


def _rule(name: str, kind: str, cues: str, pattern: str) -> _Rule:
    return _Rule(name, kind, word_set(cues), re.compile(pattern))


# Where an order may begin: at the start, after a break, or after a word that opens an order.
_ORDER = r"(?:^[\W_]*|[,;:(—–]\s*[\W_]*|\s[-–—]\s|\b(?:and|but|please|so|also|then|or|just)\s+[*_]*)(?:please\s+)?"
_WHOLE = (
    r"(?:it|this|that|them|everything|things|all|the|my|our|your|their|its|any|each|to|with|within|in|under|a|an"
    r"|\w+ing)"
)
_SAME = (
    r"(?:same|simple|as[- ]is|unchanged|intact|untouched|alone|minimal|small|short|concise|brief|existing|compatib\w*"
    r"|\w+[- ]free|below|within|under|original|current|format|style|conventions?|(?:file)?names?|structure|layout"
    r"|behaviou?rs?|apis?|public|signatures?|interfaces?|order(?:ing)?|separate|generic|private|consistent\w*"
    r"|readable|scope|sync|\d+)"
)
_ACTIONS = (
    r"(?:use|using|modify|write|edit|change|run|install|import|execute|push|delete|remove|add|rename|create|touch"
    r"|commit"
    r"|merge|alter|update|call|rely|assume|depend|connect|exceed|contain|include|have|break|deploy|make\s+(?:any"
    r"|changes)"
    r"|transfer|mix|mutate|overwrite|download|fetch|reach|be\s+(?:\w+ly\s+)?(?:used|imported|modified|changed"
    r"|edited|run"
    r"|installed|deleted|removed|renamed|created|committed|shared|null|empty|larger|longer|more|less|combined|reused"
    r"|overwritten|undone|nested|touched))"
)
_FORMATS = (
    r"(?:json\w*|yaml|toml|csv|tsv|markdown|xml|html|plain\s?text|bullet(?:ed)?\s?(?:points?|lists?)"
    r"|a\s+(?:markdown\s+)?table"
    r"|(?:british|american|plain|simple)\s+english|english|german|french|spanish|snake_case|camelcase|kebab-case"
    r"|iso[- ]?8601|utc|utf-?8|lower\s?case|upper\s?case|title\s?case|imperative\s+mood|present\s+tense)\b"
)
_PLATFORM = (
    r"(?:python|node(?:\.?js)?|java|golang|go|rust|php|ruby|django|flask|react|next(?:\.?js)?|vue|angular"
    r"|postgres(?:ql)?"
    r"|mysql|sqlite|ubuntu|debian|macos|windows|linux|chrome|safari|firefox|ecmascript|es|c\+\+|gcc|clang"
    r"|typescript|npm"
    r"|cuda|pytorch|numpy|pandas|pydantic|android|ios|jdk|\.net)"
)
_VERSION = (
    rf"\b{_PLATFORM}\s*(?:versions?\s*)?(?:[v>=<~^]+\s*)*\d+(?:\.\d+|\.x)*\s*"
    r"(?:\+|or\s+(?:later|newer|higher|above|lower|older)|and\s+(?:above|up|later|newer)|only)"
    rf"|\b(?:requires?|needs?|support|target(?:s|ing)?|must\s+run\s+on|stay\s+on|works?\s+(?:on|with)"
    rf"|compatible\s+with)\s+"
    rf"(?:at\s+least\s+)?{_PLATFORM}\s*(?:versions?\s*)?[v>=<~^]*\s*\d"
    r"|requires-python|minimum\s+version"
)
_COMPATIBLE = (
    r"(?:backwards?|forwards?|drop-in)[- ]compatib|compatible\s+with|cross[- ](?:platform|browser)"
    r"|platform[- ](?:independent|agnostic)"
)
_QUANTITY = (
    r"(?:\b(?:at\s+most|at\s+least|no\s+more\s+than|no\s+fewer\s+than|no\s+less\s+than|not\s+more\s+than"
    r"|no\s+longer\s+than|fewer\s+than|less\s+than|up\s+to|under|within|below|maximum(?:\s+of)?|max\.?"
    r"|minimum(?:\s+of)?"
    r"|limit(?:ed)?\s+(?:of|to|is)|capped\s+at|exceed(?:s|ing)?|budget\s+of|timeout\s+of)\s+(?:of\s+|the\s+)?"
    r"|[<>≤≥]=?\s?)"
)

_USER_RULES = (
    _rule(
        "user_forbids",
        "forbidden",
        "don't not never avoid refrain dont",
        _ORDER + r"(?:(?:do\s+[*_]*not[*_]*|don't|dont|never|refrain\s+from|avoid)\s+(?:ever\s+)?)"
        r"(?!worry|forget|hesitate|mind\b|know|think|see\b|understand|have\b|believe|get\s|like\b|care\b|seem"
        r"|need\b|mean\b"
        r"|exist|work\b|want\b|really|feel|recall|remember|show\s+up|appear|contain|match|seems)(?=\w)",
    ),
    _rule(
        "user_does_not_want",
        "forbidden",
        "don't not wouldn't rather",
        r"\b(?:i|we)\s+(?:really\s+|also\s+)?(?:do\s+not|don't|wouldn't|would\s+not)\s+(?:want"
        r"|like)\s+(?!to\s+(?:know|ask|miss))"
        r"|\b(?:i|we)(?:'d|\s+would)\s+rather\s+(?:not|you|keep)",
    ),
    _rule(
        "user_prohibits",
        "forbidden",
        "not mustn't shouldn't cannot can't forbidden prohibited limits allowed permitted",
        r"\b(?:must|should|shall|may)\s+(?:[*_]*not[*_]*|never)\b|\bmustn't\b"
        r"|\bshouldn't\s+(?!be\s+(?:hard|too|difficult|a\s+(?:problem|big)|that)|take\s+(?:long|too)|it\b|we\b"
        r"|you\b|matter)"
        r"|\b(?:you|we|it|they)\s+(?:cannot|can't"
        r"|can\s+not)\s+" + _ACTIONS + r"\b|\boff[- ]limits\b"
                                                                              r"|\b(?:forbidden|prohibited)\b"
        r"|\bnot\s+(?:allowed|permitted)\b",
    ),
    _rule(
        "user_demands",
        "required",
        "must should needs need has have shall required ought",
        r"(?<!\bi\s)(?<!\bwe\s)(?<!\bif\s)\b(?:must(?!\s+(?:have\s+been|not|never))"
        r"|should(?!\s+(?:be\s+(?:fine|ok|okay|enough|easy|able|possible|straightforward|good|working|the\s+case)"
        r"|work\b|i\b|we\b|it\b|you\b|they\b|not\b|never\b|have\b|probably|see\b))"
        r"|(?:it|they|output|result|file|function|code|page|command|script|answer|response|solution|everything"
        r"|this|that"
        r"|commits?|messages?|names?|which|all)\s+(?:only\s+)?(?:needs?|has|have)\s+to\b(?!\s+(?:do|go)\b)"
        r"|shall\b(?!\s+(?:i|we)\b)"
        r"|(?:is|are)\s+(?:required|mandatory))",
    ),
    _rule(
        "user_insists",
        "required",
        "make making ensure ensuring sure forget careful always mandatory",
        r"\b(?:make|making|be)\s+sure\b(?!\s+(?:why|if|what|how))|\bensur(?:e|ing)\b|\b(?:don't|do\s+not)\s+forget\b"
        r"|\bbe\s+careful\b|" + _ORDER + r"always\s+\w",
    ),
    _rule(
        "user_restricts",
        "scope",
        "only exclusively solely nothing except apart but limit restrict",
        _ORDER + r"only\s+(?!if\s+it|the\s+(?:problem|issue|thing)|thing|problem|issue|then|a\s+few)(?=\w)"
        r"|\b(?:must|should|can|may|will|to|shall|could|would|please)\s+only\s+\w"
        r"|\b(?:use|using|change|edit|modify|touch|look|search|work|with|include|return|output|reply|respond"
        r"|answer|give|show"
        r"|list|run|read|write|in|from|on|of|uses|import|at|to|for|query|consider|check)\s+only\b(?!\s+(?:problem"
        r"|issue))"
        r"|\bonly\s+(?:the\s+)?(?:standard\s+library|stdlib|built-?ins?|in\s+the|from\s+the|use|using|with)\b"
        r"|\b(?:exclusively|solely)\b|\bnothing\s+(?:but|else)\b|\bexcept\s+(?:for|in|the)\b|\bapart\s+from\b"
        r"|\b(?:limit|restrict)\s+(?:it|this|that|yourself|the|your|changes|them)\b"
        r"|\w\s+only(?:[.,;)]|$)",
    ),
    _rule(
        "user_keeps",
        "scope",
        "keep keeping leave leaving preserve preserving maintain maintaining retain stick sticking stay staying as",
        r"\b(?:keep(?:ing)?|leav(?:e|ing)|preserv(?:e|ing)|maintain(?:ing)?|retain(?:ing)?|stick(?:ing)?"
        r"|stay(?:ing)?)\s+"
        rf"(?:(?:{_WHOLE}|only)\s+(?:[\w./`'’-]+\s+){{0,6}}?)??{_SAME}\b"
        r"|\bstick(?:ing)?\s+(?:to|with)\b|\bas\s+(?:we|it|they)\s+(?:do|does|did|is|was|are)\s+(?:now|before"
        r"|today|currently)",
    ),
    _rule(
        "user_excludes",
        "forbidden",
        "without",
        r"\bwithout\s+(?:\w+ing\b(?!\s+to\s+know)|any\b|external\b|extra\b|additional\b|new\b|third[- ]party\b"
        r"|sudo\b|root\b"
        r"|network\b|internet\b|a\s+(?:build|new|separate|server|framework|library)\b)",
    ),
    _rule(
        "user_rules_out",
        "forbidden",
        "no free zero",
        r"(?:^[\W_]*|[,;(—–]\s*|\b(?:and|use)\s+)(?:no|zero)\s+(?!conflicts?\b|changes?\s+(?:yet|so)|problem"
        r"|worries|idea|need\b|matter|thanks|longer|one\b"
        r"|errors?\b|output|results?\b|such|clue|more\s+than|fewer|less|doubt|luck|way\b|wonder|worry|issues?\b"
        r"|rush|i\b|it\b"
        r"|the\b|that|this|we\b|you\b|\w+\s+(?:is|are|was|were|on|found|exists?|state|across|expected)\b)[a-z]"
        r"|\b(?:dependency|compilation|build|allocation|lock)[- ]free\b",
    ),
    _rule("limit", "limit", "at no not fewer less up under within below maximum max minimum limit limited capped "
                            "exceed exceeds "
          "budget timeout", _QUANTITY + r"[~≈]?\$?\d"),
    _rule(
        "user_sizes",
        "limit",
        "words word lines line sentence sentences characters bullet bullets points paragraph paragraphs pages "
        "items minutes "
        "seconds hours",
        r"\b\d+\s*(?:[-–]|to)\s*\d+\s+(?:bullet\s+points?|words|lines|sentences|characters|bullets|points"
        r"|paragraphs|pages|items)"
        r"|\bin\s+(?:exactly\s+)?(?:one|two|three|four|five|a\s+single|\d+)\s+(?:short\s+)?(?:sentences?|words?"
        r"|lines?|paragraphs?)"
        r"|\b(?:exactly|precisely)\s+(?:\w+)\s+(?:words?|lines?|sentences?|items?|points?|paragraphs?)"
        r"|\b(?:one|a\s+single)\s+\w+\s+per\s+\w+",
    ),
    _rule(
        "user_formats",
        "format",
        "json jsonl yaml toml csv tsv markdown xml html plain bullet bullets bulleted table english german french "
        "spanish case "
        "camelcase utc utf iso mood tense format convention style",
        r"\b(?:in|as|to|into)\s+(?:the\s+)?(?:valid\s+|raw\s+|pure\s+|one\s+|strict\s+|proper\s+)?" + _FORMATS
        + r"|\b(?:in|use|using|follow\w*|with)\s+(?:the\s+|this\s+|exactly\s+this\s+|a\s+)?(?:following\s+|same\s+"
          r"|exact\s+)?"
        r"(?:\w+\s+)?(?:format|naming\s+convention|style\s+guide|coding\s+style)\b"
        r"|\buse\s+(?:british|american|plain)\s+english\b",
    ),
    _rule("version", "version", "python node nodejs java golang go rust php ruby django flask react next vue "
                                "angular postgres "
          "postgresql mysql sqlite ubuntu debian macos windows linux chrome safari firefox ecmascript es c gcc "
          "clang typescript "
          "npm cuda pytorch numpy pandas pydantic android ios jdk net requires minimum", _VERSION),
    _rule("compatibility", "version", "compatible compatibility backward backwards cross platform", _COMPATIBLE
          + r"|\b(?:backwards?\s+compatibility|compatib\w+\s+with)"
          r"|\bworks?\s+(?:on|in|with|across)\s+(?:all|both|any|every|older|old)\b"),
    _rule(
        "permission",
        "permission",
        "read approval permission ask wait confirm confirmation plan consent",
        r"\bread[- ]only\b|\b(?:ask|check\s+with|confirm\s+with)\s+(?:me|us)\s+(?:first\b|before|for)"
        r"|\bask\s+before\b|\bwait\s+for\s+(?:my|me|approval|confirmation)\b"
        r"|\b(?:need|require|get|without|requires?)\s+(?:\w+\s+)?(?:my|explicit|prior)\s+(?:approval|permission"
        r"|consent|confirmation)"
        r"|\bbefore\s+(?:you\s+)?(?:commit|push|delet|deploy|merg)\w*[^.]{0,20}\bask\b",
    ),
    _rule(
        "environment",
        "environment",
        "network internet offline sandbox sandboxed air supported available installed root sudo gpu docker "
        "standard stdlib",
        r"\bno\s+(?:network|internet|gpu|root|sudo|docker)\b|\boffline\b|\bair[- ]gapped\b|\bsandboxed?\b"
        r"|\b(?:is|are)(?:n't|\s+not)\s+(?:supported|available|installed|writable|reachable)\b"
        r"|\bstandard\s+library\s+only\b",
    ),
    _rule(
        "user_names_tool",
        "required",
        "instead rather not use using prefer",
        _ORDER + r"use\s+[^.,;]{1,60}?\s*(?:,\s*not|\binstead\s+of|\brather\s+than)\s|" + _ORDER + r"prefer\s+\w",
    ),
)  # fmt: skip

_AGENT_RULES = (
    _rule(
        "agent_must_not",
        "forbidden",
        "not mustn't shouldn't never",
        r"\b(?:must|should)\s+(?:[*_]*not[*_]*|never)\s+(?!be\s+(?:hard|a\s+problem|difficult|too)|appear|happen"
        r"|occur|affect|matter"
        r"|cause|exist|take\b|fail\b|be\s+(?:any|there|an?\s+issue)|have\s+(?:been|any))(?=\w)"
        r"|\bmustn't\b|\b(?:i|we|you)\s+shouldn't\s+(?!be\s+(?:hard|too|able)|have\b|see\b|need\b|expect)(?=\w)",
    ),
    _rule(
        "agent_cannot",
        "environment",
        "cannot can't not",
        r"(?<!\bthat\s)\b(?:cannot|can't|can\s+not)\s+(?:\w+ly\s+)?" + _ACTIONS + r"\b",
    ),
    _rule(
        "agent_must",
        "required",
        "must has have",
        r"(?<!\bi\s)(?<!\bwe\s)\bmust\s+(?:also\s+|always\s+|only\s+)?(?:be\s+(?!the\b|a\s|an\s|because|due|that"
        r"|something|some\s|\w+ing\b"
        r"|missing|related|wrong|somewhere|where|why|how|what|in\b|from)|(?!have\s+been|be\b|have\s+(?:changed"
        r"|failed)|not\b|never\b)[a-z])"
        r"|\b(?:has|have)\s+to\s+(?:be|stay|remain|match|fit)\b(?<!\bi\shave\sto\sbe)",
    ),
    _rule(
        "agent_restates_user",
        "required",
        "user user's constraint constraints requirement instructions preferences instruction spec",
        r"\buser\b[^.]{0,40}?\b(?:said\s+(?:no\b|not\b|to\s+keep|only)|doesn't\s+want|does\s+not\s+want|did(?:n't"
        r"|\s+not)\s+want"
        r"|prefers?\b|insist|forb|told\s+me\s+not|asked\s+(?:me\s+)?(?:not\s+to|to\s+(?:keep|only|avoid|leave"
        r"|use\s+only))"
        r"|(?:explicitly|specifically)\s+(?:said|asked|wants?|requested|mentioned|told|stated)|requires?\b"
        r"|wants?\s+(?:it\s+|this\s+|me\s+|them\s+)?(?:to\s+)?(?:keep|avoid|only|be\s+(?:able|kept)|no\b|not\b"
        r"|leave))"
        r"|\buser\b[^.]{0,60}?\bwants?\b[^.]{0,80}?\b(?:only|without|not\s+just|rather\s+than|must|doesn't"
        r"|cross-\w+)\b"
        r"|\bas\s+(?:per|requested\s+in)\s+(?:the\s+)?user\b|\bper\s+(?:the\s+)?(?:\w+\s+)?(?:instructions?|spec"
        r"|requirements?|guidelines|rules)\b"
        r"|\bgiven\s+the\s+(?:\w+\s+)?constraints?\b|\bconstraints?\s+(?:is|are|of|that)\b|\bkey\s+constraints?\b"
        r"|\brequirement\s+(?:is|that)\b|\buser's\s+(?:global\s+)?(?:preferences?|constraints?|instructions?)\b",
    ),
    _rule(
        "agent_keeps",
        "scope",
        "keep keeping preserve preserving maintain",
        r"(?:^[\W_]*|\b(?:while|must|should|need\s+to|wants?\s+(?:me\s+)?to|have\s+to|and|to|but)\s+)"
        r"(?:keep(?:ing)?|preserv(?:e|ing)|maintain(?:ing)?)\s+"
        rf"(?:{_WHOLE}\s+(?:[\w./`'’-]+\s+){{0,5}}?){_SAME}\b",
    ),
    _rule(
        "agent_restricts",
        "scope",
        "only limited restricted scope solely exclusively free",
        r"\b(?:must|should|can|may|allowed\s+to|permitted\s+to|supposed\s+to"
        r"|asked\s+(?:me\s+)?to)\s+only\s+(?!be\s+a\b|tell|see|find|guess)"
        r"|\bonly\s+(?:allowed|permitted|supports?|accepts?|works?\s+(?:with|on|in)|available\s+(?:in|on|for|to))\b"
        r"|\b(?:allowed|permitted|supported)\s+only\b|\bonly\s+(?:the\s+)?(?:standard\s+library|stdlib)\b"
        r"|\b(?:use|using|change|edit|modify|touch)\s+only\b|\b(?:limited|restricted)\s+to\s+(?!this\s+issue)"
        r"|\b(?:dependency|compilation)[- ]free\b",
    ),
    _rule(
        "agent_without",
        "forbidden",
        "without",
        r"(?:\b(?:wants?|asked|asking|need(?:s|ed)?|should|must|have\s+to|has\s+to|requires?|prefer)\b[^.;]{0,90}?)"
        r"\bwithout\s+(?:\w+ing|any|external|extra|additional|new|third[- ]party|a\s+(?:build|new|separate))\b",
    ),
    _rule("limit", "limit", "at no not up within maximum max limit limited capped exceed exceeds timeout rate words",
          r"\b(?:returns?|allows?|accepts?|must|should|can|may|limit(?:ed)?|range|target|budget|cap(?:ped)?|stay"
          r"|max(?:imum)?|api|supports?)"
          r"\b[^.;]{0,50}?" + _QUANTITY + r"[~≈]?\$?\d|\b(?:rate|size|token|context|character|word|line)[- ]limit\b"
          r"|\d+\s*[-–]\s*\d+[- ]?(?:\w+\s+){0,2}(?:target|limit|range)\b|\b(?:target|limit)\s+(?:of|is"
          r"|range)\s+[~≈]?\d"),
    _rule("version", "version", "python node nodejs java go rust postgres sqlite windows macos linux requires "
                                "minimum chrome",
          _VERSION),
    _rule("compatibility", "version", "compatible compatibility backward backwards cross",
          r"\b(?:must|need(?:s)?\s+to|should|wants?|to|for|ensure|has\s+to|maintain|preserve"
          r"|break(?:ing)?)\s+(?:\w+\s+){0,3}?"
          r"(?:(?:backwards?|forwards?)[- ]compatib\w+|compatible\s+with|cross[- ](?:platform|browser))"),
    _rule(
        "permission",
        "permission",
        "read approval permission permissions allowed permitted plan granted sandbox",
        r"(?<!-level\s)\bread[- ]only\b(?!\s+(?:operations?|search|safety))|\brequires?\s+(?:your\s+|user\s+"
        r"|explicit\s+|manual\s+)?(?:approval|permissions?|root|sudo|admin)"
        r"|\b(?:need|without)\s+(?:your|the\s+user's|explicit|user)\s+(?:approval|permission|consent|confirmation)"
        r"|\bnot\s+(?:allowed|permitted)\s+to\b|\b(?:am|are|is|we're|i'm)\s+(?:still\s+)?in\s+plan\s+mode\b"
        r"|\bpermissions?\s+(?:was|were|is|are)\s+denied\b"
        r"|\bunless\s+(?:explicitly\s+)?(?:asked|told|requested|the\s+user)\b",
    ),
    _rule(
        "environment",
        "environment",
        "network internet offline sandbox sandboxed supported available installed unavailable such requires isn't "
        "not possible",
        r"(?:^|[,;:—]\s*|\bthere(?:'s|\s+is)\s+|\bhave\s+|\bhas\s+|\bwith\s+)no\s+(?:network|internet|root|sudo"
        r"|docker|gpu)\b(?:\s+access)?"
        r"|\b(?:is|are)(?:n't|\s+not)\s+(?:\w+ly\s+)?(?:supported|available|installed|writable|reachable"
        r"|permitted)\b(?!\s+yet\b)"
        r"|\bnot\s+(?:available|supported|possible)\s+(?:in|on|by|here|for)\b|\bunavailable\s+(?:in|on|here)\b"
        r"|\bunsupported\s+(?:in|on|by)\b"
        r"|\brequires?\s+(?:a\s+)?(?:separate|authentication|https|network|internet)\b",
    ),
)  # fmt: skip

_USER = CuedRules([(rule.cues, rule) for rule in _USER_RULES])
_AGENT = CuedRules([(rule.cues, rule) for rule in _AGENT_RULES])
_SUMMARY_RULES = frozenset({"agent_must_not", "agent_cannot", "permission", "version"})
_REQUEST = re.compile(
    r"\b(?:can|could|would|will)\s+(?:you|we)\b|\bplease\b|\bmind\b|\b(?:would|is|do\s+you\s+think)\s+there(?:'s"
    r"|\s+be|\s+is)?\b"
)
_SUPPOSITION = re.compile(
    r"\b(?:if|when|whether|unless|in case|checks?|tests?|ensures?|verif(?:y|ies)|handles?)\b[^,;:]*$"
)
_PAST = re.compile(
    r"^[\W_]*(?:added|fixed|updated|removed|created|changed|implemented|made|replaced|improved|kept|tests?"
    r"|verified)\b"
)
_BREAK_BEFORE = re.compile(
    r"[;:()—–]\s|[(—]|,\s|[.!?]\s|\s[-–]\s|\b(?:but|however|because|although)\s|\s(?:and|so)\s(?=don't|do\s|never"
    r"|only|no\s)"
)
_BREAK_AFTER = re.compile(
    r"[;()—–]|:\s|[.!?](?:\s|$)|\s[-–]\s|,\s+(?=(?:and|but|so|then|which|no|don't|do|only|without|must|never|or|it"
    r"|i|we|you|the user)\b)"
    r"|\s(?:but|because|since|however|so)\s|\s(?:and|then)\s(?=don't|do\snot|never|only|no\s|please|make\s|keep\s"
    r"|use\s|without)"
)
_BARE_SLOTS = frozenset({"", "not", "only", "not only", "max", "min"})
_LONGEST = 200


def find_constraints(reading: TraceReading) -> list[Constraint]:
    """Every constraint of the prompt (step −1) and of the agent's thinking and text, in reading order."""
    found = list(_scan(reading.prompt, _USER, -1, "user", False))
    for message in reading.messages:
        seen: set[str] = set()
        for source, statements in message.passages():
            summary = message.is_summary and source == "text"
            for item in _scan(statements, _AGENT, message.index, source, summary):
                if item.slot not in seen:
                    seen.add(item.slot)
                    found.append(item)
    return found


def _scan(
    statements: Sequence[Statement],
    rules: CuedRules[_Rule],
    step: int,
    source: SignalSource,
    summary: bool,
) -> Iterator[Constraint]:
    slots: set[str] = set()
    for statement in statements:
        candidates = rules.candidates(statement.words)
        if not candidates:
            continue
        if statement.question and (source != "user" or not _REQUEST.search(statement.lower)):
            continue
        if source != "user" and (statement.bullet or summary) and _PAST.match(statement.lower):
            continue
        taken: list[tuple[int, int]] = []
        for rule in candidates:
            if summary and rule.name not in _SUMMARY_RULES:
                continue
            for match in rule.pattern.finditer(statement.lower):
                if source != "user" and _SUPPOSITION.search(statement.lower, 0, match.start()):
                    continue
                start, end = _clause(statement.lower, match.start(), match.end())
                if any(start < other_end and other_start < end for other_start, other_end in taken):
                    continue
                slot = constraint_slot(statement.text[start:end])
                if slot in _BARE_SLOTS:
                    start, end = 0, len(statement.text.rstrip(" .,;:!?*_"))
                    slot = constraint_slot(statement.text[start:end])
                if slot in _BARE_SLOTS or slot in slots:
                    continue
                slots.add(slot)
                taken.append((start, end))
                yield Constraint(
                    step=step,
                    quote=statement.text[start:end],
                    source=source,
                    rule=rule.name,
                    start=statement.start + start,
                    end=statement.start + end,
                    kind=rule.kind,
                    slot=slot,
                )


def _clause(lower: str, start: int, end: int) -> tuple[int, int]:
    """The clause around a match: from the last break before it to the first one after it."""
    while start < end and not lower[start].isalnum():
        start += 1
    begin = 0
    for stop in _BREAK_BEFORE.finditer(lower, 0, start):
        begin = stop.end()
    following = _BREAK_AFTER.search(lower, end)
    finish = following.start() if following else len(lower)
    if start - begin > _LONGEST:
        begin = start
    finish = min(finish, start + _LONGEST)
    while begin < finish and not (lower[begin].isalnum() or lower[begin] in "`\"'/."):
        begin += 1
    while finish > begin and lower[finish - 1] in ' ,.;:!?*_"':
        finish -= 1
    return begin, finish
