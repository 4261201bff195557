"""`TokenAuth` in `requests` sessions of a user's own, against a real broker and a real upstream."""

from __future__ import annotations

import io
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import trustme
from broker import Broker
from requests.adapters import HTTPAdapter
from servers import Idp, Proxy, Seen, Upstream

import tokencache
from tokencache import TokenSource
from tokencache.requests import TokenAuth

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


@pytest.fixture
def session(source: TokenSource):
    with requests.Session() as made:
        made.auth = TokenAuth(source)
        yield made


def _dies(session: requests.Session, idp: Idp, upstream: Upstream) -> None:
    """Have the session hold a token that is dead."""
    assert session.get(upstream.url).status_code == 200
    idp.revoke_all()
    upstream.seen.clear()


def test_a_token_is_attached(session: requests.Session, upstream: Upstream) -> None:
    answer = session.get(upstream.url + "/a?b=c")
    assert (answer.status_code, answer.text, answer.history) == (200, "welcome", [])
    assert upstream.seen[0].header("Authorization") == "Bearer token-1"


def test_a_dead_token_is_replaced_and_the_request_sent_again(
    session: requests.Session, upstream: Upstream, idp: Idp
) -> None:
    _dies(session, idp, upstream)
    answer = session.get(upstream.url)
    assert (answer.status_code, [refused.status_code for refused in answer.history]) == (200, [401])
    assert [seen.header("Authorization") for seen in upstream.seen] == ["Bearer token-1", "Bearer token-2"]
    assert idp.requests == 2


@pytest.mark.parametrize(
    ("method", "body"),
    [
        *((method, body) for method in METHODS for body in ("none", "bytes")),
        *(("POST", body) for body in ("form", "file", "multipart")),
        ("PUT", "file"),
    ],
)
def test_the_request_is_sent_again_byte_by_byte(
    session: requests.Session, upstream: Upstream, idp: Idp, tmp_path: Path, method: str, body: str
) -> None:
    _dies(session, idp, upstream)
    content = bytes(range(256)) * 300
    (tmp_path / "file").write_bytes(b"skipped" + content)
    with (tmp_path / "file").open("rb") as file:
        file.seek(len(b"skipped"))
        given = {
            "none": {},
            "bytes": {"data": content},
            "form": {"data": {"a": "ä b"}},
            "file": {"data": file},
            "multipart": {"files": {"f": io.BytesIO(content)}},
        }[body]
        answer = session.request(method, upstream.url + "/x", headers={"X-User": "yes"}, **given)
    assert answer.status_code == 200
    first, second = upstream.seen
    assert first.but("Authorization") == second.but("Authorization")
    assert (second.header("Authorization"), second.header("X-User")) == ("Bearer token-2", "yes")
    if body in ("bytes", "file"):
        assert second.body == content


def test_a_generator_is_not_sent_again_but_its_401_is_reported(
    session: requests.Session, upstream: Upstream, idp: Idp
) -> None:
    _dies(session, idp, upstream)
    answer = session.post(upstream.url, data=(part for part in [b"a", b"b"]))
    assert (answer.status_code, answer.text, len(upstream.seen)) == (401, "refused", 1)
    assert upstream.seen[0].body == b"ab"
    assert session.get(upstream.url).status_code == 200
    assert idp.requests == 2


def test_a_storm_of_401s_costs_one_new_token(session: requests.Session, upstream: Upstream, idp: Idp) -> None:
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=200)
    session.mount("http://", adapter)
    _dies(session, idp, upstream)
    barrier = threading.Barrier(200)

    def ask(_: int) -> requests.Response:
        barrier.wait()
        return session.get(upstream.url)

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(ask, range(200)))
    assert {answer.status_code for answer in answers} == {200}
    assert max(len(answer.history) for answer in answers) == 1
    assert idp.requests == 2


def test_an_upstream_that_refuses_every_token_is_asked_twice(
    session: requests.Session, upstream: Upstream, idp: Idp
) -> None:
    upstream.answers["/no"] = (401, [], b"never")
    answer = session.get(upstream.url + "/no")
    assert (answer.status_code, answer.text, len(upstream.seen)) == (401, "never", 2)
    assert idp.requests == 2, "the second refusal is not reported"


