"""Turns messages into this package's types, and back."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Optional

from google.protobuf import duration_pb2, timestamp_pb2

from ._proto import token_pb2 as pb
from ._status import from_status
from .errors import InternalError
from .secret import Secret
from .types import Freshness, Invalidated, Selector, Token, TokenEvent, TokenResponse

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

#: The longest duration that protobuf allows: 10,000 years.
_LONGEST = 315_576_000_000


def selector_to_proto(selector: Selector) -> pb.TokenSelector:
    """Return the message that names the same token."""
    return pb.TokenSelector(
        credential=selector.credential,
        scopes=selector.scopes,
        audience=selector.audience,
        resources=selector.resources,
    )


def duration_to_proto(seconds: float) -> Optional[duration_pb2.Duration]:
    """Return a duration of at most what protobuf allows; none for zero."""
    if seconds <= 0:
        return None
    whole = min(seconds, float(_LONGEST))
    return duration_pb2.Duration(seconds=int(whole), nanos=int((whole - int(whole)) * 1e9))


def event_from_proto(message: pb.WatchTokensResponse) -> TokenEvent:
    """Return what a watch was told."""
    told = message.selector
    selector = Selector(told.credential, tuple(told.scopes), told.audience, tuple(told.resources))
    kind = message.WhichOneof("event")
    if kind == "token":
        return TokenEvent(selector, token_from_proto(message.token))
    if kind == "invalidated":
        return TokenEvent(selector, Invalidated(message.invalidated.min_generation))
    if kind == "unavailable":
        return TokenEvent(selector, from_status(message.unavailable))
    raise InternalError("the broker sent an event of a kind that this client does not know")


def response_from_proto(message: pb.GetTokenResponse, conditional: bool) -> TokenResponse:
    """Return an answer; `conditional`: the request named a generation, so that it may be without a token."""
    token = token_from_proto(message.token) if message.HasField("token") else None
    if token is None and not (conditional and message.not_modified):
        raise InternalError("the broker sent an answer without a token")
    # A freshness that this client does not know is not better than the one it knows to be doubtful.
    verified = message.freshness == pb.FRESHNESS_VERIFIED
    server_time = _time(message.server_time) if message.HasField("server_time") else None
    return TokenResponse(token, Freshness.VERIFIED if verified else Freshness.DEGRADED, server_time)


def token_from_proto(token: pb.Token) -> Token:
    """Return a token that a header can carry."""
    if not token.HasField("expires_at"):
        raise InternalError("the broker sent a token without a time of expiry")
    if not token.access_token or not _is_printable(token.access_token) or not _is_printable(token.token_type):
        raise InternalError("the broker sent a token that no header can carry")
    return Token(
        access_token=Secret(token.access_token),
        token_type=token.token_type,
        expires_at=_time(token.expires_at),
        issued_at=_time(token.issued_at) if token.HasField("issued_at") else None,
        scopes=tuple(token.scopes),
        generation=token.generation,
        fingerprint=token.fingerprint,
        attributes=MappingProxyType(dict(token.attributes)),
    )


def _is_printable(text: str) -> bool:
    """Whether a text can stand in a header without adding lines to it."""
    return all(" " <= character <= "~" for character in text)


def _time(stamp: timestamp_pb2.Timestamp) -> datetime:
    """Return the time in UTC; the last that there is for one beyond it."""
    try:
        return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)
    except OverflowError:
        return datetime.max.replace(tzinfo=timezone.utc)
