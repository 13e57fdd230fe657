"""The server for raters: who may ask, what is stored, which page comes next.

A rater is who holds the link. Its token stands in the address once, becomes a cookie, and leaves the address. Forms
carry a second token that no other site can know, requests must name this server as their host, bodies are small, and
answers are on disk before the reply is sent. Everything works without JavaScript.
"""

from __future__ import annotations

import hmac
import random
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, get_args
from urllib.parse import parse_qs, urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from trainer.evaluate.answer_store import MAX_NOTE, Answer, AnswerStore, Choice, Preference
from trainer.evaluate.blind_test_folder import ANSWERS, Item, read_items
from trainer.evaluate.blind_test_html import Progress, document, message, question

MAX_BODY = 32_768
"""Longest form accepted, in bytes: a note of MAX_NOTE characters fits however it is written."""


class Place(NamedTuple):
    """Where the server listens, as browsers name it."""

    hosts: frozenset[str]
    """Values of the Host header that are answered, in lower case, with the port where there is one."""
    secure: bool = False
    """Raters come over HTTPS (through a proxy), so cookies are sent over it alone."""

    @classmethod
    def of(cls, names: Iterable[str], port: int, url: str | None = None) -> Place:
        """The names of the bound address, and the address for raters where one is given."""
        hosts = {f"{name}:{port}" for name in names} | (set(names) if port == 80 else set())
        parts = urlsplit(url or "")
        return cls(
            frozenset(host.lower() for host in hosts | ({parts.netloc} if url else set())), parts.scheme == "https"
        )


