"""The source against a real broker: one call for many, and what it does while the broker is away."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from broker import Broker, until
from servers import Idp

import tokencache
from tokencache import Client, TokenSource
from tokencache._clock import Reading, read_clocks


class Counting:
    """A client that counts what is asked of it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.deadline = client.deadline
        self.calls: list[str] = []

    def get_token(self, *args: object, **kwargs: object) -> object:
        self.calls.append("report" if kwargs.get("rejected_generation") else "get")
        return self._client.get_token(*args, **kwargs)

    def invalidate(self, *args: object, **kwargs: object) -> object:
        self.calls.append("invalidate")
        return self._client.invalidate(*args, **kwargs)

    def watch(self, *args: object) -> object:
        return self._client.watch(*args)


@pytest.fixture
def counting(client: Client) -> Counting:
    return Counting(client)


@pytest.fixture
def source(counting: Counting):
    with TokenSource(counting, "ci") as made:
        yield made


def _at_once(count: int, work):
    with ThreadPoolExecutor(count) as pool:
        barrier = threading.Barrier(count)

        def run(_: int):
            barrier.wait()
            return work()

        return list(pool.map(run, range(count)))


def test_many_threads_that_ask_at_first_cost_one_call(source: TokenSource, counting: Counting, idp: Idp) -> None:
    tokens = _at_once(50, source.get)
    assert {token.generation for token in tokens} == {1}
    assert counting.calls == ["get"]
    assert idp.requests == 1


def test_nothing_is_asked_before_the_first_use(source: TokenSource, counting: Counting) -> None:
    assert source._thread is None
    assert counting.calls == []
    source.get()
    assert source._thread is not None


def test_concurrent_reports_of_a_token_cost_one_call(source: TokenSource, counting: Counting, idp: Idp) -> None:
    dead = source.get()
    replacements = _at_once(50, lambda: source.rejected(dead))
    assert {token.generation for token in replacements if token is not None} == {2}
    assert counting.calls.count("report") == 1
    assert idp.requests == 2


def test_a_late_report_costs_nothing(source: TokenSource, counting: Counting) -> None:
    dead = source.get()
    replacement = source.rejected(dead)
    calls = list(counting.calls)
    assert source.rejected(dead) is replacement
    assert counting.calls == calls


def test_a_403_is_no_rejection_and_is_asked_about_once(source: TokenSource, counting: Counting, idp: Idp) -> None:
    token = source.get()
    assert _at_once(20, lambda: source.rejected(token, 403)) == [None] * 20
    assert counting.calls.count("invalidate") == 1
    assert source.current() is not None
    assert idp.requests == 1


def test_a_watch_brings_what_replaces_a_token(source: TokenSource, client: Client) -> None:
    assert source.get().generation == 1
    client.get_token("ci", rejected_generation=1)
    until(lambda: (token := source.current()) is not None and token.generation == 2)


def test_a_token_outlives_the_broker_until_it_expires(source: TokenSource, broker: Broker) -> None:
    token = source.get()
    broker.kill()
    assert source.get() is token
    later = read_clocks().monotonic + 3600.0
    source._ledger.clock.read = lambda: Reading(read_clocks().wall, later)
    assert source.current() is None
    with pytest.raises(tokencache.UnreachableError):
        source.get()


def test_a_report_while_the_broker_is_away_is_made_up_for(idp: Idp, program: Path, tmp_path: Path, broker: Broker) -> None:
    address = broker.endpoint[len("http://") :]
    with Client(broker.endpoint) as client, TokenSource(client, "ci") as source:
        dead = source.get()
        broker.kill()
        with pytest.raises(tokencache.UnreachableError):
            source.rejected(dead)
        assert source.current() is None
        with Broker(program, tmp_path, idp.url, listen=address):
            until(lambda: source.current() is not None)
            replacement = source.current()
            assert replacement is not None
            assert replacement.fingerprint != dead.fingerprint


def test_a_token_comes_when_the_upstream_is_back(source: TokenSource, idp: Idp) -> None:
    idp.down = True
    with pytest.raises(tokencache.UnavailableError):
        source.get()
    idp.down = False
    until(lambda: source.current() is not None)


def test_an_upstream_that_refuses_all_tokens_gets_no_more_of_them(source: TokenSource, idp: Idp) -> None:
    token = source.get()
    for _ in range(10):
        replacement = source.rejected(token)
        if replacement is None:
            break
        token = replacement
    else:
        pytest.fail("one fresh token after another")
    minted = idp.requests
    assert source.rejected(token) is None
    assert source.current() is token
    assert idp.requests == minted


def test_a_closed_source_ends_its_thread(source: TokenSource) -> None:
    source.get()
    thread = source._thread
    assert thread is not None
    source.close()
    thread.join(60.0)
    assert not thread.is_alive()
