"""The client against a real broker, and what it does with replicas that are gone."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import Broker, hold
from servers import Idp

import tokencache
from tokencache import Client, Freshness, Selector


@pytest.fixture
def closed() -> Iterator[str]:
    """An endpoint at which nobody listens, and nobody else can meanwhile."""
    with hold() as taken:
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_token_comes_with_what_is_known_of_it(client: Client) -> None:
    answer = client.get_token("ci")
    assert answer.token is not None
    assert answer.token.access_token.expose() == "token-1"
    assert answer.token.authorization().expose() == "Bearer token-1"
    assert answer.token.generation == 1
    assert answer.freshness is Freshness.VERIFIED
    assert answer.server_time is not None
    assert answer.server_time < answer.token.expires_at


def test_a_token_that_is_still_current_is_not_sent_again(client: Client) -> None:
    assert client.get_token("ci").token is not None
    assert client.get_token("ci", if_generation_not=1).token is None


def test_a_rejected_generation_is_replaced(client: Client, idp: Idp) -> None:
    client.get_token("ci")
    answer = client.get_token("ci", rejected_generation=1)
    assert answer.token is not None
    assert (answer.token.generation, idp.requests) == (2, 2)


def test_an_invalidation_tells_whether_it_changed_anything(client: Client) -> None:
    token = client.get_token("ci").token
    assert token is not None
    assert not client.invalidate("ci", generation=1, http_status=403).invalidated
    told = client.invalidate("ci", fingerprint=token.fingerprint, http_status=401, error="invalid_token")
    assert (told.invalidated, told.min_generation) == (True, 2)


def test_a_watch_begins_with_the_current_token(client: Client) -> None:
    with client.watch([Selector("static")]) as events:
        event = next(events)
        assert event.selector == Selector("static")
        assert isinstance(event.update, tokencache.Token)
        assert event.update.authorization().expose() == "Session static-token"


def test_a_watch_that_is_closed_ends(client: Client) -> None:
    events = client.watch(["static"])
    next(events)
    events.close()
    assert list(events) == []


def test_errors_say_what_the_caller_can_do(client: Client) -> None:
    with pytest.raises(tokencache.NotFoundError) as unknown:
        client.get_token("nobody")
    assert (unknown.value.reason, unknown.value.is_transient) == ("NO_SUCH_CREDENTIAL", False)
    with pytest.raises(tokencache.InvalidRequestError) as invalid:
        client.get_token(Selector("ci", scopes=["a b"], resources=["relative"]))
    assert invalid.value.reason == "BAD_REQUEST"
    assert [v.field for v in invalid.value.violations] == ["scopes[0]", "resources[0]"]
    with pytest.raises(tokencache.InvalidRequestError) as misnamed:
        client.get_token("NOT A NAME")
    assert misnamed.value.reason == "BAD_NAME"
    with pytest.raises(tokencache.NeedsOperatorError) as lost:
        client.get_token("lost")
    assert lost.value.reason == "MISCONFIGURED"


def test_an_upstream_that_is_down_is_transient(client: Client, idp: Idp) -> None:
    idp.down = True
    with pytest.raises(tokencache.UnavailableError) as down:
        client.get_token("ci")
    assert (down.value.reason, down.value.is_transient) == ("UPSTREAM_DOWN", True)
    assert down.value.retry_after is not None


def test_a_call_goes_to_another_replica_if_one_is_gone(broker: Broker, closed: str) -> None:
    with Client([closed, closed, broker.endpoint]) as client:
        # The first call may meet both that are gone; then they come last.
        try:
            client.get_token("static")
        except tokencache.UnreachableError:
            assert client.get_token("static").token is not None
    for _ in range(5):
        with Client([closed, broker.endpoint]) as client:
            assert client.get_token("static").token is not None


def test_an_upstream_that_is_down_is_not_asked_for_by_another_replica(broker: Broker, idp: Idp) -> None:
    idp.down = True
    with Client([broker.endpoint, broker.endpoint]) as client:
        with pytest.raises(tokencache.UnavailableError):
            client.get_token("ci")
        assert idp.requests == 1


def test_a_broker_that_is_not_there_is_unreachable(closed: str) -> None:
    with Client(closed, deadline=5.0) as client, pytest.raises(tokencache.UnreachableError) as gone:
        client.get_token("ci")
    assert gone.value.is_transient
    assert gone.value.reason is None


@pytest.mark.parametrize("asked_meanwhile", [0, 1, 5])
def test_a_broker_that_restarted_is_found_by_the_next_call(
    broker: Broker, idp: Idp, tmp_path: Path, program: Path, asked_meanwhile: int
) -> None:
    with Client(broker.endpoint) as client:
        assert client.get_token("static").token is not None
        broker.kill()
        for _ in range(asked_meanwhile):
            with pytest.raises(tokencache.UnreachableError):
                client.get_token("static")
        with Broker(program, tmp_path, idp.url, listen=broker.endpoint[len("http://") :]):
            assert client.get_token("static").token is not None


def test_a_closed_client_says_so(broker: Broker) -> None:
    client = Client(broker.endpoint)
    assert client.get_token("static").token is not None
    watch = client.watch(["static"])
    next(watch)
    client.close()
    with pytest.raises(tokencache.TokencacheError):
        next(watch)
    for ask in (lambda: client.get_token("static"), lambda: client.watch(["static"])):
        with pytest.raises(tokencache.InvalidRequestError, match="closed"):
            ask()


def test_a_unix_socket_is_an_endpoint(idp: Idp, tmp_path: Path, program: Path) -> None:
    with Broker(program, tmp_path, idp.url, listen="unix:s"), Client(f"unix:{tmp_path}/s") as client:
        assert client.get_token("static").token is not None


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1:1", "ftp://x", "unix:", "unix://", "http://", "http://a b", "http://h:x", "http://h/path"]
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(tokencache.InvalidRequestError, match="http://host:port"):
        Client(text)


def _child(client: Client, answers: object) -> None:
    try:
        client.get_token("static")
    except tokencache.TokencacheError as error:
        answers.send(str(error))  # type: ignore[attr-defined]
    else:
        answers.send("a token")  # type: ignore[attr-defined]


def _ask_in_a_child(client: Client) -> str:
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    child = fork.Process(target=_child, args=(client, there))
    child.start()
    assert here.poll(60.0)
    answer = str(here.recv())
    child.join()
    return answer


def test_a_client_that_was_used_refuses_to_work_after_a_fork(client: Client) -> None:
    client.get_token("static")
    assert "one in each process" in _ask_in_a_child(client)


def test_the_files_of_tls_are_read_when_the_client_connects(tmp_path: Path) -> None:
    client = Client("https://127.0.0.1:1", ca_file=str(tmp_path / "none.pem"))
    with pytest.raises(tokencache.InvalidRequestError, match=r"none\.pem"):
        client.get_token("ci")
