"""Self-corrections: the agent changes its own earlier action or claim because it was wrong or insufficient.

By action, a failure of its own is followed by a changed attempt at the same aim: the same file edited otherwise, the
command mended, another path tried, or a file edited again after a check of its own change failed. By word, an
explicit retraction ("I was wrong", "that broke X"). Fillers ("wait", "actually"), checks that change nothing, plain
repeats, refusals by the person and answers to the person's objection do not count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from claude_capture.claude_trace_schema import SelfCorrection, SignalSource
from claude_capture.signals.bash_commands import command_words
from claude_capture.signals.sentences import Statement, word_set
from claude_capture.signals.tool_actions import EDIT_TOOLS, Action
from claude_capture.signals.trace_reading import Message, TraceReading

SIMILAR_COMMAND = 0.5
"""Least share of common words (difflib ratio over words, 0–1) for a command to be a mended form of another."""
ATTEMPTS_AHEAD = 8
"""How many calls after a failure are searched for the mending attempt."""

_NO_MATCH_EXIT = frozenset({"grep", "egrep", "rg", "diff", "cmp", "test", "which", "pgrep", "ag"})
_MISSING = re.compile(r"No such file|does not exist|not found|cannot find|EISDIR|is a directory", re.IGNORECASE)
_INSPECTS = re.compile(r"(?:^|\s)--?(?:help|version|collect-only|markers|dry-run|list|co)\b|\s-h\b")
_TEST_PATH = re.compile(r"(?:^|[/_.-])(?:tests?|specs?|__tests__)(?=[/_.-]|$)|\.(?:test|spec)\.", re.IGNORECASE)
_EXPECTED = re.compile(
    r"\b(?:error|failure|negative|bad)\s+(?:case|path|handling|scenario)|\binvalid\s+(?:input|argument)"
    r"|\bconfirm\s+(?:that\s+)?it\s+fails"
    r"|\b(?:as|is|are|was|were)\s+expected\b|\bexpected\s+to\s+fail|\bshould\s+fail\b|\bfails?\s+first\b"
    r"|\bred\s+phase\b|\bfailing\s+test\s+first\b"
)

_FAULT_CUES = word_set(
    "lint linting linter type typescript pyright mypy eslint ruff checker diagnostic "
    "diagnostics warning warnings complaining "
    "complains different still undefined defined imported work above over exceeds long fix my own unused wrong"
)
_FAULT = re.compile(
    r"\b(?:lint(?:ing|er)?|type(?:script)?|pyright|mypy|eslint|ruff|diagnostics?|checker|syntax|import"
    r"|compil\w+)\b[^,;]{0,30}\b(?:warnings?|errors?|issues?|complain\w*|show\w*|still)"
    r"|\bcomplain(?:s|ing)\b|\btry\s+(?:a|another)\s+(?:\w+\s+)?(?:different\s+)?(?:approach|way)\b"
    r"|\bdifferent\s+approach\b|\bstill\s+(?:fail\w*|not|shows?|showing|get\w*|having|complain\w*|wrong|broken|there)"
    r"|\b(?:didn't|doesn't|did\s+not|does\s+not)\s+work\b|\bis(?:n't|\s+not)\s+(?:defined|imported|in\s+scope)\b"
    r"|\bundefined\b|\bunused\b"
    r"|\b(?:slightly\s+)?(?:above|over|exceeds?)\s+the\b[^,;]{0,20}\b(?:target|limit|range|budget)|\btoo\s+long\b"
    r"|\bfix\b[^;]{0,40}\bmy\s+(?:test|change|edit|implementation|code|own)"
)
RECENT_MESSAGES = 6
"""How many messages back the agent's own change may lie for an edit to count as mending it."""

