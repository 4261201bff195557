"""The broker's clock, as far as it is known here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Optional


class Reading(NamedTuple):
    """What this machine's clocks said at one moment."""

    wall: float
    monotonic: float


def read_clocks() -> Reading:
    """Read this machine's clocks."""
    return Reading(time.time(), time.monotonic())


class BrokerClock:
    """Tells the broker's time from its last answer and what has passed since; never too early a time."""

    def __init__(self, read: Callable[[], Reading] = read_clocks) -> None:
        self.read = read
        self._anchor: Optional[tuple[float, Reading]] = None

    def learn(self, server_time: float, asked_at: Reading) -> None:
        """Take over what an answer says, which was at most as long under way as has passed since it was asked for."""
        self._anchor = (server_time, asked_at)

    def now(self) -> float:
        """Return the broker's time, in seconds since the epoch; this machine's until the broker has told.

        Of two ways to tell what has passed, that which says more: the monotonic clock stands still while a machine
        sleeps, and the wall clock may be set back.
        """
        read, anchor = self.read(), self._anchor
        if anchor is None:
            return read.wall
        server_time, asked_at = anchor
        return server_time + max(read.wall - asked_at.wall, read.monotonic - asked_at.monotonic, 0.0)
