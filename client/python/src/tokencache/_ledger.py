"""What a source knows of its token: which one it holds and which ones it must not hand out. No input or output."""

from __future__ import annotations

from collections import deque
from typing import Optional

from ._clock import BrokerClock, Reading
from .types import Freshness, Token, TokenResponse

#: How many reported tokens are remembered; the broker does not return to older ones.
_REMEMBERED = 16


class Ledger:
    """The state of one source. All but `usable` is called under the source's lock."""

    def __init__(self, clock: Optional[BrokerClock] = None) -> None:
        self.clock = clock or BrokerClock()
        #: The highest generation that was seen; 0: none.
        self.seen = 0
        #: The lowest generation that may be handed out.
        self.floor = 0
        #: The token that was reported and not replaced since.
        self.pending: Optional[Token] = None
        self._reported: deque[str] = deque(maxlen=_REMEMBERED)
        # One attribute, so that reading it needs no lock.
        self._held: Optional[tuple[Token, float]] = None

    def usable(self) -> Optional[Token]:
        """Return the token, if there is one that is valid."""
        held = self._held
        return held[0] if held is not None and held[1] > self.clock.now() else None

    def watched(self, token: Token) -> None:
        """Take over a token that a watch told of; an older one only where no valid one is held."""
        if token.generation >= self.seen or self.usable() is None:
            self._take(token)

    def invalidated(self, min_generation: int) -> None:
        """Hand out nothing below a generation from now on."""
        self.floor = max(self.floor, min_generation)
        if self._held is not None and self._held[0].generation < self.floor:
            # An answer that was on its way may still bring it.
            self._reported.append(self._held[0].fingerprint)
            self._held = None

    def answered(self, response: TokenResponse, named: int, asked_at: Reading) -> None:
        """Take over what the broker answered to a request that named a generation as seen."""
        if response.server_time is not None:
            self.clock.learn(response.server_time.timestamp(), asked_at)
        token = response.token
        if token is None:
            return
        verified = response.freshness is Freshness.VERIFIED
        is_older = token.generation < max(self.seen, self.floor) and token.fingerprint not in self._reported
        if is_older and verified and named == self.seen:
            # The broker looked for the higher one and says that it does not exist any more: it counts anew, and may have
            # come to the number of the one that was reported.
            self.seen = self.floor = token.generation
            self._held = None
        self.watched(token)

    def report(self, token: Token) -> None:
        """Never hand out a token again: the upstream refused it."""
        self._reported.append(token.fingerprint)
        self.pending = token
        self.floor = max(self.floor, token.generation + 1)
        if self._held is not None and self._held[0].fingerprint == token.fingerprint:
            self._held = None

    def absolve(self, token: Token) -> None:
        """Take a report back: the broker does not believe it, and has nothing else to give."""
        while token.fingerprint in self._reported:
            self._reported.remove(token.fingerprint)
        if self.pending is token:
            self.pending = None
        self.floor = min(self.floor, token.generation)
        if self.usable() is None:
            self._take(token)

    def _take(self, token: Token) -> None:
        if token.generation < self.floor or token.fingerprint in self._reported:
            return
        expires_at = token.expires_at.timestamp()
        if expires_at <= self.clock.now():
            return
        self.seen = max(self.seen, token.generation)
        # Being told again of the one that is held, as a watch does at first, does not make it another.
        if self._held is None or _identity(self._held[0]) != _identity(token):
            self._held = (token, expires_at)
        self.pending = None


def _identity(token: Token) -> tuple[object, ...]:
    return token.generation, token.fingerprint, token.expires_at
