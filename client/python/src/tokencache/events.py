"""What a watch is told."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Optional

import grpc

from ._convert import event_from_proto
from ._replicas import Replica
from ._status import from_rpc_error
from .types import TokenEvent


class TokenEvents(Iterator[TokenEvent]):
    """The events of a watch. Iterating waits for the next one; `close`, from any thread, ends it."""

    def __init__(self, call: Any, replica: Replica) -> None:
        self._call = call
        self._replica = replica
        self._closed = False

    def __next__(self) -> TokenEvent:
        try:
            message = next(self._call)
        except grpc.RpcError as error:
            if self._closed:
                raise StopIteration from None
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self._replica.failed()
            raise from_rpc_error(error) from None
        self._replica.answered()
        return event_from_proto(message)

    def close(self) -> None:
        """End the watch."""
        self._closed = True
        self._call.cancel()

    def __enter__(self) -> TokenEvents:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()