_CUES = word_set(
    "wrong mistake mistakes mistakenly incorrectly wrongly accidentally forgot forgotten overlooked "
    "misread misunderstood "
    "misremembered mistyped oops whoops broke broken scratch shouldn't should introduced assumed thought "
    "assumption my "
    "revert undo reverting undoing actually missed typo incorrect retract correction mis second premature hasty"
)
_RETRACTIONS = (
    (
        "admits_error",
        re.compile(
            r"\b(?:i|we)(?:'ve|\s+have)?\s+(?:was|were|am|been)\s+(?:\w+ly\s+)?(?:wrong|mistaken|incorrect"
            r"|too\s+hasty)\b|\bi\s+stand\s+corrected"
            r"|\bmy\s+(?:mistake|bad|error|fault)\b|\bi(?:'ve|\s+have)?\s+made\s+(?:a|an|the|some"
            r"|another)\s+(?:\w+\s+)?(?:mistake|error|typo)"
            r"|\b(?:i|we)(?:'ve|\s+have)?\s+(?:also\s+|had\s+)?(?:mistakenly|accidentally|incorrectly|wrongly"
            r"|inadvertently|misread|misunderstood|misremembered|mistyped|misnamed"
            r"|misspelled|miscounted|overlooked|forgot(?:ten)?)\b|\b(?:oops|whoops)\b|\bscratch\s+that\b"
            r"|\bon\s+second\s+thought"
            r"|\bi\s+(?:shouldn't|should\s+not)\s+have\s+\w|\bi\s+should\s+have\s+(?!access|enough|all\b"
            r"|everything|the\b|a\b|some)\w+"
            r"|\bi(?:'ve|\s+have)?\s+(?:also\s+)?missed\s+(?!nothing)(?:a|an|the|that|one|some|this)\b"
        ),
    ),
    (
        "own_change_broke",
        re.compile(
            r"\b(?:my|our)\s+(?:\w+\s+){0,3}?(?:change|edit|fix|patch|refactor(?:ing)?|update|command|query|regex"
            r"|script|assumption|guess|test|code|import|version|attempt|approach|implementation|path"
            r"|replacement)s?\s+"
            r"(?:\w+\s+){0,2}?(?:broke|was\s+(?:wrong|incorrect|off|incomplete|too)|were\s+(?:wrong|incorrect)"
            r"|is\s+(?:wrong|incorrect)|introduced|caused|removed|didn't|missed|failed|has\s+a\s+bug)"
            r"|\b(?:that|this|it|which)\s+(?:change\s+|edit\s+)?broke\b|\b(?:i|we)(?:'ve|\s+have)?\s+(?:broke"
            r"|broken|introduced\s+(?:a|an|this|that|the|another|some)\b|caused\s+(?:this|that|the)\b)"
            r"|\bthat\s+was\s+(?:wrong|incorrect|a\s+mistake|my\s+mistake|an\s+error|premature|the\s+wrong)\b"
            r"|\b(?:i|we)(?:'m|\s+was|'re|\s+were|\s+am)\s+(?:\w+ly\s+)?(?:using|looking\s+(?:at|for|in)|calling"
            r"|passing|checking|reading|querying|importing|editing|setting)\s+(?:\w+\s+){0,4}?(?:the\s+)?wrong\b"
            r"|\b(?:i|we)\s+(?:used|called|passed|wrote|put|picked|ran|queried|edited|imported|typed|had|gave"
            r"|chose|read|guessed)\s+(?:\w+\s+){0,5}?(?:wrong|incorrect)\b"
        ),
    ),
    (
        "withdraws_claim",
        re.compile(
            r"\b(?:wait|hmm|no|oh|ah)[,.!—– ]+(?:\w+[,.]?\s+){0,2}?(?:that|this|it)(?:'s|\s+is)(?:n't|\s+not"
            r"|\s+wrong)|\bactually,?\s+(?:wait[,.]?\s+)?(?:no\b[,.—– ]|(?:that|this|it)"
            r"(?:'s|\s+is|\s+was)(?:n't|\s+not|\s+wrong|\s+incorrect)|(?:that|this|it)\s+(?:isn't|wasn't|doesn't"
            r"|won't|didn't)\b)"
            r"|\b(?:that|this|it)(?:'s|\s+is|\s+was)?\s*(?:n't|\s+not)\s+(?:actually\s+)?(?:right|correct)\b[,.—–;]"
            r"|\bi\s+(?:had\s+)?(?:initially\s+|originally\s+|previously\s+|first\s+|earlier\s+"
            r"|wrongly\s+)?(?:assumed|thought|believed|claimed|expected|concluded|said|stated)\s+[^.]{3,120}?"
            r"\b(?:but|however|in\s+fact|actually|turns?\s+out|which\s+(?:is|was)\s+(?:wrong|incorrect|not))"
            r"|\bmy\s+(?:earlier|previous|initial|first|original|last)\s+(?:\w+\s+){0,2}?(?:assumption|claim|guess"
            r"|analysis|conclusion|diagnosis|statement|theory|hypothesis|reading|understanding)\b"
            r"[^.]{0,40}?\b(?:wrong|incorrect|off|mistaken|incomplete|not|missed|doesn't|didn't)"
        ),
    ),
    (
        "changes_course",
        re.compile(
            r"\bactually,?\s+(?:wait[,.]?\s+)?[^.]{0,90}?\b(?:i|we)\s+(?:should(?:n't|\s+not)?|can\s+just"
            r"|need\s+to|don't\s+(?:actually\s+)?need|could\s+just)\b[^.]{0,120}?\b(?:instead|rather\s+than"
            r"|not\s+the|(?:isn't|not)\s+(?:right|needed|necessary))\b"
            r"|\b(?:let\s+me|i'll|i\s+will|i\s+need\s+to|i\s+should|i\s+have\s+to)\s+(?:now\s+)?(?:revert|undo"
            r"|roll\s+back|back\s+out)\b"
        ),
    ),
)
_USER_OBJECTED = re.compile(
    r"\byou(?:'re|\s+are|\s+were)\s+(?:\w+\s+)?right\b|\b(?:good|great|nice)\s+(?:catch|point|question|spot)"
    r"|\byou(?:'ve)?\s+(?:caught|spotted|pointed\s+out|noticed)\b"
    r"|\b(?:the\s+)?user(?:'s|\s+is|\s+was|\s+has)?\s+(?:\w+\s+)?(?:right|correct(?:ed)?|pointed|complain"
    r"|point(?:s|ing)\s+out|saying|wants?\s+me\s+to\s+(?:undo|revert))|\bas\s+you\s+(?:said|noted|pointed)"
    r"|\byou\s+(?:mean|meant|wanted)\b|\b(?:apologi[sz]e|sorry)\b"
)
_SUPPOSITION = re.compile(r"\b(?:if|when|whether|unless|in\s+case|make\s+sure|ensure|check\s+(?:if|that))\s[^,;:.]*$")
_THIRD_PARTY = re.compile(r"\b(?:it|they|the\s+\w+)\s+(?:mistakenly|accidentally|incorrectly|wrongly)\b")


