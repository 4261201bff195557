"""`TokenAuth` in `httpx` clients of a user's own, against a real broker and a real upstream."""

from __future__ import annotations

import asyncio
import io
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

import httpx
import pytest
import trustme
from broker import Broker
from servers import Idp, Proxy, Seen, Upstream

import tokencache
from tokencache import TokenSource
from tokencache.httpx import TokenAuth

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


@pytest.fixture
def session(source: TokenSource) -> Iterator[httpx.Client]:
    with httpx.Client(auth=TokenAuth(source), timeout=60.0, follow_redirects=True) as made:
        yield made


def _dies(session: httpx.Client, idp: Idp, upstream: Upstream) -> None:
    """Have the session hold a token that is dead."""
    assert session.get(upstream.url).status_code == 200
    idp.revoke_all()
    upstream.seen.clear()


def _stream() -> Iterator[bytes]:
    yield b"a" * 70_000
    yield b"b"


@pytest.mark.parametrize(
    ("method", "body"),
    [*((method, "none") for method in METHODS), *(("POST", body) for body in ("bytes", "form", "file", "stream"))],
)
def test_the_request_is_sent_again_byte_by_byte(
    session: httpx.Client, upstream: Upstream, idp: Idp, method: str, body: str
) -> None:
    _dies(session, idp, upstream)
    given: dict[str, object] = {
        "none": {},
        "bytes": {"content": bytes(range(256)) * 300},
        "form": {"data": {"a": "ä b"}},
        "file": {"files": {"f": io.BytesIO(b"content")}},
        "stream": {"content": _stream()},
    }[body]
    answer = session.request(method, upstream.url + "/x", headers={"X-User": "yes"}, **given)
    assert (answer.status_code, [refused.status_code for refused in answer.history]) == (200, [401])
    first, second = upstream.seen
    assert first.but("Authorization") == second.but("Authorization")
    assert [seen.header("Authorization") for seen in upstream.seen] == ["Bearer token-1", "Bearer token-2"]
    if body == "stream":
        assert second.body == b"".join(_stream())


def test_a_stream_that_is_not_to_be_read_into_memory_is_not_sent_again(
    source: TokenSource, upstream: Upstream, idp: Idp
) -> None:
    with httpx.Client(auth=TokenAuth(source, requires_request_body=False)) as session:
        _dies(session, idp, upstream)
        answer = session.post(upstream.url, content=_stream())
        assert (answer.status_code, answer.text, len(upstream.seen)) == (401, "refused", 1)
        assert session.post(upstream.url, content=b"x").status_code == 200
    assert idp.requests == 2


def test_a_storm_of_401s_costs_one_new_token(source: TokenSource, upstream: Upstream, idp: Idp) -> None:
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(auth=TokenAuth(source), limits=limits, timeout=60.0) as session:
        _dies(session, idp, upstream)
        barrier = threading.Barrier(200)

        def ask(_: int) -> httpx.Response:
            barrier.wait()
            return session.get(upstream.url)

        with ThreadPoolExecutor(200) as pool:
            answers = list(pool.map(ask, range(200)))
    assert {answer.status_code for answer in answers} == {200}
    assert max(len(answer.history) for answer in answers) == 1
    assert idp.requests == 2


def test_a_storm_of_401s_in_an_event_loop_costs_one_new_token(source: TokenSource, upstream: Upstream, idp: Idp) -> None:
    async def storm() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(auth=TokenAuth(source), limits=limits, timeout=60.0) as session:
            assert (await session.get(upstream.url)).status_code == 200
            idp.revoke_all()
            return list(await asyncio.gather(*(session.get(upstream.url) for _ in range(200))))

    answers = asyncio.run(storm())
    assert {answer.status_code for answer in answers} == {200}
    assert max(len(answer.history) for answer in answers) == 1
    assert idp.requests == 2


class Held:
    """A source whose answers are held back until a test lets them go."""

    def __init__(self, token: Optional[tokencache.Token]) -> None:
        self._token = token
        self.asked = threading.Event()
        self.freed = threading.Event()

    def current(self) -> Optional[tokencache.Token]:
        return self._token

    def get(self) -> tokencache.Token:
        return self._token or self._wait()

    def rejected(self, token: tokencache.Token, status: int, *, error: str) -> tokencache.Token:
        return self._wait()

    def _wait(self) -> tokencache.Token:
        self.asked.set()
        assert self.freed.wait(60.0), "the loop stood still"
        raise tokencache.UnavailableError("enough")


