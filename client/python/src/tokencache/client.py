"""The client of the broker: gets tokens, watches them, reports the ones that an upstream refused."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Optional, TypeVar, Union

import grpc

from . import _convert
from ._channel import Endpoint, Tls
from ._proto import token_pb2 as pb
from ._replicas import Connection, Replica, Replicas
from ._status import from_rpc_error
from .errors import InvalidRequestError, TokencacheError, UnavailableError, UnreachableError
from .events import TokenEvents
from .secret import Secret
from .types import Invalidation, SelectorLike, TokenResponse, as_selector

#: Where the broker's client API is unless told otherwise.
DEFAULT_ENDPOINT = "http://127.0.0.1:50051"

#: How many seconds a call may take unless told otherwise: longer than the broker gives an upstream.
DEFAULT_DEADLINE = 15.0

#: The longest pause before the second attempt if the broker does not ask for one, in seconds.
_PAUSE = 0.1

_Response = TypeVar("_Response")

_Metadata = tuple[tuple[str, Union[str, bytes]], ...]

#: An identity: a text, or what gives the present one before each call.
Identity = Union[str, Secret, Callable[[], str]]


class Client:
    """A client of the broker, for any number of threads.

    It connects at its first call. gRPC's threads do not survive a fork: make the client, or at least its first call, in
    the process that uses it. A client that was used before the fork refuses to work in the child.
    """

    def __init__(
        self,
        endpoints: Union[str, Sequence[str]] = DEFAULT_ENDPOINT,
        *,
        deadline: float = DEFAULT_DEADLINE,
        api_key: Optional[Identity] = None,
        ca_file: Optional[str] = None,
        cert_file: Optional[str] = None,
        key_file: Optional[str] = None,
    ) -> None:
        """Name the replicas of the broker: ``http://host:port``, ``https://host:port`` or ``unix:PATH``.

        `deadline` is how many seconds a call may take; the broker is told. `api_key` is sent as ``authorization: Bearer``.
        The files are PEM, for ``https``: whom to trust (else the system's), and who this client is. They are read again
        for the first call after one changed.
        """
        names = [endpoints] if isinstance(endpoints, str) else list(endpoints)
        if not names:
            raise InvalidRequestError("a client needs an endpoint")
        if not deadline > 0:
            raise InvalidRequestError("the deadline is not positive")
        if (cert_file is None) != (key_file is None):
            raise InvalidRequestError("cert_file and key_file go together")
        self.deadline = float(deadline)
        self._endpoints = [Endpoint.parse(name) for name in names]
        self._tls = Tls(ca_file, cert_file, key_file)
        self._api_key = Secret(api_key) if isinstance(api_key, str) else api_key
        self._lock = threading.Lock()
        self._replicas: Optional[Replicas] = None
        self._pid: Optional[int] = None
        self._closed = False

    def __repr__(self) -> str:
        return f"Client({[endpoint.target for endpoint in self._endpoints]!r}, deadline={self.deadline})"

    def get_token(
        self,
        selector: SelectorLike,
        *,
        min_validity: float = 0.0,
        if_generation_not: int = 0,
        rejected_generation: int = 0,
        timeout: Optional[float] = None,
    ) -> TokenResponse:
        """Get a token; the name of a credential is a selector.

        It is valid for `min_validity` seconds at least. `if_generation_not`: answer without a token if this is still the
        current generation. `rejected_generation`: the upstream refused it; report it and get its replacement. `timeout`
        stands in for the client's deadline.
        """
        wanted = as_selector(selector)
        request = pb.GetTokenRequest(
            credential=wanted.credential,
            scopes=wanted.scopes,
            audience=wanted.audience,
            resources=wanted.resources,
            min_validity=_convert.duration_to_proto(min_validity),
            if_generation_not=if_generation_not,
            rejected_generation=rejected_generation,
        )
        response = self._call("GetToken", request, pb.GetTokenResponse.FromString, timeout)
        return _convert.response_from_proto(response, conditional=if_generation_not != 0)

    def invalidate(
        self,
        selector: SelectorLike,
        *,
        generation: Optional[int] = None,
        fingerprint: Optional[str] = None,
        http_status: int = 0,
        error: str = "",
        description: str = "",
        timeout: Optional[float] = None,
    ) -> Invalidation:
        """Report that the upstream refused a token, named by its generation or its fingerprint.

        `http_status` is the upstream's answer, 401 if it is not told; `error` its code (``error`` of
        ``WWW-Authenticate``), `description` is for the operator.
        """
        if (generation is None) == (fingerprint is None):
            raise InvalidRequestError("either a generation or a fingerprint names the token")
        wanted = as_selector(selector)
        request = pb.InvalidateTokenRequest(
            credential=wanted.credential,
            scopes=wanted.scopes,
            audience=wanted.audience,
            resources=wanted.resources,
            http_status=http_status,
            error=error,
            description=description,
        )
        if generation is not None:
            request.generation = generation
        if fingerprint is not None:
            request.fingerprint = fingerprint
        response = self._call("InvalidateToken", request, pb.InvalidateTokenResponse.FromString, timeout)
        return Invalidation(response.invalidated, response.min_generation)

    def watch(self, selectors: Iterable[SelectorLike]) -> TokenEvents:
        """Watch tokens: first the current one of each, or why there is none, then every change.

        Nothing is reconnected: iterating ends, with an error as a rule, when the connection does.
        """
        messages = [_convert.selector_to_proto(as_selector(selector)) for selector in selectors]
        request = pb.WatchTokensRequest(selectors=messages)
        metadata = self._metadata()
        replica = self._connected().ranked()[0]
        connection = replica.enter()
        try:
            method = connection.channel.unary_stream(
                "/tokencache.v1.TokenService/WatchTokens",
                request_serializer=pb.WatchTokensRequest.SerializeToString,
                response_deserializer=pb.WatchTokensResponse.FromString,
            )
            return TokenEvents(method(request, metadata=metadata), replica, connection)
        except BaseException as error:
            replica.leave(connection)
            if isinstance(error, ValueError):
                raise _closed() from error
            raise

    def close(self) -> None:
        """Close the connections; calls under way fail."""
        with self._lock:
            self._closed = True
            if self._replicas is not None and self._pid == os.getpid():
                self._replicas.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _connected(self) -> Replicas:
        with self._lock:
            if self._closed:
                raise InvalidRequestError("the client is closed")
            if self._replicas is None:
                self._replicas = Replicas([Replica(endpoint, self._tls) for endpoint in self._endpoints])
                self._pid = os.getpid()
            elif self._pid != os.getpid():
                raise InvalidRequestError("the client was used before the process forked: make one in each process")
            return self._replicas

    def _metadata(self) -> _Metadata:
        key = self._api_key
        if key is None:
            return ()
        text = key.expose() if isinstance(key, Secret) else key()
        return (("authorization", f"Bearer {text}"),)

    def _call(
        self, name: str, request: object, decode: Callable[[bytes], _Response], timeout: Optional[float]
    ) -> _Response:
        """Call one replica, and if it is unavailable and time is left, once more another one.

        The only one is called once more if the connection to it had been good: the replica may have restarted.
        """
        end = time.monotonic() + (self.deadline if timeout is None else min(timeout, self.deadline))
        metadata = self._metadata()
        first, *others = self._connected().ranked()
        connection = first.enter()
        was_good = connection.proven
        try:
            return self._attempt(first, connection, name, request, metadata, decode, end)
        except TokencacheError as error:
            helps = _helps_elsewhere(error) if others else was_good and isinstance(error, UnreachableError)
            pause = max(random.uniform(0.0, _PAUSE), error.retry_after or 0.0)
            if not helps or time.monotonic() + pause >= end:
                raise
        time.sleep(pause)
        second = others[0] if others else first
        return self._attempt(second, second.enter(), name, request, metadata, decode, end)

    def _attempt(
        self,
        replica: Replica,
        connection: Connection,
        name: str,
        request: object,
        metadata: _Metadata,
        decode: Callable[[bytes], _Response],
        end: float,
    ) -> _Response:
        """Call a replica on a connection that was entered, and leave it."""
        try:
            method: Any = connection.channel.unary_unary(
                f"/tokencache.v1.TokenService/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=decode,
            )
            left = end - time.monotonic()
            if left <= 0:
                raise UnavailableError("the broker did not answer within the deadline")
            response: _Response = method(request, timeout=left, metadata=metadata)
        except grpc.RpcError as error:
            failure = from_rpc_error(error)
            if _helps_elsewhere(failure):
                replica.failed()
            if isinstance(failure, UnreachableError):
                replica.lost(connection)
            raise failure from None
        except ValueError as error:
            raise _closed() from error
        finally:
            replica.leave(connection)
        replica.answered(connection)
        return response


def _closed() -> InvalidRequestError:
    """Say what gRPC's ``ValueError`` says: the channel was closed meanwhile."""
    return InvalidRequestError("the client is closed")


def _helps_elsewhere(error: TokencacheError) -> bool:
    """Whether another replica may do better: this one is gone, drains or has lost its store."""
    if isinstance(error, UnreachableError):
        return True
    return isinstance(error, UnavailableError) and error.reason in ("STORE_DOWN", "AUDIT_DOWN", "DRAINING")
