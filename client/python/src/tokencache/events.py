"""What a watch is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Optional

import grpc

from ._convert import event_from_proto
from ._replicas import Connection, Replica
from ._status import from_rpc_error
from .errors import UnreachableError
from .types import TokenEvent


class TokenEvents(Iterator[TokenEvent]):
    """The events of a watch. Iterating waits for the next one; `close`, from any thread, ends it."""

    def __init__(self, call: Any, replica: Replica, connection: Connection) -> None:
        self._call = call
        self._replica = replica
        self._connection = connection
        self._closed = False
        # Taken by who ends the call first, and not given back.
        self._ended = threading.Lock()

    def __next__(self) -> TokenEvent:
        try:
            message = next(self._call)
        except StopIteration:
            self._end()
            raise
        except grpc.RpcError as error:
            failure = from_rpc_error(error)
            if self._closed:
                raise StopIteration from None
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self._replica.failed()
            if isinstance(failure, UnreachableError):
                self._replica.lost(self._connection)
            self._end()
            raise failure from None
        self._replica.answered(self._connection)
        return event_from_proto(message)

    def close(self) -> None:
        """End the watch."""
        self._closed = True
        self._call.cancel()
        self._end()

    def _end(self) -> None:
        if self._ended.acquire(blocking=False):
            self._replica.leave(self._connection)

    def __enter__(self) -> TokenEvents:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()
