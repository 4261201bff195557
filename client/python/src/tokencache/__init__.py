"""Client of the tokencache broker: gets tokens, watches them, reports the ones that an upstream refused."""

from .client import DEFAULT_DEADLINE, DEFAULT_ENDPOINT, Client
from .errors import (
    InternalError,
    InvalidRequestError,
    NeedsOperatorError,
    NotAllowedError,
    NotFoundError,
    ThrottledError,
    TokencacheError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    UnreachableError,
    Violation,
)
from .events import TokenEvents
from .secret import Secret
from .source import TokenSource
from .types import (
    Freshness,
    Invalidated,
    Invalidation,
    Selector,
    Token,
    TokenEvent,
    TokenResponse,
)

__all__ = [
    "DEFAULT_DEADLINE",
    "DEFAULT_ENDPOINT",
    "Client",
    "Freshness",
    "InternalError",
    "Invalidated",
    "Invalidation",
    "InvalidRequestError",
    "NeedsOperatorError",
    "NotAllowedError",
    "NotFoundError",
    "Secret",
    "Selector",
    "ThrottledError",
    "Token",
    "TokenEvent",
    "TokenEvents",
    "TokenResponse",
    "TokenSource",
    "TokencacheError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnreachableError",
    "Violation",
]
