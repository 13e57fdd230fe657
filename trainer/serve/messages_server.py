"""`/v1/messages` on llama.cpp: Claude Code, or any client of the Messages API, talks to a local student.

Nothing is stored and nothing of what passes is logged. A slot works for one request; when the client hangs up, it is
given up at the next token. Errors have the shape of Anthropic's, so that clients retry, shorten or give up as usual.
"""

from __future__ import annotations

import asyncio
import codecs
import hmac
import threading
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message as Sent
from starlette.types import Receive, Scope, Send

from trainer.errors import TrainerError
from trainer.export.llama_runtime import GgufModel
from trainer.export.student_prompt import StudentPrompt
from trainer.rollout.student_view import STRICT_HEADER
from trainer.serve.message_reply import PING, Ending, Reply, event, has_malformed
from trainer.serve.message_request import (
    BadRequest,
    CountRequest,
    MessagesRequest,
    Prompt,
    Shape,
    parse_request,
    student_prompt_ids,
)
from trainer.serve.slots import Overloaded, Slot, SlotPool
from trainer.serve.turn_reader import Part, TurnReader

Result = TypeVar("Result")
MAX_BODY = 32 * 1024 * 1024
"""Largest request, in bytes; Anthropic's API takes no more either."""
BODY_SECONDS = 30.0
"""Longest time for a request's body to arrive."""
SEND_SECONDS = 60.0
"""Longest time for a client to take a piece of the reply."""
GATHER_SECONDS = 0.02
"""Shortest time between two pieces of a reply: a small model writes more tokens a second than are worth an event."""
PING_SECONDS = 10.0
"""Silence after which a streaming client is told that its request is alive."""
GONE = 499
"""Status of an answer that nobody reads."""
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    529: "overloaded_error",
}


class _MalformedCall(Exception):
    """The student wrote a call that cannot be read, and the client wants none such."""


class Refused(HTTPException):
    """An answer that is an error."""


def _error(status: int, message: str) -> Response:
    """An error in Anthropic's shape."""
    identity = f"req_{uuid.uuid4().hex[:24]}"
    error = {"type": _KINDS.get(status, "api_error"), "message": message}
    headers = {"request-id": identity} | ({"retry-after": "2"} if status == 529 else {})
    return JSONResponse({"type": "error", "error": error, "request_id": identity}, status, headers)


@dataclass(frozen=True)
class Work:
    """A request that is ready to be worked on."""

    prompt: Prompt
    limit: int
    """Most tokens to write."""
    temperature: float
    stops: tuple[str, ...]
    strict: bool
    """Whether a call that cannot be read is an error; otherwise the client gets it as text."""


