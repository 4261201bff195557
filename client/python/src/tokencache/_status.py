"""Turns what gRPC reports into the errors of this package."""

from __future__ import annotations

from typing import Optional

import grpc
from google.protobuf.message import DecodeError

from . import errors
from ._proto import status_pb2

#: Whose reasons are ours.
DOMAIN = "tokencache"

_DETAILS = "grpc-status-details-bin"

_CLASSES: dict[int, type[errors.TokencacheError]] = {
    3: errors.InvalidRequestError,  # INVALID_ARGUMENT
    11: errors.InvalidRequestError,  # OUT_OF_RANGE
    16: errors.UnauthenticatedError,
    7: errors.NotAllowedError,  # PERMISSION_DENIED
    5: errors.NotFoundError,
    9: errors.NeedsOperatorError,  # FAILED_PRECONDITION
    8: errors.ThrottledError,  # RESOURCE_EXHAUSTED
    14: errors.UnavailableError,
    4: errors.UnavailableError,  # DEADLINE_EXCEEDED
    # A broker that goes down cancels or aborts what it cannot finish.
    1: errors.UnavailableError,
    10: errors.UnavailableError,
    12: errors.UnimplementedError,
}


def from_rpc_error(error: grpc.RpcError) -> errors.TokencacheError:
    """Return what a failed call came to."""
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    message = (error.details() if isinstance(error, grpc.Call) else None) or code.value[1]
    status = _details(error)
    if status is not None:
        return from_status(status)
    if code is grpc.StatusCode.UNAVAILABLE:
        # The broker's own come with details; this one was made on this side of the wire.
        return errors.UnreachableError(f"cannot reach the broker: {message}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.UnavailableError("the broker did not answer within the deadline")
    return _CLASSES.get(code.value[0], errors.InternalError)(message)


def from_status(status: status_pb2.Status) -> errors.TokencacheError:
    """Return the error that a status with details describes."""
    reason: Optional[str] = None
    retry_after: Optional[float] = None
    violations: list[errors.Violation] = []
    for detail in status.details:
        kind = detail.type_url.rpartition("/")[2]
        try:
            if kind == "google.rpc.ErrorInfo":
                info = status_pb2.ErrorInfo.FromString(detail.value)
                reason = info.reason if info.domain == DOMAIN else reason
            elif kind == "google.rpc.RetryInfo":
                delay = status_pb2.RetryInfo.FromString(detail.value).retry_delay
                retry_after = max(0.0, delay.seconds + delay.nanos / 1e9)
            elif kind == "google.rpc.BadRequest":
                bad = status_pb2.BadRequest.FromString(detail.value)
                violations += [errors.Violation(v.field, v.description) for v in bad.field_violations]
        except DecodeError:
            continue
    kind_of = _CLASSES.get(status.code, errors.InternalError)
    message = status.message or "the broker did not say why"
    return kind_of(message, reason=reason, retry_after=retry_after, violations=violations)


def _details(error: grpc.RpcError) -> Optional[status_pb2.Status]:
    if not isinstance(error, grpc.Call):
        return None
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None