def test_max_replays_is_a_limit(source: TokenSource, upstream: Upstream) -> None:
    upstream.answers["/no"] = (401, [], b"never")
    assert requests.get(upstream.url + "/no", auth=TokenAuth(source, max_replays=0)).status_code == 401
    assert len(upstream.seen) == 1
    assert requests.get(upstream.url + "/no", auth=TokenAuth(source, max_replays=2)).status_code == 401
    assert len(upstream.seen) == 4


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_other_answers_are_handed_through(session: requests.Session, upstream: Upstream, idp: Idp, status: int) -> None:
    upstream.answers["/x"] = (status, [], b"as it is")
    answer = session.get(upstream.url + "/x")
    assert (answer.status_code, answer.text, len(upstream.seen), idp.requests) == (status, "as it is", 1, 1)


def test_a_predicate_says_what_means_a_dead_token(source: TokenSource, upstream: Upstream, idp: Idp) -> None:
    session = requests.Session()
    session.auth = TokenAuth(source, is_rejection=lambda answer: answer.text == "SESSION_OVER" and "invalid_session")
    upstream.answers["/x"] = (200, [], b"SESSION_OVER")
    # `reject_on` of the credential does not know the code: the broker does not believe it, and nothing is sent again.
    assert session.get(upstream.url + "/x").text == "SESSION_OVER"
    assert (len(upstream.seen), idp.requests) == (1, 1)


def test_the_401_is_handed_through_while_the_broker_is_away(
    session: requests.Session, upstream: Upstream, idp: Idp, broker: Broker
) -> None:
    session.get(upstream.url)
    broker.kill()
    assert session.get(upstream.url).status_code == 200
    idp.revoke_all()
    answer = session.get(upstream.url)
    assert (answer.status_code, answer.text) == (401, "refused")
    with pytest.raises(tokencache.UnreachableError):
        session.get(upstream.url)


def test_a_header_and_a_scheme_of_ones_own(source: TokenSource, idp: Idp) -> None:
    with Upstream(idp.is_alive, header="X-Token", scheme="") as upstream:
        auth = TokenAuth(source, header="X-Token", scheme="")
        assert requests.get(upstream.url, auth=auth).status_code == 200
        idp.revoke_all()
        assert requests.get(upstream.url, auth=auth).status_code == 200
        assert upstream.seen[-1].header("X-Token") == "token-2"
        assert upstream.seen[-1].header("Authorization") is None


# The user's own session.


