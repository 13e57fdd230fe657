"""The markup of the raters' page. Whatever comes from a trace or a rater is text: it is escaped here, nowhere else."""

from __future__ import annotations

import difflib
from html import escape
from typing import NamedTuple

from trainer.evaluate.answer_store import MAX_NOTE, Answer
from trainer.evaluate.blind_test_folder import Item
from trainer.evaluate.blind_test_style import SCRIPT, STYLE
from trainer.evaluate.pair_rendering import Rendering, ShownCall, ShownStep

OPEN_LINES, OPEN_CHARACTERS = 6, 400
"""Outputs and arguments up to this size are shown at once, longer ones folded: by the same rule on both sides."""
_MAIN_ARGUMENTS = ("command", "file_path", "pattern", "path", "url", "query", "prompt")
"""Arguments that stand beside the tool's name, the first one that is there and has one short line."""


class Progress(NamedTuple):
    """Where a rater stands."""

    number: int
    """The item shown, from 1; 0: none."""
    done: int
    """Items with a complete answer."""
    total: int


def document(title: str, body: str, nonce: str) -> str:
    """A whole page; style and script are let in by `nonce`."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)} · Blind test</title>'
        f'<link rel="icon" href="data:,"><style nonce="{nonce}">{STYLE}</style></head><body>{body}'
        f'<script nonce="{nonce}">{SCRIPT}</script></body></html>'
    )


def message(title: str, text: str, progress: Progress | None = None, link: tuple[str, str] | None = None) -> str:
    """A page that asks nothing."""
    told = f'<p class="count">{progress.done}/{progress.total} answered</p>' if progress else ""
    button = f'<p><a class="button" href="{escape(link[1])}">{escape(link[0])}</a></p>' if link else ""
    return f'<main class="message"><h1>{escape(title)}</h1><p>{escape(text)}</p>{told}{button}</main>'


def question(item: Item, answer: Answer, progress: Progress, form_token: str, complaint: str = "") -> str:
    """The page of one item, with what the rater has answered so far."""
    number, done, total = progress
    back = f'<a class="button" id="back" href="/item/{number - 1}">Back</a>' if number > 1 else ""
    return (
        '<a class="skip" href="#answer">Skip to the questions</a>'
        '<header><h1>Which one is the teacher?</h1><p class="progress">'
        f'<span>Task {number}</span><progress id="progress" aria-label="Answered" value="{done}" max="{total}">'
        f'{done}/{total}</progress><span class="count">{done}/{total} answered</span></p></header><main>'
        f"{_explanation(done == 0)}"
        f'<section class="task" aria-labelledby="task"><h2 id="task">Task</h2>{_pre(item.prompt)}</section>'
        f"{_differences(item)}"
        f'<div class="sides">{_side("A", item.first)}{_side("B", item.second)}</div></main>'
        f'<form id="answer" class="answer" method="post" action="/item/{number}" aria-label="Your answer" '
        f'autocomplete="off" data-others="{done - answer.complete}">'
        f'<input type="hidden" name="form" value="{form_token}">'
        f'<input type="hidden" name="item" value="{escape(item.item)}">'
        + _choices("choice", "Which one is the teacher?", _TEACHER, answer.choice)
        + _choices("preference", "Which one would you rather have?", _PREFERENCE, answer.preference)
        + f'<details class="note"{" open" if answer.note else ""}><summary>Add a note</summary>'
        f'<label for="note">Note (optional)</label><textarea id="note" name="note" rows="2" maxlength="{MAX_NOTE}">'
        f"\n{escape(answer.note)}</textarea></details>"
        f'<div class="actions">{back}<button class="next">Next <kbd>Enter</kbd></button>'
        f'<p id="status" role="status">{escape(complaint)}</p></div></form>'
    )


_TEACHER = (("1", "A"), ("2", "B"), ("0", "Cannot tell"))
_PREFERENCE = (("1", "A"), ("2", "B"), ("0", "Tie"), ("3", "Both bad"))
_KEYS = (
    ("1", "choose A"),
    ("2", "choose B"),
    ("0", "cannot tell, or a tie"),
    ("3", "both are bad"),
    ("U", "undo the last choice; with none to undo, back to the task before"),
    ("D", "show and hide the differences between A and B"),
    ("Enter", "next task"),
)


def _explanation(first: bool) -> str:
    keys = "".join(f"<div><dt><kbd>{key}</kbd></dt><dd>{does}</dd></div>" for key, does in _KEYS)
    return (
        f'<details class="help"{" open" if first else ""}><summary>How this works, and the keys</summary>'
        "<p>The same task was worked on twice. Say which of the two is the work of the teacher, then which of them you "
        "would rather have. In some tasks both are the teacher's. Names, times and ids were taken out of both. Every "
        "click is saved at once; the same link goes on where you stopped.</p>"
        '<p class="by-key">Keys answer the first question that is still open:</p>'
        f'<dl class="keys by-key">{keys}</dl></details>'
    )


def _choices(name: str, legend: str, options: tuple[tuple[str, str], ...], chosen: str | None) -> str:
    radios = "".join(
        f'<label><input type="radio" name="{name}" value="{value}" required{" checked" if value == chosen else ""}>'
        f"<span><kbd>{value}</kbd> {label}</span></label>"
        for value, label in options
    )
    return f'<fieldset><legend>{legend}</legend><div class="options">{radios}</div></fieldset>'


def _side(letter: str, side: Rendering) -> str:
    steps = "".join(map(_step, side.steps))
    work = f"<ol>{steps}</ol>" if steps else '<p class="none">No tools were used.</p>'
    answer = _pre(side.answer) if side.answer else '<p class="none">No answer was given.</p>'
    return (
        f'<section class="side {letter.lower()}" aria-labelledby="side-{letter}">'
        f'<h2 id="side-{letter}"><span class="badge">{letter}</span> <span>{_extent(side)}</span></h2>'
        f'{work}<div class="final"><h3>Answer</h3>{answer}</div></section>'
    )


def _extent(side: Rendering) -> str:
    calls = sum(len(step.calls) for step in side.steps)
    return f"{calls} tool call{'' if calls == 1 else 's'}" if calls else "no tool calls"


def _step(step: ShownStep) -> str:
    said = f'<p class="said">{escape(step.text)}</p>' if step.text else ""
    return f"<li>{said}{''.join(map(_call, step.calls))}</li>"


def _call(call: ShownCall) -> str:
    arguments = dict(call.arguments)
    main = next((n for n in _MAIN_ARGUMENTS if n in arguments and len(arguments[n].splitlines()) == 1), None)
    beside = f" <code>{escape(arguments.pop(main))}</code>" if main else ""
    change = arguments.pop("change", None)
    rest = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{_fold('Value', value)}</dd></div>" for key, value in arguments.items()
    )
    mark = ' <span class="failed">failed</span>' if call.failed else ""
    output = _fold("Output", call.output) if call.output else '<p class="none">No output.</p>'
    return (
        f'<div class="call"><h3><span class="tool">{escape(call.tool)}</span>{beside}{mark}</h3>'
        f"{f'<dl>{rest}</dl>' if rest else ''}{_change(change) if change is not None else ''}{output}</div>"
    )


def _fold(name: str, text: str) -> str:
    lines = text.count("\n") + 1
    if lines <= OPEN_LINES and len(text) <= OPEN_CHARACTERS:
        return _pre(text)
    size = f"{lines:,} lines" if lines > 1 else f"{len(text):,} characters"
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")[:80]
    return f"<details><summary>{name}, {size} <code>{escape(first)}</code></summary>{_pre(text)}</details>"


def _pre(text: str) -> str:
    return f"<pre>\n{escape(text)}</pre>"  # the first newline in a pre is dropped by browsers


def _change(diff: str) -> str:
    """A unified diff; the signs in front say what the colours say."""
    return f'<pre class="diff">{"".join(map(_changed_line, diff.splitlines()))}</pre>'


def _changed_line(line: str) -> str:
    tag = {"+": "ins", "-": "del"}.get(line[:1], "span")
    return f"<{tag}>{escape(line)}\n</{tag}>"


def _differences(item: Item) -> str:
    """What only one of the two says, line by line, with a little around it."""
    first, second = item.first.lines(), item.second.lines()
    if first == second:
        body = '<p class="none">A and B read the same, word for word.</p>'
    else:
        rows = []
        for line in list(difflib.unified_diff(first, second, lineterm="", n=2))[2:]:
            if line.startswith("@@"):
                rows.append('<span class="gap">⋯\n</span>')
            else:
                tag, mark = {"-": ("del", "A"), "+": ("ins", "B")}.get(line[:1], ("span", " "))
                rows.append(f"<{tag}>{mark} {escape(line[1:])}\n</{tag}>")
        body = f'<pre class="diff">{"".join(rows[1:])}</pre>'
    return f'<details id="differences"><summary>Differences between A and B <kbd>D</kbd></summary>{body}</details>'
