"""The page for raters: two workflows side by side, one question, keys 1 2 0 U.

Rendered on the server; the one script in it turns keys into clicks, and everything works without it. A rater is who
holds the link: the token in the path. Every choice is stored before the next item is shown, so that closing the
browser loses nothing.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import get_args
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from trainer.evaluate.answer_store import AnswerStore, Choice
from trainer.evaluate.blind_test_folder import ANSWERS, Item, read_items
from trainer.evaluate.blind_test_style import KEYS_SCRIPT, STYLE
from trainer.evaluate.pair_rendering import Rendering, ShownCall

_FOLD_AT = 400
"""Longer outputs are folded, in characters."""
_MAX_FORM = 4096


class BlindTestPage:
    """The pages of one test."""

    def __init__(self, folder: Path) -> None:
        """Raises TrainerError where the folder holds no test."""
        self._header, self._items = read_items(folder)
        self.answers = AnswerStore(folder / ANSWERS)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/r/{token}", self._show, methods=["GET"]),
                Route("/r/{token}/answer", self._answer, methods=["POST"]),
                Route("/r/{token}/undo", self._undo, methods=["POST"]),
            ]
        )

    def order(self, rater: str) -> list[Item]:
        """The items in this rater's own order, the same at every call."""
        items = list(self._items)
        random.Random(f"{self._header.key_sha256}:{rater}").shuffle(items)
        return items

    async def _show(self, request: Request) -> Response:
        rater = self._rater(request)
        if rater is None:
            return _unknown_link()
        base = f"/r/{request.path_params['token']}"
        given = self.answers.answers(rater)
        done = {answer.item for answer in given}
        items = self.order(rater)
        progress = f"{len(done)}/{len(items)}"
        if self.answers.closed_at:
            return _page("Closed", f"<main><h1>This test is closed</h1><p>{progress} answered. Thank you.</p></main>")
        item = next((item for item in items if item.item not in done), None)
        undo = _undo_form(base, bool(given))
        if item is None:
            thanks = "<h1>All answered</h1><p>Thank you. The result is shown when the test is closed.</p>"
            return _page("Done", f'<main>{thanks}<p class="progress">{progress}</p>{undo}</main>')
        self.answers.saw(rater, item.item)
        return _page(f"{progress} answered", _question(item, progress, len(done), len(items), base, undo))

    async def _answer(self, request: Request) -> Response:
        rater = self._rater(request)
        if rater is None:
            return _unknown_link()
        form = await _form(request)
        item, choice = form.get("item", ""), form.get("choice", "")
        if choice not in get_args(Choice) or all(item != known.item for known in self._items):
            return _page("Not an answer", "<main><h1>Not an answer</h1><p>Go back and choose again.</p></main>", 400)
        self.answers.record(rater, item, choice)  # type: ignore[arg-type]  # checked above
        return RedirectResponse(f"/r/{request.path_params['token']}", 303)

    async def _undo(self, request: Request) -> Response:
        rater = self._rater(request)
        if rater is None:
            return _unknown_link()
        self.answers.undo(rater)
        return RedirectResponse(f"/r/{request.path_params['token']}", 303)

    def _rater(self, request: Request) -> str | None:
        return self.answers.rater_of(request.path_params["token"])


async def _form(request: Request) -> dict[str, str]:
    """A small url-encoded form; anything larger or else is empty."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM:
            return {}
    return {key: values[0] for key, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _page(title: str, body: str, status: int = 200) -> Response:
    nonce = secrets.token_urlsafe(16)
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)} · Blind test</title>'
        f'<style nonce="{nonce}">{STYLE}</style></head><body>{body}'
        f'<script nonce="{nonce}">{KEYS_SCRIPT}</script></body></html>'
    )
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(html, status, headers)


def _unknown_link() -> Response:
    return _page("Unknown link", "<main><h1>Unknown link</h1><p>Ask for your own link to the test.</p></main>", 404)


def _undo_form(base: str, possible: bool) -> str:
    state = "" if possible else " disabled"
    return f'<form method="post" action="{base}/undo"><button data-key="u"{state}><kbd>U</kbd> Undo</button></form>'


def _question(item: Item, progress: str, done: int, total: int, base: str, undo: str) -> str:
    def button(choice: str, label: str) -> str:
        return f'<button name="choice" value="{choice}" data-key="{choice}"><kbd>{choice}</kbd> {label}</button>'

    return (
        f'<header><h1>Which one is the teacher?</h1><p class="progress"><label for="p">Answered</label> '
        f'<progress id="p" value="{done}" max="{total}">{progress}</progress> <span>{progress}</span></p></header>'
        f'<main><section class="prompt" aria-label="The task"><h2>Task</h2><pre>{escape(item.prompt)}</pre></section>'
        f'<div class="sides">{_side(1, item.first)}{_side(2, item.second)}</div></main>'
        f'<footer aria-label="Your answer"><form method="post" action="{base}/answer">'
        f'<input type="hidden" name="item" value="{escape(item.item)}">'
        f"{button('1', 'The first')}{button('2', 'The second')}{button('0', 'Cannot tell')}</form>{undo}</footer>"
    )


def _side(number: int, side: Rendering) -> str:
    steps = "".join(
        f"<li>{f'<p>{escape(step.text)}</p>' if step.text else ''}{_calls(step.calls)}</li>" for step in side.steps
    )
    work = f"<ol>{steps}</ol>" if steps else '<p class="none">No tools were used.</p>'
    answer = f"<pre>{escape(side.answer)}</pre>" if side.answer else '<p class="none">No answer was given.</p>'
    name = ("first", "second")[number - 1]
    heading = f'<section class="side" aria-label="The {name}"><h2>{number}. The {name}</h2>'
    return f"{heading}{work}<h3>Answer</h3>{answer}</section>"


def _calls(calls: Sequence[ShownCall]) -> str:
    parts = []
    for call in calls:
        arguments = "".join(
            f"<dt>{escape(key)}</dt><dd><pre>{escape(value)}</pre></dd>" for key, value in call.arguments
        )
        mark = ' <span class="failed">failed</span>' if call.failed else ""
        output = f"<pre>{escape(call.output)}</pre>" if call.output else '<p class="none">No output.</p>'
        if len(call.output) > _FOLD_AT:
            output = f"<details><summary>Output, {len(call.output):,} characters</summary>{output}</details>"
        parts.append(f'<div class="call"><h4>{escape(call.tool)}{mark}</h4><dl>{arguments}</dl>{output}</div>')
    return "".join(parts)