def find_self_corrections(reading: TraceReading) -> list[SelfCorrection]:
    """Corrections by action, then by word, ordered by step."""
    by_action = _corrections_by_action(reading)
    by_action += _own_edits_mended(reading, {item.step for item in by_action})
    by_word = _corrections_by_word(reading, {item.step for item in by_action})
    return sorted(by_action + by_word, key=lambda item: item.step)


def _corrections_by_action(reading: TraceReading) -> list[SelfCorrection]:
    """One item per failure that a changed attempt answers. A mending call that fails again opens its own failure."""
    actions = reading.actions
    if not any(action.failed for action in actions):
        return []
    step_of = {action.call.id: message.index for message in reading.messages for action in message.actions}
    words_of = {message.index: message for message in reading.messages}
    found: list[SelfCorrection] = []
    for position, action in enumerate(actions):
        if not action.failed:
            continue
        ahead = actions[position + 1 : position + 1 + ATTEMPTS_AHEAD]
        mended = _mending_attempt(action, actions[:position], ahead, words_of, step_of)
        if mended is None:
            continue
        attempt, rule = mended
        found.append(
            SelfCorrection(
                step=step_of.get(attempt.call.id, attempt.call.step),
                quote=attempt.call.id,
                source="action",
                rule=rule,
                kind="action",
                corrects=action.call.id,
                by=attempt.call.id,
                succeeded=_went_through(action, attempt, actions[position + 1 :], rule),
            )
        )
    return found


