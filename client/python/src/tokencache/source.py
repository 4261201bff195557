"""Keeps one token fresh, for any number of threads."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from functools import partial
from types import TracebackType
from typing import Optional

from ._clock import BrokerClock
from ._flight import Flight
from ._ledger import Ledger
from ._verdicts import Verdicts
from .client import Client
from .errors import (
    InvalidRequestError,
    ThrottledError,
    TokencacheError,
    UnavailableError,
    UnreachableError,
)
from .events import TokenEvents
from .types import Invalidated, SelectorLike, Token, TokenEvent, as_selector

_log = logging.getLogger("tokencache")

#: Between two attempts to reach the broker, in seconds: a random part of what doubles from the first to the second.
_FIRST_PAUSE = 0.1
_LAST_PAUSE = 5.0

#: The longest that the broker can have a watcher wait, in seconds.
_LONGEST_PAUSE = 60.0

#: The broker's reason not to believe a report: the upstream refuses one fresh token after another.
_UNBELIEVABLE = "TOO_MANY_INVALIDATIONS"

#: How long such a report is not repeated if the broker does not say, in seconds.
_PATIENCE = 5.0


class TokenSource:
    """Keeps one token fresh: watches it in a daemon thread, which begins with the first use.

    It never hands out a token that is expired on the broker's clock, that was reported here, or that the broker has
    invalidated. While the broker is away, the last token serves until it expires. As a `Client`, it is to be made in the
    process that uses it.
    """

    def __init__(self, client: Client, selector: SelectorLike) -> None:
        self.selector = as_selector(selector)
        self._client = client
        self._lock = threading.RLock()
        self._ledger = Ledger(BrokerClock())
        self._flight = Flight()
        self._verdicts = Verdicts(client, self.selector)
        self._thread: Optional[threading.Thread] = None
        self._pid: Optional[int] = None
        self._closed = threading.Event()
        self._events: Optional[TokenEvents] = None
        # The token whose report was not believed, and until when (monotonic) it is not reported again.
        self._unbelieved: tuple[str, float] = ("", 0.0)

    def __repr__(self) -> str:
        return f"TokenSource({self.selector!r})"

    def current(self) -> Optional[Token]:
        """Return the token, or ``None`` if no valid one is held. It asks nobody and takes microseconds."""
        if self._pid is None:
            self._start()
        return self._ledger.usable()

    def get(self, timeout: Optional[float] = None) -> Token:
        """Return the token; if no valid one is held, ask the broker, for `timeout` seconds or the client's deadline.

        However many threads ask, there is one call.
        """
        token = self.current()
        return token if token is not None else self._obtain(timeout)

    def rejected(
        self, token: Token, status: int = 401, *, error: str = "", timeout: Optional[float] = None
    ) -> Optional[Token]:
        """Report that the upstream refused a token, with this HTTP status, and return its replacement.

        ``None`` if there is none because the broker does not take the answer for a dead token: its ``reject_on`` says
        so, or the upstream refuses one fresh token after another. `error` is the upstream's code. Any number of threads
        may report one token: there is one call.
        """
        self.current()
        if status not in (0, 401) and not self._verdicts.is_dead(token, status, error, timeout):
            return None
        with self._lock:
            held = self._ledger.usable()
            if held is not None and held.fingerprint != token.fingerprint:
                return held
            if self._is_unbelieved(token):
                return None
            self._ledger.report(token)
        try:
            return self._obtain(timeout, reporting=token)
        except ThrottledError as refusal:
            if refusal.reason == _UNBELIEVABLE:
                return None
            raise

    def close(self) -> None:
        """End the watch. What is held can still be read."""
        self._closed.set()
        with self._lock:
            events, thread = self._events, self._thread
        if events is not None:
            events.close()
        if thread is not None and thread is not threading.current_thread() and self._pid == os.getpid():
            thread.join(timeout=1.0)

    def __enter__(self) -> TokenSource:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    # Asking.

    def _obtain(self, timeout: Optional[float], reporting: Optional[Token] = None) -> Token:
        """Ask until a valid token is held, which takes more than one call only if others were under way."""
        end = time.monotonic() + (self._client.deadline if timeout is None else timeout)
        for _ in range(3):
            left = end - time.monotonic()
            if left <= 0:
                break
            try:
                if not self._flight.share(partial(self._ask, left), left):
                    break
            except TokencacheError:
                # A report that was not believed gives back what was held; a watch may have brought one meanwhile.
                if reporting is not None or self._ledger.usable() is None:
                    raise
            token = self._ledger.usable()
            if token is not None and (reporting is None or token.fingerprint != reporting.fingerprint):
                return token
        raise UnavailableError("no valid token was to be had in time")

    def _ask(self, timeout: Optional[float] = None) -> None:
        with self._lock:
            rejected, seen = self._ledger.pending, self._ledger.seen
        generation = 0 if rejected is None else rejected.generation
        asked_at = self._ledger.clock.read()
        try:
            response = self._client.get_token(
                self.selector,
                # It counts as seen if it was rejected, and that nothing was modified would be of no use as an answer.
                if_generation_not=0 if seen == generation else seen,
                rejected_generation=generation,
                timeout=timeout,
            )
        except ThrottledError as refusal:
            if rejected is not None and refusal.reason == _UNBELIEVABLE:
                with self._lock:
                    self._unbelieved = (rejected.fingerprint, time.monotonic() + (refusal.retry_after or _PATIENCE))
                    self._ledger.absolve(rejected)
            raise
        with self._lock:
            self._ledger.answered(response, max(seen, generation), asked_at)

    def _is_unbelieved(self, token: Token) -> bool:
        fingerprint, until = self._unbelieved
        return fingerprint == token.fingerprint and time.monotonic() < until

    # Watching.

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._closed.is_set():
                return
            self._pid = os.getpid()
            name = f"tokencache {self.selector.credential}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        failures = 0
        # Whoever began with a call of its own has asked already.
        asks = self._ledger.usable() is None
        while not self._closed.is_set():
            try:
                if self._watch(asks):
                    failures = 0
                pause = 0.0
            except TokencacheError as error:
                pause = min(error.retry_after or 0.0, _LONGEST_PAUSE)
                _log.debug("the watch of %s ended: %s", self.selector.credential, error)
            except Exception:
                # Whatever it is, ending the thread would leave the token to grow old.
                pause = 0.0
                _log.exception("the watch of %s failed", self.selector.credential)
            asks = True
            limit = min(_LAST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures, 10))
            failures += 1
            self._closed.wait(max(pause, random.uniform(_FIRST_PAUSE, max(limit, 2 * _FIRST_PAUSE))))

    def _watch(self, asks: bool) -> bool:
        """Ask, which tells the broker's time as well, then watch until that ends; whether it told anything."""
        try:
            if asks:
                self._flight.share(self._ask, self._client.deadline)
        except (UnreachableError, InvalidRequestError):
            raise
        except TokencacheError as error:
            # A watch tells when that is over.
            _log.debug("no token of %s: %s", self.selector.credential, error)
        told = False
        with self._client.watch([self.selector]) as events:
            with self._lock:
                self._events = events
            if self._closed.is_set():
                return told
            for event in events:
                told = True
                self._heed(event)
        return told

    def _heed(self, event: TokenEvent) -> None:
        with self._lock:
            if isinstance(event.update, Token):
                self._ledger.watched(event.update)
            elif isinstance(event.update, Invalidated):
                self._ledger.invalidated(event.update.min_generation)
