"""The rules by which constraints are recognised, as data: name, kind, cue words, alternatives.

A rule is only tried on statements that hold one of its cue words; the alternatives are regular expressions over the
statement in lower case. Order is precedence: of overlapping finds the first rule's is kept.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from claude_capture.signals.cued_rules import CuedRules
from claude_capture.signals.sentences import word_set


class ConstraintRule(NamedTuple):
    """One way to state a limit."""

    name: str
    kind: str
    cues: frozenset[str]
    pattern: re.Pattern[str]


def _rule(name: str, kind: str, cues: str, *alternatives: str) -> ConstraintRule:
    return ConstraintRule(name, kind, word_set(cues), re.compile("|".join(alternatives)))


# Where an order may begin: at the start, after a break, or after a word that opens an order.
_ORDER = r"(?:^[\W_]*|[,;:(—–]\s*[\W_]*|\s[-–—]\s|\b(?:and|but|please|so|also|then|or|just)\s+[*_]*)(?:please\s+)?"
_NOT = r"[*_]*(?:not|never)[*_]*"
_WHOLE = (
    r"(?:it|this|that|them|everything|things|all|the|my|our|your|their|its|any|each|to|with|within|in|under|a|an"
    r"|\w+ing)"
)
_SAME = (
    r"(?:same|simple|as[- ]is|unchanged|intact|untouched|alone|minimal|small|short|concise|brief|existing|compatib\w*"
    r"|\w+[- ]free|below|within|under|original|current|format|style|conventions?|(?:file)?names?|structure|layout"
    r"|behaviou?rs?|apis?|public|signatures?|interfaces?|order(?:ing)?|separate|generic|private|consistent\w*"
    r"|readable|scope|sync|\d+)\b"
)
_KEEP = r"(?:keep(?:ing)?|preserv(?:e|ing)|maintain(?:ing)?)"
_KEEP_OR_LEAVE = (
    r"(?:keep(?:ing)?|leav(?:e|ing)|preserv(?:e|ing)|maintain(?:ing)?|retain(?:ing)?|stick(?:ing)?|stay(?:ing)?)"
)
_EPISTEMIC = (
    r"(?:find|see|tell|determine|know|be\s+(?:sure|certain|found|hit|reached|the\s+case|right|resolved|null)|think"
    r"|guess"
    r"|verify|confirm|reproduce|figure|locate|remember|recall|believe|imagine|help|say|wait|seem|understand|fully"
    r"|match|infer|get\s+it)\b"
)
_FORMATS = (
    r"(?:json\w*|yaml|toml|csv|tsv|markdown|xml|html|plain\s?text|bullet(?:ed)?\s?(?:points?|lists?)"
    r"|a\s+(?:markdown\s+)?table|(?:british|american|plain|simple)\s+english|english|german|french|spanish|snake_case"
    r"|camelcase|kebab-case|iso[- ]?8601|utc|utf-?8|lower\s?case|upper\s?case|title\s?case|imperative\s+mood"
    r"|present\s+tense)\b"
)
_PLATFORM = (
    r"(?:python|node(?:\.?js)?|java|golang|rust|php|ruby|django|flask|react|next\.?js|vue|angular"
    r"|postgres(?:ql)?|mysql|sqlite|ubuntu|debian|macos|windows|linux|chrome|safari|firefox|ecmascript|gcc"
    r"|clang|typescript|npm|cuda|pytorch|numpy|pandas|pydantic|android|ios|jdk|\.net)"
)
_PLATFORM_CUES = (
    "python node nodejs java golang rust php ruby django flask react vue angular postgres postgresql mysql sqlite "
    "ubuntu debian macos windows linux chrome safari firefox ecmascript gcc clang typescript npm cuda pytorch numpy "
    "pandas pydantic android ios jdk requires minimum"
)
_VERSION = (
    rf"\b{_PLATFORM}\s*(?:versions?\s*)?(?:[v>=<~^]+\s*)*\d+(?:\.\d+|\.x)*\s*"
    r"(?:\+|or\s+(?:later|newer|higher|above|lower|older)|and\s+(?:above|up|later|newer)|only)",
    r"\b(?:requires?|needs?|support|target(?:s|ing)?|must\s+run\s+on|stay\s+on|works?\s+(?:on|with)"
    r"|compatible\s+with)"
    rf"\s+(?:at\s+least\s+)?{_PLATFORM}\s*(?:versions?\s*)?[v>=<~^]*\s*\d",
    r"requires-python",
    r"minimum\s+version",
)
_QUANTITY = (
    r"(?:\b(?:at\s+most|at\s+least|no\s+more\s+than|no\s+fewer\s+than|no\s+less\s+than|not\s+more\s+than"
    r"|no\s+longer\s+than|fewer\s+than|less\s+than|up\s+to|under|within|below|maximum(?:\s+of)?|max\.?"
    r"|minimum(?:\s+of)?|limit(?:ed)?\s+(?:of|to|is)|capped\s+at|exceed(?:s|ing)?|budget\s+of|timeout\s+of)"
    r"\s+(?:of\s+|the\s+)?|[<>≤≥]=?\s?)[~≈]?\$?\d"
)
_SIZES = (
    r"(?:bullet\s+points?|words?|lines?|sentences?|characters?|bullets?|points?|paragraphs?|pages?|items?"
    r"|steps?)"
)
_COUNT = r"(?:one|two|three|four|five|six|seven|eight|ten|a\s+single|\d+)"
_TOOLS = r"(?:tool|task|agent|sub-?agents?|model|library|cli|command|module|function|skill|api|package|framework)"

USER_RULES = CuedRules(
    [
        _rule(
            "user_forbids",
            "forbidden",
            "don't not never avoid refrain dont",
            _ORDER + rf"(?:(?:do\s+{_NOT}|don't|dont|never|refrain\s+from|avoid)\s+(?:ever\s+)?)"
            r"(?!worry|forget|hesitate|mind\b|know|think|see\b|understand|have\b|believe|get\s|like\b|care\b|seem"
            r"|need\b"
            r"|mean\b|exist|work\b|want\b|really|feel|recall|remember|show\s+up|appear|contain|match)(?=\w)",
            r"\(\s*not\s+\w+|\bnot\s+using\b",
        ),
        _rule(
            "user_does_not_want",
            "forbidden",
            "don't not wouldn't rather",
            r"\b(?:i|we)\s+(?:really\s+|also\s+)?(?:do\s+not|don't|wouldn't|would\s+not)\s+(?:want|like)\s+"
            r"(?!to\s+(?:know|ask|miss))",
            r"\b(?:i|we)(?:'d|\s+would)\s+rather\s+(?:not|you|keep)",
        ),
        _rule(
            "user_prohibits",
            "forbidden",
            "not never mustn't shouldn't cannot can't forbidden prohibited limits allowed permitted",
            rf"(?<!\bif\s)\b(?:must|should|shall|may)\s+{_NOT}",
            r"\bmustn't\b",
            r"\bshouldn't\s+(?!be\s+(?:hard|too|difficult|a\s+(?:problem|big)|that)|take\s+(?:long|too)|it\b|we\b"
            r"|you\b|matter)",
            rf"\b(?:you|we)\s+(?:cannot|can't|can\s+not)\s+(?!{_EPISTEMIC})\w",
            r"\boff[- ]limits\b",
            r"\b(?:forbidden|prohibited)\b",
            r"\bnot\s+(?:allowed|permitted)\b",
        ),
        _rule(
            "limit",
            "limit",
            "most least more fewer less longer up under within below maximum max minimum limit limited capped "
            "exceed exceeds "
            "budget timeout",
            _QUANTITY,
        ),
        _rule(
            "user_sizes",
            "limit",
            "words word lines line sentence sentences characters bullet bullets points point paragraph paragraphs "
            "pages page "
            "items steps step per",
            rf"\b\d+\s*(?:[-–]|to)\s*\d+\s+{_SIZES}\b",
            rf"\bin\s+(?:exactly\s+|about\s+)?{_COUNT}\s+(?:short\s+)?{_SIZES}\b",
            rf"\b(?:exactly|precisely)\s+\w+\s+{_SIZES}\b",
            r"\b(?:one|a\s+single)\s+\w+\s+per\s+\w+",
        ),
        _rule(
            "user_formats",
            "format",
            "json jsonl yaml toml csv tsv markdown xml html plain bullet bullets bulleted table english german "
            "french spanish case "
            "camelcase utc utf iso mood tense format convention style",
            r"\b(?:in|as|to|into)\s+(?:the\s+)?(?:valid\s+|raw\s+|pure\s+|one\s+|strict\s+|proper\s+)?" + _FORMATS,
            r"\b(?:in|use|using|follow\w*|with)\s+(?:the\s+|this\s+|exactly\s+this\s+|a\s+)?(?:following\s+"
            r"|same\s+|exact\s+)?"
            r"(?:\w+\s+)?(?:format|naming\s+convention|style\s+guide|coding\s+style)\b",
            r"\buse\s+(?:british|american|plain)\s+english\b",
        ),
        _rule("version", "version", _PLATFORM_CUES, *_VERSION),
        _rule(
            "compatibility",
            "version",
            "compatible compatibility backward backwards cross platform works work",
            r"(?:backwards?|forwards?|drop-in)[- ]compatib",
            r"\bcompatib\w+\s+with\b",
            r"cross[- ](?:platform|browser)",
            r"platform[- ](?:independent|agnostic)",
            r"\bworks?\s+(?:on|in|with|across)\s+(?:all|both|any|every|older|old)\b",
        ),
        _rule(
            "permission",
            "permission",
            "read approval permission ask wait confirm confirmation consent",
            r"\bread[- ]only\b",
            r"\b(?:ask|check\s+with|confirm\s+with)\s+(?:me|us)\s+(?:first\b|before|for)",
            r"\bask\s+before\b",
            r"\bwait\s+for\s+(?:my|me|approval|confirmation)\b",
            r"\b(?:need|require|get|without|requires?)\s+(?:\w+\s+)?(?:my|explicit|prior)\s+"
            r"(?:approval|permission|consent|confirmation)",
            r"\bbefore\s+(?:you\s+)?(?:commit|push|delet|deploy|merg)\w*.{0,20}\bask\b",
        ),
        _rule(
            "environment",
            "environment",
            "network internet offline sandbox sandboxed air supported available installed root sudo gpu docker "
            "standard stdlib",
            r"\bno\s+(?:network|internet|gpu|root|sudo|docker)\b",
            r"\boffline\b",
            r"\bair[- ]gapped\b",
            r"\bsandboxed?\b",
            r"\b(?:is|are)(?:n't|\s+not)\s+(?:supported|available|writable|reachable)\b",
            r"\bstandard\s+library\s+only\b",
        ),
        _rule(
            "user_restricts",
            "scope",
            "only exclusively solely nothing except apart but limit restrict focus need",
            _ORDER + r"only\s+(?!if\s+it|the\s+(?:problem|issue|thing)|thing|problem|issue|then|a\s+few"
            r"|process)(?=\w)",
            r"\b(?:must|should|can|may|will|to|shall|could|would|please)\s+only\s+\w",
            r"\b(?:use|using|change|edit|modify|touch|look|search|work|with|include|return|output|reply|respond"
            r"|answer|give"
            r"|show|list|run|read|write|in|from|on|of|uses|import|at|to|for|query|consider|check)\s+only\b"
            r"(?!\s+(?:problem|issue))",
            r"\bonly\s+(?:the\s+)?(?:standard\s+library|stdlib|built-?ins?|in\s+the|from\s+the|use|using|with)\b",
            r"\b(?:exclusively|solely)\b",
            r"\bnothing\s+(?:but|else)\b",
            r"\bexcept\s+(?:for|in|the)\b",
            r"\bapart\s+from\b",
            r"\b(?:limit|restrict)\s+(?:it|this|that|yourself|the|your|changes|them)\b",
            r"\w\s+only(?:[.,;)]|$)",
            r"\bfocus\s+(?:only\s+|solely\s+|specifically\s+)?on\b",
            r"\bno\s+need\s+to\s+\w",
        ),
        _rule(
            "user_keeps",
            "scope",
            "keep keeping leave leaving preserve preserving maintain maintaining retain stick sticking stay staying as",
            rf"\b{_KEEP_OR_LEAVE}\s+(?:(?:{_WHOLE}|only)\s+(?:[\w./`'-]+\s+){{0,6}}?)??{_SAME}",
            r"\bstick(?:ing)?\s+(?:to|with)\b",
            r"\bas\s+(?:we|it|they)\s+(?:do|does|did|is|was|are)\s+(?:now|before|today|currently)",
        ),
        _rule(
            "user_excludes",
            "forbidden",
            "without",
            r"(?<!\bbut\s)(?<!\bloads\s)(?<!\bpage\s)\bwithout\s+(?:\w+ing\b(?!\s+(?:to\s+know|them|the\s+file\b))"
            r"|any\b|external\b"
            r"|extra\b|additional\b|new\b|third[- ]party\b|sudo\b|root\b|network\b|internet\b"
            r"|a\s+(?:build|new|separate|server|framework|library)\b)",
        ),
        _rule(
            "user_rules_out",
            "forbidden",
            "no free zero",
            r"(?:^[\W_]*|[,;—–]\s*|\b(?:and|use)\s+)(?:no|zero)\s+(?!conflicts?\b|changes?\s+(?:yet|so)|problem"
            r"|worries|idea"
            r"|need\b|matter|thanks|longer|one\b|errors?\b|output|results?\b|such|clue|more\s+than|fewer|less"
            r"|doubt|luck|way\b"
            r"|wonder|worry|issues?\b|rush|i\b|it\b|the\b|that|this|we\b|you\b|built-in\b"
            r"|\w+\s+(?:is|are|was|were|on|found|exists?|state|across|expected|semantics)\b)[a-z]",
            r"\b(?:dependency|compilation|build|allocation|lock)[- ]free\b",
        ),
        _rule(
            "user_names_tool",
            "required",
            "instead rather not use using prefer name call",
            _ORDER + r"us(?:e|ing)\s+[^.,;]{1,60}?\s*(?:,\s*not|\binstead\s+of|\brather\s+than)\s",
            _ORDER + rf"us(?:e|ing)\s+(?:the\s+|a\s+)?(?:builtin\s+|existing\s+)?(?:[\w./-]+\s+){{1,3}}{_TOOLS}\b",
            _ORDER + r"use\s+`[^`]+`",
            _ORDER + r"prefer\s+\w",
            _ORDER + r"(?:name|call)\s+the\s+\w+",
        ),
        _rule(
            "user_insists",
            "required",
            "make making ensure ensuring sure forget careful always mandatory",
            r"\b(?:make|making|be)\s+sure\b(?!\s+(?:why|if|what|how|you\s+have))",
            r"\bensur(?:e|ing)\b",
            r"\b(?:don't|do\s+not)\s+forget\b",
            r"\bbe\s+careful\b",
            _ORDER + r"always\s+\w",
        ),
        _rule(
            "user_demands",
            "required",
            "must should needs has shall required",
            r"(?<!\bi\s)(?<!\bwe\s)(?<!\bif\s)\bmust(?!\s+(?:have\s+been|be\s+(?:a\s+bug|something|because)|not"
            r"|never))",
            r"(?<!\bi\s)(?<!\bwe\s)(?<!\bbut\s)\b(?:should|shall)\s+(?:be\s+(?!fine|ok\b|okay|enough|easy|able"
            r"|possible"
            r"|straightforward|good|working|the\s+case|attributed|used\b|installed\b|\"|after)"
            r"|always|only|also|stay|remain|have\s+(?!been)|contain|include|use|return|print|show|do\b|end|start"
            r"|follow|fit"
            r"|support|accept|match|keep|exit|say|live|go\b)",
            r"\b(?:it|they|output|result|file|function|code|page|command|script|answer|response|solution"
            r"|everything|this"
            r"|that|commits?|messages?|names?|which|all)\s+(?:only\s+)?(?:needs?|has|have)\s+to\b(?!\s+(?:do|go)\b)",
            r"\b(?:is|are)\s+(?:required|mandatory)\b",
        ),
    ]
)

AGENT_RULES = CuedRules(
    [
        _rule(
            "agent_must_not",
            "forbidden",
            "must should mustn't shouldn't don't never",
            rf"\b(?:must|should)\s+{_NOT}\s+(?!be\s+(?:hard|a\s+problem|difficult|too)|appear|happen|occur|affect"
            rf"|matter|cause"
            r"|exist|take\b|fail\b|be\s+(?:any|there|an?\s+issue)|have\s+(?:been|any))(?=\w)",
            r"\bmustn't\b",
            r"\b(?:i|we|you)\s+shouldn't\s+(?!be\s+(?:hard|too|able)|have\b|see\b|need\b|expect)(?=\w)",
            rf"[\"“]\s*(?:do\s+{_NOT}|don't|never)\s+\w",
        ),
        _rule(
            "agent_cannot",
            "environment",
            "cannot can't can won't doesn't does will",
            rf"(?<!\bthat\s)\b(?:cannot|can't|can\s+not)\s+(?!{_EPISTEMIC})(?!(?:just|simply|really"
            rf"|actually)\s+{_EPISTEMIC})\w",
            r"\b(?:won't|will\s+not)\s+(?:\w+ly\s+)?(?:work\s+(?:for|in|with|when|unless|without|on)|serve"
            r"|be\s+available|allow"
            r"|accept|permit)\b",
            r"\bdoes(?:n't|\s+not)\s+(?:\w+ly\s+)?(?:support|allow|permit|accept)\b",
            r"\bdoes(?:n't|\s+not)\s+automatically\b",
            r"\bwon't\b.{0,40}\bunless\s+(?:you|the\s+user|explicitly)\b",
        ),
        _rule(
            "limit",
            "limit",
            "most least more fewer longer within maximum max limit limited capped exceed exceeds timeout rate "
            "words word target "
            "over range",
            r"\b(?:returns?|allows?|accepts?|must|should|can|may|limit(?:ed)?|range|target|budget|cap(?:ped)?|stay"
            r"|max(?:imum)?|api|supports?)\b[^.;]{0,50}?" + _QUANTITY,
            r"\b(?:rate|size|token|context|character|word|line)[- ]limit\b",
            r"\bmax(?:imum)?\s*:?\s+\d+\b|\bhard\s+limit\b",
            r"\d+\s*[-–]\s*\d+[- ]?(?:\w+\s+){0,2}(?:target|limit|range)\b",
            r"\b(?:target|limit)\s+(?:of|is|range)\s+[~≈]?\d",
            r"\b(?:stay|keep|fit|be|remain)\w*\s+(?:with)?in\s+(?:the\s+)?(?:target|limit|range|budget|scope)\b",
        ),
        _rule("version", "version", _PLATFORM_CUES, *_VERSION),
        _rule(
            "compatibility",
            "version",
            "compatible compatibility backward backwards cross works work",
            r"\b(?:must|need(?:s)?\s+to|should|wants?|to|for|ensure|has\s+to|maintain|preserve|break(?:ing)?)\s+"
            r"(?:\w+\s+){0,3}?(?:(?:backwards?|forwards?)[- ]compatib\w+|compatible\s+with|cross[- ](?:platform"
            r"|browser))",
            r"\b(?:need|must|should|has\s+to)\b[^.;]{0,60}?\bworks?\s+(?:in|on|with|across)\s+(?:both|all|any"
            r"|every)\b",
        ),
        _rule(
            "permission",
            "permission",
            "only approval permission permissions allowed permitted plan unless authorization require requires "
            "request consent",
            r"(?<!-level\s)\bread[- ]only\b(?!\s+(?:operations?|search|safety|planning|system))",
            r"\brequires?\s+(?:your\s+|user\s+|explicit\s+|manual\s+|clear\s+)?"
            r"(?:approval|permissions?|root|sudo|admin|authorization)",
            r"\b(?:need|without)\s+(?:your|the\s+user's|explicit|user)\s+(?:approval|permission|consent"
            r"|confirmation|request)",
            r"\bnot\s+(?:allowed|permitted)\s+to\b",
            r"\b(?:am|are|is|we're|i'm)\s+(?:still\s+)?in\s+plan\s+mode\b",
            r"\bpermissions?\s+(?:was|were|is|are)\s+denied\b",
            r"\bunless\s+(?:explicitly\s+)?(?:asked|told|requested|the\s+user|you\s+(?:explicitly\s+)?(?:ask|want"
            r"|say))\b",
        ),
        _rule(
            "environment",
            "environment",
            "network internet supported available installed writable reachable permitted possible unavailable "
            "unsupported "
            "requires require root sudo docker gpu auth force",
            r"(?:^|[,;:(—]\s*|\bthere(?:'s|\s+is)\s+|\bhave\s+|\bhas\s+|\bwith\s+)"
            r"no\s+(?:network|internet|root|sudo|docker|gpu|auth\b|force)\b",
            r"\b(?:is|are)(?:n't|\s+not)\s+(?:\w+ly\s+)?(?:supported|available|installed|writable|reachable"
            r"|permitted)\b(?!\s+yet\b)",
            r"\bnot\s+(?:available|supported|possible)\s+(?:in|on|by|here|for)\b",
            r"\bun(?:available|supported)\s+(?:in|on|by|here)\b",
            r"\brequires?\s+(?:a\s+)?(?:separate|authentication|https|network|internet)\b",
            r"\brequires?\s+(?:starting|restarting)\s+a\b",
        ),
        _rule(
            "agent_restates_user",
            "required",
            "user user's constraint constraints requirement instructions preferences instruction spec",
            r"\buser\b[^.]{0,40}?\b(?:said\s+(?:no\b|not\b|to\s+keep|only)|doesn't\s+want|does\s+not\s+want"
            r"|did(?:n't|\s+not)\s+want|prefers?\b|insist|forb|told\s+me\s+not"
            r"|asked\s+(?:me\s+)?(?:not\s+to|to\s+(?:keep|only|avoid|leave|use\s+only))"
            r"|(?:explicitly|specifically)\s+(?:said|asked|wants?|requested|mentioned|told|stated)|requires?\b"
            r"|wants?\s+(?:it\s+|this\s+|me\s+|them\s+)?(?:to\s+)?(?:keep|avoid|only|be\s+(?:able|kept)|no\b|not\b"
            r"|leave))",
            r"\buser\b[^.]{0,60}?\bwants?\b[^.]{0,80}?(?:\b(?:only|without|not\s+just|rather\s+than|must|doesn't"
            r"|cross-\w+)\b"
            r"|,\s+not\b)",
            r"\bas\s+(?:per|requested\s+in)\s+(?:the\s+)?user\b",
            r"\bper\s+(?:the\s+)?(?:\w+\s+)?(?:instructions?|spec|requirements?|guidelines|rules)\b",
            r"\bgiven\s+the\s+(?:\w+\s+)?constraints?\b",
            r"\b(?:key\s+)?constraints?\s*(?:is|are|of|that|:)",
            r"\brequirement\s+(?:is|that)\b",
            r"\buser's\s+(?:global\s+)?(?:preferences?|constraints?|instructions?)\b",
        ),
        _rule(
            "agent_keeps",
            "scope",
            "keep keeping preserve preserving maintain",
            r"(?:^[\W_]*|\b(?:while|must|should|need\s+to|wants?\s+(?:me\s+)?to|have\s+to|and|to|but)\s+)"
            rf"{_KEEP}\s+(?:{_WHOLE}\s+(?:[\w./`'-]+\s+){{0,5}}?){_SAME}",
        ),
        _rule(
            "agent_restricts",
            "scope",
            "only limited restricted scope solely exclusively free",
            r"\b(?:must|should|can|may|allowed\s+to|permitted\s+to|supposed\s+to|asked\s+(?:me\s+)?to)\s+only\s+"
            r"(?!be\s+a\b|tell|see|find|guess)",
            r"\bonly\s+(?:allowed|permitted|supports?|accepts?|available\s+(?:in|on|for|to|when|if))\b",
            r"\bonly\s+(?:works?|runs?|fires?|applies|valid)\s+(?:when|if|with|on|in|for|inside)\b",
            r"\b(?:will|would)\s+only\s+work\b",
            r"\b(?:allowed|permitted|supported)\s+only\b",
            r"\bonly\s+(?:the\s+)?(?:standard\s+library|stdlib)\b",
            r"\b(?:use|using|change|edit|modify|touch)\s+only\b|\bchange\s+only\b",
            r"\b(?:limited|restricted)\s+to\s+(?!this\s+issue)",
            r"\b(?:dependency|compilation)[- ]free\b",
            r"\bscope\s*:\s*\w",
        ),
        _rule(
            "agent_without",
            "forbidden",
            "without",
            r"\b(?:wants?|asked|asking|need(?:s|ed)?|should|must|have\s+to|has\s+to|requires?|prefer)\b[^.;]{0,90}?"
            r"\bwithout\s+(?:\w+ing|any|external|extra|additional|new|third[- ]party|a\s+(?:build|new|separate))\b",
        ),
        _rule(
            "agent_names_tool",
            "required",
            "use instead english",
            r"^use\s+[^.,;]{1,60}?\b(?:instead\s+of|rather\s+than)\s",
            r"\b(?:use|in|prefer\w*|write)\s+(?:british|american|plain)\s+english\b",
        ),
        _rule(
            "agent_must",
            "required",
            "must be stay remain match fit",
            r"(?<!\bi\s)(?<!\bwe\s)\bmust\s+(?:also\s+|always\s+|only\s+)?(?:be\s+(?!the\b|a\s|an\s|because|due"
            r"|that|something"
            r"|some\s|\w+ing\b|missing|related|wrong|somewhere|where|why|how|what|in\b|from)"
            r"|(?!have\b|be\b|not\b|never\b)[a-z])",
            r"(?<!\bi\s)(?<!\bwe\s)\b(?:has|have)\s+to\s+(?:be|stay|remain|match|fit)\b",
        ),
    ]
)

SUMMARY_RULES = frozenset({"agent_must_not", "agent_cannot", "permission", "environment", "limit"})
"""Of a closing summary, which describes what was done, only these rules count."""