def _mending_attempt(
    failed: Action,
    before: Sequence[Action],
    ahead: Sequence[Action],
    messages: dict[int, Message],
    step_of: dict[str, int],
) -> tuple[Action, str] | None:
    later = [action for action in ahead if step_of.get(action.call.id) != step_of.get(failed.call.id)]
    if failed.call.tool in EDIT_TOOLS:
        return _mended_edit(failed, later)
    if failed.command is not None:
        return _mended_command(failed, before, later, messages, step_of)
    return _mended_call(failed, later)


def _mended_edit(failed: Action, later: Sequence[Action]) -> tuple[Action, str] | None:
    """The same file edited with other arguments, or with the same ones after it was read."""
    read_between = False
    for action in later:
        if action.call.tool in EDIT_TOOLS and action.path == failed.path and not action.denied:
            if action.call.input != failed.call.input or action.call.tool != failed.call.tool:
                return action, "edit_changed"
            if read_between:
                return action, "edit_after_reading"
            return None
        read_between = read_between or (action.lookup == "read" and failed.path.endswith(action.target))
    return None


def _mended_command(
    failed: Action,
    before: Sequence[Action],
    later: Sequence[Action],
    messages: dict[int, Message],
    step_of: dict[str, int],
) -> tuple[Action, str] | None:
    command = failed.command
    assert command is not None
    text = str(failed.call.input.get("command", ""))
    if command.program in _NO_MATCH_EXIT and not _MISSING.search(failed.call.output or ""):
        return None
    words = command_words(text)
    checks = not command.purposes.isdisjoint(("test", "check", "run", "install", "remote", "database"))
    own_files = {action.path for action in before if action.changes and action.path}
    test_first = bool(own_files) and all(_TEST_PATH.search(path) for path in own_files)
    for action in later:
        if action.denied:
            continue
        if action.command is not None:
            again = str(action.call.input.get("command", ""))
            if again == text:
                return None
            if _INSPECTS.search(again) and not _INSPECTS.search(text):
                continue
            if action.command.program == command.program or not action.command.purposes.isdisjoint(command.purposes):
                ratio = SequenceMatcher(None, words, command_words(again), autojunk=False).ratio()
                if ratio >= SIMILAR_COMMAND:
                    return action, "command_mended"
        elif action.call.tool in EDIT_TOOLS and checks and own_files and not action.failed:
            if test_first and not _TEST_PATH.search(action.path):
                return None
            if any(_says(messages.get(step_of.get(item.call.id, -1)), _EXPECTED) for item in (failed, action)):
                return None
            return action, "edited_again_after_failed_check"
        elif (
            failed.lookup
            and action.lookup
            and _MISSING.search(failed.call.output or "")
            and _shares_name(failed, action)
        ):
            return action, "other_path"
    return None


def _mended_call(failed: Action, later: Sequence[Action]) -> tuple[Action, str] | None:
    """Another path after a missing file, or the same tool with mended arguments."""
    missing = bool(_MISSING.search((failed.call.output or "")[:400]))
    for action in later:
        if action.denied:
            continue
        if failed.path and missing and action.call.input != failed.call.input:
            if (
                action.call.tool in (failed.call.tool, "Glob", "LS", "Bash", "Grep")
                and action.lookup
                and _shares_name(failed, action)
            ):
                return action, "other_path"
        elif action.call.tool == failed.call.tool and not failed.path:
            return (action, "arguments_mended") if action.call.input != failed.call.input else None
    return None


def _says(message: Message | None, pattern: re.Pattern[str]) -> bool:
    return message is not None and any(pattern.search(item.lower) for item in (*message.thinking, *message.text))


