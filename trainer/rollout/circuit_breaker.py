"""Spares people the wait for a local server that is down: after a few failures in a row it is not asked for a while.

closed --n failures--> open --pause--> half open: one request may try --it works--> closed
                         ^--------------------------------------- it fails --'
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "half_open", "open"]


class CircuitBreaker:
    """The breaker of one server; for one event loop.

    Args:
        failures: failures in a row that open it.
        pause: seconds until a request may try again.
    """

    def __init__(self, failures: int, pause: float, now: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._pause = pause
        self._now = now
        self._failed = 0
        self._opened = 0.0
        self._probing = False

    @property
    def state(self) -> State:
        """Where it stands now."""
        if self._failed < self._limit:
            return "closed"
        return "half_open" if self._probing or self._now() - self._opened >= self._pause else "open"

    def admits(self) -> bool:
        """Whether the server may be asked; whoever is admitted must call one or more of the three methods below."""
        state = self.state
        if state == "half_open" and not self._probing:
            self._probing = True
            return True
        return state == "closed"

    def succeeded(self) -> None:
        """The server answered, whatever it said."""
        self._failed, self._probing = 0, False

    def failed(self) -> None:
        """The server did not answer."""
        self._failed += 1
        self._probing = False
        if self._failed >= self._limit:
            self._opened = self._now()

    def abandoned(self) -> None:
        """It is not known, or known already: the client left, or the server was not asked in the end."""
        self._probing = False
