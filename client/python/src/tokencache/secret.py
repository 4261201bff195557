"""A text that is never shown by accident."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """A secret text. Neither ``str`` nor ``repr`` shows it; reading it takes `expose`, which is easy to search for.

    There is no comparison either: compare fingerprints.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def expose(self) -> str:
        """Return the text itself, for the one place that has to send it."""
        return self._value

    def __repr__(self) -> str:
        return "[redacted]"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")