def _own_edits_mended(reading: TraceReading, corrected_steps: set[int]) -> list[SelfCorrection]:
    """A file that the agent has just changed, edited again in a message that names a fault in that change."""
    found: list[SelfCorrection] = []
    edited: dict[str, tuple[int, str]] = {}
    for position, message in enumerate(reading.messages):
        named = None
        for action in message.actions:
            if action.call.tool not in EDIT_TOOLS or action.denied or not action.path:
                continue
            earlier = edited.get(action.path)
            if earlier is not None and named is None and 0 < position - earlier[0] <= RECENT_MESSAGES:
                named = _fault_named(message)
                if named is not None and message.index not in corrected_steps:
                    found.append(
                        SelfCorrection(
                            step=message.index,
                            quote=action.call.id,
                            source="action",
                            rule="own_edit_mended",
                            kind="action",
                            corrects=earlier[1],
                            by=action.call.id,
                            succeeded=not action.failed,
                        )
                    )
            if action.changes:
                edited[action.path] = (position, action.call.id)
    return found


def _fault_named(message: Message) -> Statement | None:
    for statement in (*message.thinking, *message.text):
        if not _FAULT_CUES.isdisjoint(statement.words) and _FAULT.search(statement.lower):
            return statement
    return None


def _shares_name(failed: Action, action: Action) -> bool:
    """True where the second looks for a file of the first one's name, lists its folder, or reads below it."""
    names = [word for word in re.split(r"[\s'\"]+", failed.path or failed.target) if "/" in word or "." in word]
    for name in names:
        folder, _, base = name.rstrip("/").rpartition("/")
        stem = base.rsplit(".", 1)[0]
        if len(stem) >= 3 and stem in action.target:
            return True
        if len(folder) > 3 and folder in action.target and action.lookup == "list":
            return True
    return False


def _went_through(failed: Action, attempt: Action, after: Sequence[Action], rule: str) -> bool:
    """Whether the mending call worked; for an edit after a failed check, whether the next such check passes."""
    if rule == "edited_again_after_failed_check" and failed.command is not None:
        words = command_words(str(failed.call.input.get("command", "")))
        started = False
        for action in after:
            started = started or action.call.id == attempt.call.id
            if started and action.command is not None and action.command.program == failed.command.program:
                again = command_words(str(action.call.input.get("command", "")))
                if SequenceMatcher(None, words, again, autojunk=False).ratio() >= SIMILAR_COMMAND:
                    return not action.failed and not action.denied
    return not attempt.failed and not attempt.denied


def _corrections_by_word(reading: TraceReading, corrected_steps: set[int]) -> list[SelfCorrection]:
    """At most one retraction per message; none where an action of that message already says it."""
    found: list[SelfCorrection] = []
    for position, message in enumerate(reading.messages):
        if message.index in corrected_steps:
            continue
        if message.is_summary and not message.thinking:
            continue
        item = _retraction(message, position == 0)
        if item is not None and not any(
            _USER_OBJECTED.search(said.lower) for said in (*message.thinking[:4], *message.text[:4])
        ):
            found.append(item)
    return found


def _retraction(message: Message, opening: bool) -> SelfCorrection | None:
    for source, statements in message.passages():
        for number, statement in enumerate(statements):
            if statement.question or _CUES.isdisjoint(statement.words):
                continue
            rule = _retraction_rule(statement)
            if rule is None or (opening and rule != "withdraws_claim" and rule != "changes_course"):
                continue
            if rule in ("withdraws_claim", "changes_course") and number == 0 and opening:
                continue
            return _word_item(message, source, statement, rule)
    return None


def _retraction_rule(statement: Statement) -> str | None:
    for name, pattern in _RETRACTIONS:
        match = pattern.search(statement.lower)
        if match is not None and not _SUPPOSITION.search(statement.lower, 0, match.start()):
            return None if _THIRD_PARTY.search(statement.lower) else name
    return None


def _word_item(message: Message, source: SignalSource, statement: Statement, rule: str) -> SelfCorrection:
    first = next((action.call.id for action in message.actions if not action.denied), None)
    return SelfCorrection(
        step=message.index,
        quote=statement.text,
        source=source,
        rule=rule,
        start=statement.start,
        end=statement.end,
        kind="word",
        by=first,
    )