class Adapter(HTTPAdapter):
    """An adapter of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[dict[str, object]] = []

    def send(self, request, **kwargs):  # type: ignore[no-untyped-def]
        self.sent.append(kwargs)
        return super().send(request, **kwargs)


def test_the_users_adapter_sends_both_with_the_same_settings(
    session: requests.Session, upstream: Upstream, idp: Idp
) -> None:
    _dies(session, idp, upstream)
    adapter = Adapter()
    session.mount(upstream.url, adapter)
    answer = session.get(upstream.url, timeout=(7.0, 11.0), stream=True)
    assert answer.status_code == 200
    assert len(adapter.sent) == 2
    assert adapter.sent[0] == adapter.sent[1]
    assert (adapter.sent[1]["timeout"], adapter.sent[1]["stream"]) == ((7.0, 11.0), True)


def test_a_time_out_of_the_users_ends_the_replay_too(session: requests.Session, upstream: Upstream, idp: Idp) -> None:
    _dies(session, idp, upstream)
    ended = threading.Event()

    def slow_the_second_time(seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
        if seen.header("Authorization") == "Bearer token-2":
            ended.wait(60.0)
        return 401, [], b""

    upstream.answers["/slow"] = slow_the_second_time
    with pytest.raises(requests.exceptions.ReadTimeout):
        session.get(upstream.url + "/slow", timeout=0.5)
    ended.set()


def test_the_users_proxy_is_used_for_both(session: requests.Session, upstream: Upstream, idp: Idp) -> None:
    _dies(session, idp, upstream)
    with Proxy(idp.is_alive) as proxy:
        session.proxies = {"http": proxy.url}
        assert session.get("http://api.example/x").status_code == 200
        assert proxy.urls == ["http://api.example/x"] * 2
    assert upstream.seen == []


def test_the_users_ca_and_client_certificate_are_used_for_both(source: TokenSource, idp: Idp, tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("client@example.com").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "c.pem"))
    with Upstream(idp.is_alive, tls=tls) as upstream, requests.Session() as session:
        session.auth = TokenAuth(source)
        session.cert = str(tmp_path / "c.pem")
        with pytest.raises(requests.exceptions.SSLError):
            session.get(upstream.url)
        session.verify = str(tmp_path / "ca.pem")
        # A new connection for each, so that both have to be trusted.
        session.headers["Connection"] = "close"
        _dies(session, idp, upstream)
        assert session.get(upstream.url).status_code == 200
        assert len(upstream.seen) == 2


def test_the_users_cookies_are_sent_and_those_of_both_answers_kept(
    session: requests.Session, upstream: Upstream, idp: Idp
) -> None:
    _dies(session, idp, upstream)
    session.cookies.set("mine", "1")
    upstream.refusal_headers = [("Set-Cookie", "theirs=2; Path=/")]
    assert session.get(upstream.url).status_code == 200
    assert [seen.header("Cookie") for seen in upstream.seen] == ["mine=1", "mine=1"]
    assert session.cookies.get_dict() == {"mine": "1", "theirs": "2"}


def test_the_users_hooks_see_the_final_answer_once(session: requests.Session, upstream: Upstream, idp: Idp) -> None:
    _dies(session, idp, upstream)
    seen: list[int] = []
    session.hooks["response"].append(lambda answer, **_: seen.append(answer.status_code))
    session.get(upstream.url)
    assert seen == [200]


def test_a_redirect_within_the_host_keeps_the_token(session: requests.Session, upstream: Upstream, idp: Idp) -> None:
    upstream.answers["/old"] = (302, [("Location", "/new")], b"")
    assert session.get(upstream.url + "/old").status_code == 200
    idp.revoke_all()
    upstream.seen.clear()
    answer = session.get(upstream.url + "/old")
    assert (answer.status_code, [seen.path for seen in upstream.seen]) == (200, ["/old", "/new", "/new"])


def test_a_redirect_after_a_replay_carries_the_new_token(session: requests.Session, upstream: Upstream, idp: Idp) -> None:
    _dies(session, idp, upstream)

    def moved(seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
        if idp.is_alive((seen.header("Authorization") or "")[len("Bearer ") :]):
            return 307, [("Location", "/new")], b""
        return 401, [], b""

    upstream.answers["/old"] = moved
    assert session.post(upstream.url + "/old", data=b"x").status_code == 200
    told = [(seen.path, seen.header("Authorization"), seen.body) for seen in upstream.seen]
    assert told == [
        ("/old", "Bearer token-1", b"x"),
        ("/old", "Bearer token-2", b"x"),
        ("/new", "Bearer token-2", b"x"),
    ]


@pytest.mark.parametrize("header", ["Authorization", "X-Token"])
def test_a_redirect_elsewhere_never_gets_the_token(source: TokenSource, idp: Idp, header: str) -> None:
    with Upstream(idp.is_alive, header=header) as upstream, Upstream(lambda _: True, header=header) as other:
        upstream.answers["/away"] = (307, [("Location", other.url + "/there")], b"")
        for _ in range(2):
            answer = requests.post(upstream.url + "/away", auth=TokenAuth(source, header=header), data=b"x")
            assert answer.status_code == 401
            idp.revoke_all()
        assert [seen.header(header) for seen in other.seen] == [None, None]
        assert upstream.seen[0].header(header) == "Bearer token-1"
    assert idp.requests == 1


@pytest.mark.parametrize("header", ["Authorization", "X-Token"])
def test_a_redirect_elsewhere_after_a_replay_does_not_get_the_token_either(
    source: TokenSource, idp: Idp, header: str
) -> None:
    with Upstream(idp.is_alive, header=header) as upstream, Upstream(lambda _: True, header=header) as other:

        def moved(seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
            if idp.is_alive((seen.header(header) or "")[len("Bearer ") :]):
                return 302, [("Location", other.url)], b""
            return 401, [], b""

        upstream.answers["/away"] = moved
        source.get()
        idp.revoke_all()
        answer = requests.get(upstream.url + "/away", auth=TokenAuth(source, header=header))
        assert (answer.status_code, len(upstream.seen)) == (401, 2)
        assert [seen.header(header) for seen in other.seen] == [None]
