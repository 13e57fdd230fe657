"""HTTP connections that end when a client takes too long to say what it wants; uvicorn waits for ever.

Who is too slow, and what is no HTTP, is refused in the shape of the Messages API, too.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from trainer.rollout.request_guard import error_body

HEADER_SECONDS = 15.0
"""Longest time from a connection, or from the first byte of a further request, to the end of its headers."""


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with a limit on the time that headers take."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._too_late)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waiting = self.cycle is None or self.cycle.response_complete
        if not waiting and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        elif waiting and self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._too_late)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "invalid_request_error", msg)

    def _too_late(self) -> None:
        """Says so where a request has begun and can still be answered; ends the connection in any case."""
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(408, "timeout_error", f"the headers did not arrive within {HEADER_SECONDS:g} seconds")
        else:
            self.transport.abort()

    def _refuse(self, status: int, kind: str, message: str) -> None:
        body = error_body(kind, message)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        head = h11.Response(status_code=status, headers=[*headers, (b"connection", b"close")])
        for part in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(part) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)
