"""Asks the broker whether an answer other than a 401 means a dead token."""

from __future__ import annotations

import time
from functools import partial
from typing import Optional

from ._flight import Flight
from .client import Client
from .errors import UnavailableError
from .types import Selector, Token

#: How long a verdict holds, in seconds: many requests are answered alike at the same time.
_HOLDS = 1.0

#: Token, status and error code.
_Case = tuple[str, int, str]


class Verdicts:
    """The broker's last verdict. Any number of threads may report the same: there is one call."""

    def __init__(self, client: Client, selector: Selector) -> None:
        self._client = client
        self._selector = selector
        self._flight = Flight()
        self._last: tuple[_Case, bool, float] = (("", 0, ""), False, 0.0)

    def is_dead(self, token: Token, status: int, error: str, timeout: Optional[float]) -> bool:
        """Report an answer, and return whether the token is out of service."""
        case = (token.fingerprint, status, error)
        end = time.monotonic() + (self._client.deadline if timeout is None else timeout)
        while True:
            known, dead, until = self._last
            left = end - time.monotonic()
            if known == case and time.monotonic() < until:
                return dead
            # Who waits for another case's call asks again afterwards.
            if left <= 0 or not self._flight.share(partial(self._report, token, case, left), left):
                raise UnavailableError("the report was not answered in time")

    def _report(self, token: Token, case: _Case, timeout: float) -> None:
        _, status, error = case
        told = self._client.invalidate(
            self._selector, generation=token.generation, http_status=status, error=error, timeout=timeout
        )
        dead = told.invalidated or told.min_generation > token.generation
        self._last = (case, dead, time.monotonic() + _HOLDS)
