"""What the client puts on the wire and makes of what comes back, against a broker that is made up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Optional

import grpc
import pytest
import trustme

import tokencache
from tokencache import Client
from tokencache._proto import status_pb2
from tokencache._proto import token_pb2 as pb


class Fake:
    """A token service that answers as it is told and records metadata and time left."""

    def __init__(self, credentials: Optional[grpc.ServerCredentials] = None) -> None:
        self.metadata: list[dict[str, object]] = []
        self.time_left: list[float] = []
        self.answer: Callable[[grpc.ServicerContext], pb.GetTokenResponse] = lambda _: _token()
        handlers = {
            "GetToken": grpc.unary_unary_rpc_method_handler(
                self._get, pb.GetTokenRequest.FromString, pb.GetTokenResponse.SerializeToString
            )
        }
        self._server = grpc.server(ThreadPoolExecutor(4))
        handler = grpc.method_handlers_generic_handler("tokencache.v1.TokenService", handlers)
        self._server.add_generic_rpc_handlers((handler,))
        if credentials is None:
            self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        else:
            self.endpoint = f"https://127.0.0.1:{self._server.add_secure_port('127.0.0.1:0', credentials)}"
        self._server.start()

    def _get(self, request: pb.GetTokenRequest, context: grpc.ServicerContext) -> pb.GetTokenResponse:
        self.metadata.append(dict(context.invocation_metadata()))
        self.time_left.append(context.time_remaining())
        return self.answer(context)

    def close(self) -> None:
        self._server.stop(None).wait()


def _token() -> pb.GetTokenResponse:
    answer = pb.GetTokenResponse(token=pb.Token(access_token="t", token_type="Bearer", generation=1))
    answer.token.expires_at.seconds = 4_000_000_000
    return answer


def _fails(code: grpc.StatusCode, reason: str, retry_after: Optional[float] = None):
    def fail(context: grpc.ServicerContext) -> pb.GetTokenResponse:
        status = status_pb2.Status(code=code.value[0], message="as it is")
        info = status_pb2.ErrorInfo(reason=reason, domain="tokencache")
        status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=info.SerializeToString())
        if retry_after is not None:
            retry = status_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(int(retry_after * 1000))
            status.details.add(type_url="type.googleapis.com/google.rpc.RetryInfo", value=retry.SerializeToString())
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, "as it is")
        raise AssertionError("unreachable")

    return fail


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.close()


def test_who_calls_and_how_long_is_told(fake: Fake) -> None:
    with Client(fake.endpoint, api_key="s3cr3t", deadline=1000.0) as client:
        client.get_token("ci")
        client.get_token("ci", timeout=500.0)
    assert fake.metadata[0]["authorization"] == "Bearer s3cr3t"
    # gRPC rounds up.
    assert 500.0 < fake.time_left[0] < 1100.0
    assert 0.0 < fake.time_left[1] < 600.0


def test_an_identity_may_change_between_calls(fake: Fake) -> None:
    keys = iter(["one", "two"])
    with Client(fake.endpoint, api_key=lambda: next(keys)) as client:
        client.get_token("ci")
        client.get_token("ci")
    assert [told["authorization"] for told in fake.metadata] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("reason", ["DRAINING", "STORE_DOWN", "AUDIT_DOWN"])
def test_another_replica_is_asked_once_after_the_pause_that_was_asked_for(fake: Fake, reason: str) -> None:
    fake.answer = _fails(grpc.StatusCode.UNAVAILABLE, reason, retry_after=0.01)
    other = Fake()
    try:
        for _ in range(8):
            with Client([fake.endpoint, other.endpoint]) as client:
                assert client.get_token("ci").token is not None
        other.answer = fake.answer
        fake.metadata.clear()
        other.metadata.clear()
        with Client([fake.endpoint, other.endpoint]) as client, pytest.raises(tokencache.UnavailableError) as failed:
            client.get_token("ci")
        assert (failed.value.reason, failed.value.retry_after) == (reason, 0.01)
        assert (len(fake.metadata), len(other.metadata)) == (1, 1)
    finally:
        other.close()


@pytest.mark.parametrize(
    ("reason", "retry_after"), [("UPSTREAM_DOWN", 0.01), ("UPSTREAM_THROTTLED", 0.01), ("DRAINING", 900.0)]
)
def test_no_other_replica_is_asked_where_that_is_of_no_use(fake: Fake, reason: str, retry_after: float) -> None:
    fake.answer = _fails(grpc.StatusCode.UNAVAILABLE, reason, retry_after)
    with Client([fake.endpoint, fake.endpoint]) as client, pytest.raises(tokencache.UnavailableError) as failed:
        client.get_token("ci")
    assert (failed.value.reason, len(fake.metadata)) == (reason, 1)


def test_a_broker_that_does_not_answer_in_time_is_unavailable(fake: Fake) -> None:
    released = threading.Event()

    def wait(_: grpc.ServicerContext) -> pb.GetTokenResponse:
        released.wait(60.0)
        return _token()

    fake.answer = wait
    with Client(fake.endpoint, deadline=0.2) as client, pytest.raises(tokencache.UnavailableError) as slow:
        client.get_token("ci")
    assert slow.value.is_transient
    released.set()


def test_a_token_that_no_header_can_carry_is_refused(fake: Fake) -> None:
    bad = _token()
    bad.token.access_token = "s3cr3t\r\nX-Evil: 1"
    fake.answer = lambda _: bad
    with Client(fake.endpoint) as client, pytest.raises(tokencache.InternalError) as refused:
        client.get_token("ci")
    assert "s3cr3t" not in str(refused.value)


def test_an_answer_without_a_token_is_refused_where_none_was_named(fake: Fake) -> None:
    fake.answer = lambda _: pb.GetTokenResponse(not_modified=True)
    with Client(fake.endpoint) as client:
        with pytest.raises(tokencache.InternalError):
            client.get_token("ci")
        assert client.get_token("ci", if_generation_not=1).token is None


def test_a_connection_that_was_given_up_is_closed_after_the_last_call_on_it(fake: Fake) -> None:
    with Client(fake.endpoint) as client:
        client.get_token("ci")
        (replica,) = client._connected().ranked()
        first, second = replica.enter(), replica.enter()
        assert first is second
        replica.lost(first)
        client.get_token("ci")
        assert len(replica._open) == 2, "a call is under way"
        replica.leave(first)
        replica.lost(second)
        assert len(replica._open) == 2, "another one is"
        replica.leave(second)
        assert len(replica._open) == 1
        with pytest.raises(ValueError, match="closed"):
            first.channel.unary_unary("/x")(b"")
        client.get_token("ci")
    assert replica._open == set()


def test_files_of_tls_that_were_replaced_are_used_by_the_next_call(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    server, caller = new.issue_cert("127.0.0.1"), new.issue_cert("caller@example.com")
    pair = (server.private_key_pem.bytes(), b"".join(blob.bytes() for blob in server.cert_chain_pems))
    made = Fake(grpc.ssl_server_credentials([pair], new.cert_pem.bytes(), require_client_auth=True))
    ca, key, cert = tmp_path / "ca.pem", tmp_path / "c.key", tmp_path / "c.pem"
    ca.write_bytes(old.cert_pem.bytes())
    key.write_bytes(caller.private_key_pem.bytes())
    cert.write_bytes(caller.cert_chain_pems[0].bytes())
    try:
        with Client(made.endpoint, ca_file=str(ca), cert_file=str(cert), key_file=str(key)) as client:
            with pytest.raises(tokencache.UnreachableError):
                client.get_token("ci")
            ca.write_bytes(new.cert_pem.bytes())
            assert client.get_token("ci").token is not None
            (replica,) = client._connected().ranked()
            before = replica._current
            assert client.get_token("ci").token is not None
            assert replica._current is before, "what did not change is not read again"
            # Away for a moment, or unreadable: the connection that there is will do.
            ca.unlink()
            assert client.get_token("ci").token is not None
            ca.mkdir()
            assert client.get_token("ci").token is not None
            assert replica._current is before
            ca.rmdir()
            ca.write_bytes(old.cert_pem.bytes())
            with pytest.raises(tokencache.UnreachableError):
                client.get_token("ci")
    finally:
        made.close()


def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    server, caller = authority.issue_cert("127.0.0.1"), authority.issue_cert("caller@example.com")
    pair = (server.private_key_pem.bytes(), b"".join(blob.bytes() for blob in server.cert_chain_pems))
    made = Fake(grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=True))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    caller.private_key_pem.write_to_path(str(tmp_path / "c.key"))
    caller.cert_chain_pems[0].write_to_path(str(tmp_path / "c.pem"))
    files = {name: str(tmp_path / path) for name, path in [("cert_file", "c.pem"), ("key_file", "c.key")]}
    try:
        with Client(made.endpoint, ca_file=str(tmp_path / "ca.pem"), **files) as client:
            assert client.get_token("ci").token is not None
        with Client(made.endpoint, ca_file=str(tmp_path / "ca.pem")) as nobody, pytest.raises(tokencache.UnreachableError):
            nobody.get_token("ci")
        with Client(made.endpoint, **files) as distrustful, pytest.raises(tokencache.UnreachableError):
            distrustful.get_token("ci")
    finally:
        made.close()
