"""What goes wrong, named by what the caller can do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Optional


@dataclass(frozen=True)
class Violation:
    """One invalid field of a request."""

    #: The path of the field, e.g. ``scopes[3]``.
    field: str
    #: What is wrong with it.
    description: str


class TokencacheError(Exception):
    """The root of what this package raises. Never holds a secret."""

    #: Whether errors of this class heal without anybody's help.
    _transient: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        reason: Optional[str] = None,
        retry_after: Optional[float] = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message)
        #: The text for people.
        self.message = message
        #: The broker's machine-readable reason, e.g. ``UPSTREAM_DOWN``; ``None`` if the call did not get that far.
        self.reason = reason
        #: How many seconds to wait before the next try, if the broker said so.
        self.retry_after = retry_after
        #: The invalid fields of an `InvalidRequestError`.
        self.violations = tuple(violations)

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed later without anybody's help."""
        return self._transient

    def __str__(self) -> str:
        # The broker's message may list the fields already.
        more = [f"{v.field}: {v.description}" for v in self.violations if v.description not in self.message]
        return "; ".join([self.message, *more])


class InvalidRequestError(TokencacheError):
    """The request or a setting is invalid: mend it. ``violations`` lists what is wrong, if the broker said so."""


class UnauthenticatedError(TokencacheError):
    """The broker does not know who calls."""


class NotAllowedError(TokencacheError):
    """The caller may not do this."""


class NotFoundError(TokencacheError):
    """There is no such credential."""


class NeedsOperatorError(TokencacheError):
    """A person has to log in again or to change the configuration."""


class ThrottledError(TokencacheError):
    """Too many requests, or too many rejections of fresh tokens.

    The latter, ``TOO_MANY_INVALIDATIONS``, is not transient: an upstream that refuses fresh tokens has, as a rule,
    withdrawn a permission.
    """

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed later without anybody's help."""
        return self.reason != "TOO_MANY_INVALIDATIONS"


class UnavailableError(TokencacheError):
    """The upstream, the store or the broker itself cannot serve the call just now, or was too slow."""

    _transient = True


class UnreachableError(TokencacheError):
    """The broker cannot be reached, or the connection was lost."""

    _transient = True


class UnimplementedError(TokencacheError):
    """The endpoint does not serve this call."""


class InternalError(TokencacheError):
    """A defect of the broker, or an answer that makes no sense."""