@pytest.mark.parametrize("holds", [False, True], ids=["the first token", "a replacement"])
def test_the_event_loop_goes_on_while_the_broker_is_waited_for(
    source: TokenSource, upstream: Upstream, idp: Idp, holds: bool
) -> None:
    held = Held(source.get() if holds else None)
    idp.revoke_all()

    async def ask() -> list[bool]:
        async with httpx.AsyncClient(auth=TokenAuth(held), timeout=60.0) as session:  # type: ignore[arg-type]
            asking = asyncio.ensure_future(session.get(upstream.url))
            # The loop runs this while the source is not yet asked, or the request could not be sent.
            while not held.asked.is_set():
                await asyncio.sleep(0)
            # From here on the source waits, and only what follows ends that: another exchange, with sockets, timers and
            # all, on the same loop.
            async with httpx.AsyncClient(timeout=60.0) as other:
                upstream.answers["/other"] = (200, [], b"")
                assert (await other.get(upstream.url + "/other")).status_code == 200
            under_way = [held.asked.is_set(), not held.freed.is_set(), not asking.done()]
            held.freed.set()
            if holds:
                assert (await asking).status_code == 401
            else:
                with pytest.raises(tokencache.UnavailableError):
                    await asking
            return under_way

    assert asyncio.run(ask()) == [True, True, True]


def test_an_async_stream_is_sent_again(source: TokenSource, upstream: Upstream, idp: Idp) -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(auth=TokenAuth(source)) as session:
            await session.get(upstream.url)
            idp.revoke_all()
            return await session.post(upstream.url, content=stream())

    assert asyncio.run(ask()).status_code == 200
    assert [seen.body for seen in upstream.seen] == [b"", b"ab", b"ab"]


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_other_answers_are_handed_through(session: httpx.Client, upstream: Upstream, idp: Idp, status: int) -> None:
    upstream.answers["/x"] = (status, [], b"as it is")
    answer = session.get(upstream.url + "/x")
    assert (answer.status_code, answer.text, len(upstream.seen), idp.requests) == (status, "as it is", 1, 1)


def test_a_predicate_finds_the_body_read_if_it_asks_for_it(source: TokenSource, upstream: Upstream, idp: Idp) -> None:
    auth = TokenAuth(
        source, is_rejection=lambda answer: answer.text == "SESSION_OVER" and "invalid", requires_response_body=True
    )
    upstream.answers["/x"] = (200, [], b"SESSION_OVER")
    # `reject_on` of the credential does not know the code: the broker does not believe it, and nothing is sent again.
    assert httpx.get(upstream.url + "/x", auth=auth).text == "SESSION_OVER"
    assert (len(upstream.seen), idp.requests) == (1, 1)


def test_the_401_is_handed_through_while_the_broker_is_away(
    session: httpx.Client, upstream: Upstream, idp: Idp, broker: Broker
) -> None:
    session.get(upstream.url)
    broker.kill()
    assert session.get(upstream.url).status_code == 200
    idp.revoke_all()
    answer = session.get(upstream.url)
    assert (answer.status_code, answer.text) == (401, "refused")
    with pytest.raises(tokencache.UnreachableError):
        session.get(upstream.url)


# The user's own client.