class _Streamed(StreamingResponse):
    """Events as they come; whatever the request holds is given back when it is over, however it ends."""

    def __init__(self, events: AsyncIterator[bytes], held: AsyncExitStack) -> None:
        headers = {"cache-control": "no-cache", "request-id": f"req_{uuid.uuid4().hex[:24]}"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_time(sent: Sent) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(sent)

        try:
            with suppress(TimeoutError):  # the client has stopped reading: uvicorn closes the connection
                await super().__call__(scope, receive, in_time)
        finally:
            with anyio.CancelScope(shield=True):
                await self._held.aclose()


class MessagesServer:
    """One model in service.

    Args:
        weights: the loaded GGUF.
        pool: its slots.
        context: tokens of a slot.
        prompt: what the student was trained to read first.
        name: model name that replies carry.
        token: what clients must send as `x-api-key` or bearer token; empty asks for none.
        max_output: most tokens of a reply.
    """

    def __init__(
        self,
        weights: GgufModel,
        pool: SlotPool,
        context: int,
        prompt: StudentPrompt,
        *,
        name: str,
        token: str = "",
        max_output: int = 4096,
    ) -> None:
        self._weights = weights
        self._pool = pool
        self._context = context
        self._prompt = prompt
        self._name = name
        self._token = token.encode()
        self._max_output = max_output
        self._threads = ThreadPoolExecutor(pool.size, "slot")
        self._piece = lru_cache(maxsize=1 << 16)(weights.piece)
        self._started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def app(self) -> Starlette:
        """The ASGI application."""

        return Starlette(
            routes=[
                Route("/v1/messages", self._messages, methods=["POST"]),
                Route("/v1/messages/count_tokens", self._count_tokens, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/v1/models/{name:path}", self._model),
                Route("/health", self._health),
            ],
            exception_handlers={HTTPException: _as_error, Exception: _as_failure},
        )

    def close(self) -> None:
        """Waits for the threads of the slots; to be called when the application has ended."""
        self._threads.shutdown()

    async def _messages(self, request: Request) -> Response:
        body, asked = await self._read(request, MessagesRequest)
        prompt = await self._prepared(body, asked)
        room = self._context - len(prompt.ids)
        if room < 1:
            most = self._context - 1
            raise Refused(400, f"prompt is too long: {len(prompt.ids)} tokens > {most} maximum")
        work = Work(
            prompt,
            limit=min(asked.max_tokens, self._max_output, room),
            temperature=asked.temperature or 0.0,
            stops=tuple(asked.stop_sequences or ()),
            strict=STRICT_HEADER in request.headers,
        )
        async with AsyncExitStack() as stack:
            slot = await self._slot(request, prompt.ids, stack)
            reply = Reply(self._name, prompt.root, len(prompt.ids), slot.shared(prompt.ids))
            if asked.stream:
                events = self._events(slot, work, reply)
                stack.push_async_callback(events.aclose)  # the slot's thread ends before the slot is given back
                return _Streamed(events, stack.pop_all())
            return await self._whole(request, slot, work, reply)
        raise AssertionError  # the stack swallows nothing

    async def _slot(self, request: Request, ids: list[int], stack: AsyncExitStack) -> Slot:
        """Borrows a slot for as long as `stack` lives; the place of a client that hangs up while it waits is free."""
        try:
            if self._pool.free:
                return await stack.enter_async_context(self._pool.borrow(ids))
            async with _unless_gone(request, stack.enter_async_context(self._pool.borrow(ids))) as borrowing:
                if borrowing.done():
                    return await borrowing
        except Overloaded:
            raise Refused(529, "Overloaded: every slot is busy, and enough requests wait already") from None
        raise Refused(GONE, "the client hung up")

    async def _events(self, slot: Slot, work: Work, reply: Reply) -> AsyncGenerator[bytes]:
        """The streamed reply; what goes wrong after its first byte is an `error` event."""
        yield reply.start()
        try:
            async with aclosing(self._written(slot, work)) as steps:
                async for step in steps:
                    if step is None:
                        yield PING
                    elif isinstance(step, Ending):
                        yield reply.finish(step)
                    else:
                        yield reply.add(step)
        except _MalformedCall:
            yield event("error", error={"type": "api_error", "message": "the model wrote a malformed tool call"})
        except TrainerError as error:
            yield event("error", error={"type": "api_error", "message": str(error)})

    async def _whole(self, request: Request, slot: Slot, work: Work, reply: Reply) -> Response:
        """The reply in one piece; given up when the client hangs up."""

        async def collect() -> None:
            async with aclosing(self._written(slot, work)) as steps:
                async for step in steps:
                    if isinstance(step, Ending):
                        reply.finish(step)
                    elif step is not None:
                        reply.add(step)

        try:
            async with _unless_gone(request, collect()) as working:
                if not working.done():
                    raise Refused(GONE, "the client hung up")
                await working
        except _MalformedCall:
            raise Refused(500, "the model wrote a malformed tool call") from None
        except TrainerError as error:
            raise Refused(500, str(error)) from None
        return JSONResponse(reply.message, headers={"request-id": f"req_{uuid.uuid4().hex[:24]}"})

    async def _written(self, slot: Slot, work: Work) -> AsyncGenerator[list[Part] | Ending | None]:
        """What the slot's thread writes; None where nothing came for a while."""
        loop = asyncio.get_running_loop()
        steps: asyncio.Queue[list[Part] | Ending | Exception] = asyncio.Queue()
        given_up = threading.Event()

        def write() -> None:
            gathered: list[Part] = []
            sent = 0.0
            try:
                for step in self._turn(slot, work, given_up):
                    if isinstance(step, Ending):
                        loop.call_soon_threadsafe(steps.put_nowait, gathered)
                        loop.call_soon_threadsafe(steps.put_nowait, step)
                        return
                    gathered += step
                    if (now := time.monotonic()) - sent >= GATHER_SECONDS:
                        loop.call_soon_threadsafe(steps.put_nowait, gathered)
                        gathered, sent = [], now
            except Exception as error:
                loop.call_soon_threadsafe(steps.put_nowait, error)

        thread = loop.run_in_executor(self._threads, write)
        try:
            while True:
                try:
                    async with asyncio.timeout(PING_SECONDS):
                        step = await steps.get()
                except TimeoutError:
                    yield None
                    continue
                if isinstance(step, Exception):
                    raise step
                yield step
                if isinstance(step, Ending):
                    return
        finally:
            given_up.set()
            with anyio.CancelScope(shield=True):
                await asyncio.wait({thread})

    def _turn(self, slot: Slot, work: Work, given_up: threading.Event) -> Iterator[list[Part] | Ending]:
        """Writes one turn; runs in the slot's thread."""
        reader = TurnReader(work.stops, single=work.prompt.single)
        reader.feed(work.prompt.forced)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        count, cut = 0, False
        with closing(slot.generate(work.prompt.ids, work.temperature, given_up)) as tokens:
            for token in tokens:
                count += 1
                if self._weights.ends_generation(token):
                    break
                if parts := reader.feed(decoder.decode(self._piece(token))):
                    if work.strict and has_malformed(parts):
                        raise _MalformedCall
                    yield parts
                if reader.ended:
                    break
                if count >= work.limit:
                    cut = True
                    break
        rest = reader.feed(decoder.decode(b"", True)) + reader.finish(cut=cut)
        if work.strict and has_malformed(rest):
            raise _MalformedCall
        if rest:
            yield rest
        yield Ending(count, cut, reader.stopped_by)

    async def _count_tokens(self, request: Request) -> Response:
        body, asked = await self._read(request, CountRequest)
        prompt = await self._prepared(body, asked)
        return JSONResponse({"input_tokens": len(prompt.ids)})

    async def _models(self, request: Request) -> Response:
        self._admit(request)
        entry = self._described()
        return JSONResponse({"data": [entry], "has_more": False, "first_id": entry["id"], "last_id": entry["id"]})

    async def _model(self, request: Request) -> Response:
        self._admit(request)
        if request.path_params["name"] != self._name:
            raise Refused(404, f"model: {request.path_params['name'][:100]}; this server has {self._name}")
        return JSONResponse(self._described())

    def _described(self) -> dict[str, Any]:
        return {"type": "model", "id": self._name, "display_name": self._name, "created_at": self._started}

    async def _health(self, _: Request) -> Response:
        return JSONResponse(
            {"status": "ok", "slots": self._pool.size, "free": self._pool.free, "waiting": self._pool.waiting}
        )

    def _admit(self, request: Request) -> None:
        """Raises Refused for a client without the token, and for web pages, which have no business here."""
        if self._token:
            scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
            given = request.headers.get("x-api-key") or (bearer if scheme.lower() == "bearer" else "")
            if not hmac.compare_digest(given.encode("latin-1", "replace"), self._token):
                raise Refused(401, "invalid x-api-key")
        elif "origin" in request.headers:
            raise Refused(403, "requests of web pages are refused; start the server with --token to admit them")

    async def _read(self, request: Request, shape: type[Shape]) -> tuple[dict[str, Any], Shape]:
        """Admits the client and reads what it asks. Raises Refused for everything that is wrong with it."""
        self._admit(request)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > MAX_BODY:
                        raise Refused(413, f"Request exceeds the maximum size of {MAX_BODY} bytes")
                    chunks.append(chunk)
        except TimeoutError:
            raise Refused(408, f"the request's body did not arrive within {BODY_SECONDS:g} seconds") from None
        except ClientDisconnect:
            raise Refused(400, "the client hung up") from None
        try:
            return parse_request(b"".join(chunks), shape)
        except BadRequest as error:
            raise Refused(400, str(error)) from None

    async def _prepared(self, body: dict[str, Any], asked: CountRequest) -> Prompt:
        try:
            return await asyncio.to_thread(student_prompt_ids, body, asked, self._prompt, self._weights)
        except BadRequest as error:
            raise Refused(400, str(error)) from None


@asynccontextmanager
async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> AsyncIterator[asyncio.Task[Result]]:
    """Yields work that is done, or not because the client has hung up; it is cancelled when the block ends."""

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        yield working
    finally:
        gone.cancel()
        working.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({working, gone})


async def _as_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail)


async def _as_failure(_: Request, error: Exception) -> Response:
    return _error(500, f"internal error ({type(error).__name__})")
