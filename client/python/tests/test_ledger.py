"""What a source may hand out, decided without a broker or a clock."""

from __future__ import annotations

from datetime import datetime, timezone
from types import MappingProxyType
from typing import Optional

import pytest

from tokencache import Freshness, Secret, Token, TokenResponse
from tokencache._clock import BrokerClock, Reading
from tokencache._ledger import Ledger


class Clocks:
    """Clocks that stand still until they are moved."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1000.0, 50.0

    def read(self) -> Reading:
        return Reading(self.wall, self.monotonic)

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def ledger(clocks: Clocks) -> Ledger:
    return Ledger(BrokerClock(clocks.read))


def token(generation: int, expires_at: float = 2000.0, fingerprint: str = "") -> Token:
    return Token(
        access_token=Secret("s3cr3t"),
        token_type="Bearer",
        expires_at=datetime.fromtimestamp(expires_at, timezone.utc),
        issued_at=None,
        scopes=(),
        generation=generation,
        fingerprint=fingerprint or f"f{generation}",
        attributes=MappingProxyType({}),
    )


def answer(
    ledger: Ledger, told: Optional[Token], named: int, *, verified: bool = True, server_time: Optional[float] = None
) -> None:
    freshness = Freshness.VERIFIED if verified else Freshness.DEGRADED
    time = None if server_time is None else datetime.fromtimestamp(server_time, timezone.utc)
    ledger.answered(TokenResponse(told, freshness, time), named, ledger.clock.read())


def held(ledger: Ledger) -> int:
    usable = ledger.usable()
    return 0 if usable is None else usable.generation


def test_an_expired_token_is_not_handed_out(ledger: Ledger, clocks: Clocks) -> None:
    ledger.watched(token(1))
    clocks.advance(999.0)
    assert held(ledger) == 1
    clocks.advance(1.0)
    assert held(ledger) == 0


def test_a_token_that_is_told_of_again_stays_the_same_object(ledger: Ledger) -> None:
    first = token(1)
    ledger.watched(first)
    ledger.watched(token(1))
    assert ledger.usable() is first
    later = token(1, expires_at=2500.0)
    ledger.watched(later)
    assert ledger.usable() is later


def test_a_lower_generation_of_a_watch_is_ignored_while_a_valid_token_is_held(ledger: Ledger, clocks: Clocks) -> None:
    ledger.watched(token(5))
    ledger.watched(token(4, expires_at=5000.0))
    assert held(ledger) == 5
    clocks.advance(1500.0)
    ledger.watched(token(4, expires_at=5000.0))
    assert (held(ledger), ledger.seen) == (4, 5)


def test_a_lower_generation_in_a_verified_answer_that_named_the_held_one_is_taken(ledger: Ledger) -> None:
    ledger.watched(token(5))
    ledger.invalidated(5)
    answer(ledger, token(2), named=5)
    assert (held(ledger), ledger.seen) == (2, 2)
    ledger.watched(token(3))
    assert held(ledger) == 3


@pytest.mark.parametrize(("named", "verified"), [(4, True), (5, False), (0, True)])
def test_any_other_lower_generation_in_an_answer_is_not(ledger: Ledger, named: int, verified: bool) -> None:
    ledger.watched(token(5))
    answer(ledger, token(4), named=named, verified=verified)
    assert held(ledger) == 5


def test_what_was_invalidated_is_not_handed_out_again(ledger: Ledger) -> None:
    ledger.watched(token(5))
    ledger.invalidated(6)
    assert held(ledger) == 0
    ledger.watched(token(5))
    answer(ledger, token(5), named=5)
    assert held(ledger) == 0
    ledger.invalidated(3)
    ledger.watched(token(5))
    assert held(ledger) == 0
    ledger.watched(token(6))
    assert held(ledger) == 6


def test_what_was_reported_is_not_handed_out_again_under_any_generation(ledger: Ledger) -> None:
    dead = token(5)
    ledger.watched(dead)
    ledger.report(dead)
    ledger.watched(dead)
    ledger.watched(token(4))
    ledger.watched(token(6, fingerprint="f5"))
    assert held(ledger) == 0
    assert ledger.pending is dead
    answer(ledger, token(7), named=5)
    assert (held(ledger), ledger.pending) == (7, None)


def test_a_report_that_is_not_believed_gives_the_token_back(ledger: Ledger) -> None:
    dead = token(5)
    ledger.watched(dead)
    ledger.report(dead)
    ledger.absolve(dead)
    assert (held(ledger), ledger.pending) == (5, None)


def test_the_brokers_clock_decides_what_is_expired(ledger: Ledger, clocks: Clocks) -> None:
    # This machine's clock is 800 seconds behind.
    answer(ledger, token(1, expires_at=2000.0), named=0, server_time=1800.0)
    clocks.advance(199.0)
    assert held(ledger) == 1
    clocks.advance(2.0)
    assert held(ledger) == 0


def test_a_clock_that_is_ahead_does_not_make_tokens_useless(ledger: Ledger) -> None:
    answer(ledger, token(1, expires_at=900.0), named=0, server_time=300.0)
    assert held(ledger) == 1


@pytest.mark.parametrize(("wall", "monotonic"), [(-5000.0, 1200.0), (1200.0, 0.0)])
def test_neither_a_clock_set_back_nor_a_sleep_revives_a_token(
    ledger: Ledger, clocks: Clocks, wall: float, monotonic: float
) -> None:
    answer(ledger, token(1, expires_at=2000.0), named=0, server_time=1000.0)
    clocks.wall += wall
    clocks.monotonic += monotonic
    assert held(ledger) == 0