class BlindTestPage:
    """The pages of one test."""

    def __init__(self, folder: Path) -> None:
        """Raises TrainerError where the folder holds no test."""
        self._header, self._items = read_items(folder)
        self._cookie = f"blind-test-{self._header.key_sha256[:8]}"  # cookies know no ports: a name for each test
        self._opened: dict[tuple[str, str], float] = {}
        self.answers = AnswerStore(folder / ANSWERS)

    def app(self, place: Place) -> ASGIApp:
        """The ASGI application."""

        async def enter(request: Request) -> Response:
            return self._enter(request, place.secure)

        routes = [
            Route("/r/{token}", enter),
            Route("/", self._next),
            Route("/done", self._done),
            Route("/item/{number:int}", self._show),
            Route("/item/{number:int}", self._save, methods=["POST"]),
        ]
        handlers: Any = {404: self._not_found, 500: self._broken}
        return _HostCheck(Starlette(routes=routes, exception_handlers=handlers), place.hosts)

    def order(self, rater: str) -> list[Item]:
        """The items in this rater's own order, the same at every call."""
        items = list(self._items)
        random.Random(f"{self._header.key_sha256}:{rater}").shuffle(items)
        return items

    # pages

    def _enter(self, request: Request, secure: bool) -> Response:
        token = request.path_params["token"]
        if self.answers.rater_of(token) is None:
            return self._not_found(request, None)
        answer = RedirectResponse("/", 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
        # lax, not strict: a link in a mail must open the page; no form of another site is let in all the same
        answer.set_cookie(self._cookie, token, httponly=True, samesite="lax", secure=secure, max_age=90 * 86400)
        return answer

    async def _next(self, request: Request) -> Response:
        rater = self._rater(request)
        return RedirectResponse(self._after(rater, 0), 303) if rater else _no_rater()

    async def _done(self, request: Request) -> Response:
        rater = self._rater(request)
        if rater is None:
            return _no_rater()
        if self.answers.closed_at:
            return _closed(self._progress(rater, 0))
        return _reply("Done", message(*_DONE, self._progress(rater, 0), ("Go back over the answers", "/item/1")))

    async def _show(self, request: Request) -> Response:
        rater = self._rater(request)
        if rater is None:
            return _no_rater()
        number = request.path_params["number"]
        progress = self._progress(rater, number)
        if self.answers.closed_at:
            return _closed(progress)
        if not 1 <= number <= len(self._items):
            return self._not_found(request, None)
        return self._question(rater, progress)

    async def _save(self, request: Request) -> Response:
        rater = self._rater(request)
        if rater is None:
            return _no_rater()
        form = await _form(request)
        if form is None:
            return _reply("Too long", message("Too long", f"A note has up to {MAX_NOTE:,} characters."), 413)
        number = request.path_params["number"]
        given = _answer(rater, form)
        order = self.order(rater)
        if not hmac.compare_digest(form.get("form", "").encode(), self._form_token(request).encode()):
            text = "This form belongs to another rater's link, or to another page. Open your own link again."
            return _reply("Not your form", message("Not your form", text), 403)
        if given is None or not 1 <= number <= len(order) or order[number - 1].item != given.item:
            return _reply("Not an answer", message("Not an answer", "Go back and choose again."), 400)
        if not self.answers.save(given._replace(seconds=self._since_opened(rater, given.item))):
            return _closed(self._progress(rater, number), "This answer came too late and was not stored.", 409)
        if form.get("autosave"):
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        if not given.complete:
            return self._question(rater, self._progress(rater, number), "Please answer both questions.", 400)
        return RedirectResponse(self._after(rater, number), 303, {"Cache-Control": "no-store"})

    def _question(self, rater: str, progress: Progress, complaint: str = "", status: int = 200) -> Response:
        item = self.order(rater)[progress.number - 1]
        self._opened.setdefault((rater, item.item), time.monotonic())
        stored = {answer.item: answer for answer in self.answers.answers(rater)}
        answer = stored.get(item.item, Answer(rater, item.item))
        token = _form_token(self.answers.raters()[rater])
        return _reply(
            f"{progress.number} of {progress.total}", question(item, answer, progress, token, complaint), status
        )

    def _not_found(self, _request: Request, _error: Exception | None) -> Response:
        return _reply("Unknown link", message("Unknown link", "Ask for your own link to the test."), 404)

    def _broken(self, _request: Request, _error: Exception) -> Response:
        text = "The last answer may not be stored. Open your link again: it goes on where your answers end."
        return _reply("Something broke", message("Something broke", text), 500)

    # who, where and how long

    def _rater(self, request: Request) -> str | None:
        token = request.cookies.get(self._cookie)
        return self.answers.rater_of(token) if token else None

    def _form_token(self, request: Request) -> str:
        return _form_token(request.cookies[self._cookie])

    def _progress(self, rater: str, number: int) -> Progress:
        done = sum(answer.complete for answer in self.answers.answers(rater))
        return Progress(number, done, len(self._items))

    def _after(self, rater: str, number: int) -> str:
        """The address of the next item without a complete answer, from the one behind `number` on, then around."""
        done = {answer.item for answer in self.answers.answers(rater) if answer.complete}
        order = self.order(rater)
        for step in range(len(order)):
            at = (number + step) % len(order)
            if order[at].item not in done:
                return f"/item/{at + 1}"
        return "/done"

    def _since_opened(self, rater: str, item: str) -> float:
        """Seconds since the item was shown or last saved in this run of the server; the wall clock does not count."""
        now = time.monotonic()
        before = self._opened.get((rater, item), now)
        self._opened[rater, item] = now
        return round(now - before, 1)


class _HostCheck:
    """Answers only requests that name this server: a page elsewhere may have pointed its own name at this address."""

    def __init__(self, inner: ASGIApp, hosts: frozenset[str]) -> None:
        self._inner, self._hosts = inner, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            named = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
            origin = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"origin"]
            foreign = [value for value in origin if urlsplit(value).netloc not in self._hosts]
            if len(named) != 1 or named[0] not in self._hosts or (scope["method"] == "POST" and foreign):
                refusal = PlainTextResponse("This server does not answer to that name; open your own link.\n", 403)
                await refusal(scope, receive, send)
                return
        await self._inner(scope, receive, send)


_DONE = ("All answered", "Thank you. You may change answers until the test is closed; the result is shown then.")


async def _form(request: Request) -> dict[str, str] | None:
    """A small url-encoded form; None for a body that is too long."""
    body = b""
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY:
        return None
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {key: values[0] for key, values in fields.items()}


def _answer(rater: str, form: dict[str, str]) -> Answer | None:
    """The answer that a form states; None where it states something else."""
    choice, preference = form.get("choice") or None, form.get("preference") or None
    if choice not in (None, *get_args(Choice)) or preference not in (None, *get_args(Preference)):
        return None
    note = form.get("note", "").replace("\r\n", "\n").replace("\0", "").strip()[:MAX_NOTE]
    return Answer(rater, form.get("item", ""), choice, preference, note)  # type: ignore[arg-type]  # checked above


def _form_token(token: str) -> str:
    return hmac.new(token.encode(), b"form", "sha256").hexdigest()


def _no_rater() -> Response:
    text = "Open your own link to the test again: this browser does not know who you are."
    return _reply("Who are you?", message("Who are you?", text), 403)


def _closed(progress: Progress, text: str = "Thank you.", status: int = 200) -> Response:
    return _reply("Closed", message("This test is closed", text, progress), status)


def _reply(title: str, body: str, status: int = 200) -> Response:
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
    return HTMLResponse(document(title, body, nonce), status, headers)