def test_the_users_transport_and_timeout_are_used_for_both(source: TokenSource, upstream: Upstream, idp: Idp) -> None:
    timeouts: list[object] = []

    class Transport(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            timeouts.append(request.extensions["timeout"])
            return super().handle_request(request)

    with httpx.Client(auth=TokenAuth(source), transport=Transport(), timeout=httpx.Timeout(50.0, read=40.0)) as session:
        _dies(session, idp, upstream)
        timeouts.clear()
        assert session.get(upstream.url).status_code == 200
    assert len(timeouts) == 2
    assert timeouts[0] == timeouts[1] == httpx.Timeout(50.0, read=40.0).as_dict()


def test_the_users_proxy_is_used_for_both(source: TokenSource, idp: Idp) -> None:
    with Proxy(idp.is_alive) as proxy, httpx.Client(auth=TokenAuth(source), proxy=proxy.url) as session:
        source.get()
        idp.revoke_all()
        assert session.get("http://api.example/x").status_code == 200
        assert proxy.urls == ["http://api.example/x"] * 2


def test_the_users_ca_and_client_certificate_are_used_for_both(source: TokenSource, idp: Idp) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    mine = ssl.create_default_context()
    authority.configure_trust(mine)
    authority.issue_cert("client@example.com").configure_cert(mine)
    with Upstream(idp.is_alive, tls=tls) as upstream:
        with httpx.Client(auth=TokenAuth(source)) as session, pytest.raises(httpx.ConnectError):
            session.get(upstream.url)
        # A new connection for each, so that both have to be trusted.
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(auth=TokenAuth(source), verify=mine, limits=limits) as session:
            _dies(session, idp, upstream)
            assert session.get(upstream.url).status_code == 200
            assert len(upstream.seen) == 2


def test_the_users_cookies_are_sent_and_those_of_both_answers_kept(
    session: httpx.Client, upstream: Upstream, idp: Idp
) -> None:
    _dies(session, idp, upstream)
    session.cookies.set("mine", "1")
    upstream.refusal_headers = [("Set-Cookie", "theirs=2; Path=/")]
    assert session.get(upstream.url).status_code == 200
    assert [seen.header("Cookie") for seen in upstream.seen] == ["mine=1", "mine=1"]
    assert dict(session.cookies) == {"mine": "1", "theirs": "2"}


def test_a_redirect_within_the_host_keeps_the_token(session: httpx.Client, upstream: Upstream, idp: Idp) -> None:
    upstream.answers["/old"] = (302, [("Location", "/new")], b"")
    assert session.get(upstream.url + "/old").status_code == 200
    idp.revoke_all()
    upstream.seen.clear()
    answer = session.get(upstream.url + "/old")
    assert (answer.status_code, [seen.path for seen in upstream.seen]) == (200, ["/old", "/new", "/new"])


def test_a_post_that_was_redirected_is_not_sent_twice(session: httpx.Client, upstream: Upstream, idp: Idp) -> None:
    source_of_303 = (303, [("Location", "/new")], b"")
    upstream.answers["/old"] = source_of_303
    _dies(session, idp, upstream)
    assert session.post(upstream.url + "/old", content=b"x").status_code == 200
    assert [(seen.method, seen.path) for seen in upstream.seen] == [("POST", "/old"), ("GET", "/new"), ("GET", "/new")]


@pytest.mark.parametrize("header", ["Authorization", "X-Token"])
def test_a_redirect_elsewhere_never_gets_the_token(source: TokenSource, idp: Idp, header: str) -> None:
    with Upstream(idp.is_alive, header=header) as upstream, Upstream(lambda _: True, header=header) as other:

        def moved(seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
            if idp.is_alive((seen.header(header) or "")[len("Bearer ") :]):
                return 307, [("Location", other.url + "/there")], b""
            return 401, [], b""

        upstream.answers["/away"] = moved
        with httpx.Client(follow_redirects=True) as session:
            TokenAuth(source, header=header).install(session)
            source.get()
            idp.revoke_all()
            answer = session.post(upstream.url + "/away", content=b"x")
        assert (answer.status_code, len(upstream.seen)) == (401, 2)
        assert [seen.header(header) for seen in other.seen] == [None]


def test_a_redirect_elsewhere_never_gets_the_token_of_an_async_client(source: TokenSource, idp: Idp) -> None:
    with Upstream(idp.is_alive, header="X-Token") as upstream, Upstream(lambda _: True, header="X-Token") as other:
        upstream.answers["/away"] = (307, [("Location", other.url + "/there")], b"")

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(follow_redirects=True) as session:
                TokenAuth(source, header="X-Token").install(session)
                return await session.get(upstream.url + "/away")

        assert asyncio.run(ask()).status_code == 401
        assert [seen.header("X-Token") for seen in other.seen] == [None]
    assert idp.requests == 1


def test_a_header_that_would_follow_redirects_is_refused(source: TokenSource, upstream: Upstream) -> None:
    with pytest.raises(tokencache.InvalidRequestError, match="install"):
        httpx.get(upstream.url, auth=TokenAuth(source, header="X-Token"))
    assert upstream.seen == []


def test_the_users_hooks_stay(source: TokenSource, upstream: Upstream, idp: Idp) -> None:
    seen: list[str] = []
    hooks = {"request": [lambda request: seen.append(request.headers["Authorization"])]}
    with httpx.Client(event_hooks=hooks) as session:
        TokenAuth(source).install(session)
        _dies(session, idp, upstream)
        session.get(upstream.url)
    assert seen == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]
