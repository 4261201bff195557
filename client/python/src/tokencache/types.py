"""What a caller asks for and what the broker answers."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Optional, Union

from .errors import TokencacheError
from .secret import Secret


@dataclass(frozen=True)
class Selector:
    """Names one token: a credential and what is asked of it. What is left empty is as configured for the credential."""

    #: The credential's name.
    credential: str
    #: Scopes (RFC 6749 section 3.3).
    scopes: Sequence[str] = ()
    #: The audience.
    audience: str = ""
    #: Resource indicators (RFC 8707).
    resources: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("scopes", "resources"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(f"{name} is a list of texts, not a text")
            object.__setattr__(self, name, tuple(value))


#: The name of a credential is a selector, too.
SelectorLike = Union[str, Selector]


def as_selector(selector: SelectorLike) -> Selector:
    """Return the selector that a name or a selector stands for."""
    return Selector(selector) if isinstance(selector, str) else selector


@dataclass(frozen=True)
class Token:
    """An access token and what is known of it."""

    #: The token itself.
    access_token: Secret
    #: How it is presented (RFC 6749 section 7.1), as a rule "Bearer".
    token_type: str
    #: When it expires, on the broker's clock.
    expires_at: datetime
    #: When the broker received it, if it said so.
    issued_at: Optional[datetime]
    #: The scopes that were granted, sorted; they may differ from the ones asked for.
    scopes: tuple[str, ...]
    #: Counts the tokens minted for this selector.
    generation: int
    #: The first 16 hexadecimal digits of the token's SHA-256: the only form that belongs into a log.
    fingerprint: str
    #: What the upstream returned beside the token, e.g. ``instance_url``. The upstream chose it, so it is not shown.
    attributes: Mapping[str, str] = field(repr=False)

    def authorization(self) -> Secret:
        """Return the value of the ``Authorization`` header: type and token."""
        return Secret(f"{self.token_type} {self.access_token.expose()}")


class Freshness(enum.Enum):
    """How much the replica knows about the token that it hands out."""

    #: No acknowledged rejection of this token exists.
    VERIFIED = "verified"
    #: The replica has lost touch with the fleet: a rejection may have been missed.
    DEGRADED = "degraded"


@dataclass(frozen=True)
class TokenResponse:
    """Answers `Client.get_token`."""

    #: The token. ``None`` only where the generation named by ``if_generation_not`` is still the current one.
    token: Optional[Token]
    #: How much the replica knows about the token.
    freshness: Freshness
    #: The replica's clock when it answered, if it said so.
    server_time: Optional[datetime]


@dataclass(frozen=True)
class Invalidation:
    """Answers `Client.invalidate`."""

    #: This report took the token out of service. False: it was already replaced, is unknown, or the credential's
    #: configuration says that such an answer does not mean a dead token.
    invalidated: bool
    #: The lowest generation that may still be used.
    min_generation: int


@dataclass(frozen=True)
class Invalidated:
    """Every token below a generation is refused by the upstream."""

    #: The lowest generation that may still be used.
    min_generation: int


@dataclass(frozen=True)
class TokenEvent:
    """One change of one watched token."""

    #: The selector that this is about.
    selector: Selector
    #: The current token; or that it was rejected; or why there is none.
    update: Union[Token, Invalidated, TokencacheError]
