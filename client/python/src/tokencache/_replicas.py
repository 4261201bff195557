"""Ranks the replicas of a broker by their health, and keeps the connection to each."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence
from typing import Optional

import grpc

from ._channel import Endpoint, Tls
from .errors import InvalidRequestError

_log = logging.getLogger("tokencache")

#: How many seconds a replica that failed comes after the others.
_SHUNNED = 5.0


class Connection:
    """A channel, and how many calls are under way on it. All but `channel` and `proven` is its replica's to touch."""

    def __init__(self, channel: grpc.Channel, stamp: object) -> None:
        self.channel = channel
        #: Whether it has carried an answer.
        self.proven = False
        self.stamp = stamp
        self.calls = 0


class Replica:
    """One replica: when it failed last, and the connection to it, which is made anew once it was lost.

    gRPC's own reconnecting is not relied on: it goes on only while somebody waits on the channel, which calls that fail at
    once, as they do after a failure to connect, do not. A broker that came back was found by chance. And who subscribes to
    a channel, so that a thread waits, cannot close it without a race (https://github.com/grpc/grpc/issues/18995). The
    first call on a new channel waits until it is connected or refused.
    """

    def __init__(self, endpoint: Endpoint, tls: Tls) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._shunned_until = 0.0
        self._lock = threading.Lock()
        self._current: Optional[Connection] = None
        # The current one, and those that were given up while calls were under way.
        self._open: set[Connection] = set()
        self._closed = False

    def enter(self) -> Connection:
        """Begin a call, which is to `leave` the connection; one that was given up stays open for the calls on it."""
        with self._lock:
            if self._closed:
                raise InvalidRequestError("the client is closed")
            stamp = self._tls.stamp() if self._endpoint.secure else None
            current = self._current
            if current is None or (stamp is not None and stamp != current.stamp):
                current = self._connect(stamp)
            current.calls += 1
            return current

    def leave(self, connection: Connection) -> None:
        """End a call."""
        with self._lock:
            connection.calls -= 1
            self._dispose(connection)

    def lost(self, connection: Connection) -> None:
        """Give a connection up: the next call makes a new one."""
        with self._lock:
            if self._current is connection:
                self._current = None
                self._dispose(connection)

    def close(self) -> None:
        """Close all connections; calls under way fail."""
        with self._lock:
            self._closed = True
            self._current = None
            while self._open:
                self._open.pop().channel.close()

    def _connect(self, stamp: object) -> Connection:
        """Make a new connection, to take the place of the current one."""
        current = self._current
        try:
            made = Connection(self._endpoint.connect(self._tls), stamp)
        except InvalidRequestError as error:
            if current is None:
                raise
            # The one that there is will do until the files change again.
            _log.warning("the files of TLS changed, and cannot be used: %s", error)
            current.stamp = stamp
            return current
        self._open.add(made)
        self._current = made
        self._dispose(current)
        return made

    def _dispose(self, connection: Optional[Connection]) -> None:
        """Close a connection that was given up, after the last call on it."""
        if connection in self._open and connection is not self._current and connection.calls == 0:
            self._open.remove(connection)
            connection.channel.close()

    def failed(self) -> None:
        """Ask the others first for a while."""
        self._shunned_until = time.monotonic() + _SHUNNED

    def answered(self, connection: Connection) -> None:
        """Ask it as any other."""
        connection.proven = True
        self._shunned_until = 0.0

    def shunned_until(self) -> float:
        """When it counts as any other again; zero if it does."""
        return self._shunned_until if self._shunned_until > time.monotonic() else 0.0


class Replicas:
    """All replicas. Clients begin with different ones, and stay with theirs while it is well."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._replicas = random.sample(list(replicas), len(replicas))

    def ranked(self) -> list[Replica]:
        """Return the replicas, the one to ask first."""
        return sorted(self._replicas, key=Replica.shunned_until)

    def close(self) -> None:
        """Close the connections."""
        for replica in self._replicas:
            replica.close()
