"""What the decorators of all HTTP libraries have in common: the header, and which answers mean what."""

from __future__ import annotations

import re
from typing import Optional, Union

from .types import Token

#: RFC 9110 section 9.2.2: sending these twice does what sending them once does.
_IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}

_ERROR = re.compile(r'(?:^|[\s,])error\s*=\s*(?:"([^"]*)"|([^\s,"]+))', re.IGNORECASE)

#: What a predicate of the user's says of an answer: whether it means a dead token, or the upstream's code for that.
Verdict = Union[bool, str, None]


def header_value(token: Token, scheme: Optional[str]) -> str:
    """Return what the header says: the token after its own type, or `scheme`, or after nothing if that is empty."""
    prefix = token.token_type if scheme is None else scheme
    return f"{prefix} {token.access_token.expose()}" if prefix else token.access_token.expose()


def error_code(challenge: Optional[str]) -> str:
    """Return ``error`` of ``WWW-Authenticate`` (RFC 6750 section 3), at most what the broker accepts."""
    found = _ERROR.search(challenge or "")
    code = (found.group(1) or found.group(2) or "") if found else ""
    return code if re.fullmatch(r"[!-~]{1,64}", code) else ""


def may_replay(method: str, status: int) -> bool:
    """Whether sending a request again does no harm: after a 401 the upstream has not acted on it."""
    return status == 401 or method.upper() in _IDEMPOTENT
