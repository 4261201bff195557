"""Lets any number of threads share one call."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Optional


class _Call:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: Optional[BaseException] = None


class Flight:
    """At most one call at a time; who comes while it is under way waits for its outcome."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._call: Optional[_Call] = None

    def share(self, work: Callable[[], None], timeout: float) -> bool:
        """Do the work, or wait for somebody who does, and raise what it raised; false if that took too long."""
        with self._lock:
            call = self._call
            leads = call is None
            if call is None:
                call = self._call = _Call()
        if not leads:
            if not call.done.wait(timeout):
                return False
            if call.error is not None:
                # One of its own for each thread, as raising it changes it.
                raise copy.copy(call.error)
            return True
        try:
            work()
        except BaseException as error:
            # A signal that reaches the thread at work is its own affair; the others try anew.
            call.error = error if isinstance(error, Exception) else None
            raise
        finally:
            with self._lock:
                self._call = None
            call.done.set()
        return True
