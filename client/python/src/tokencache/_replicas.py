"""Ranks the replicas of a broker by their health."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import grpc

from . import _channel

#: How many seconds a replica that failed comes after the others.
_SHUNNED = 5.0


class Replica:
    """One replica, and when it failed last."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self._shunned_until = 0.0

    def failed(self) -> None:
        """Ask the others first for a while."""
        self._shunned_until = time.monotonic() + _SHUNNED

    def answered(self) -> None:
        """Ask it as any other."""
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
        """Close the channels."""
        for replica in self._replicas:
            _channel.close(replica.channel)
