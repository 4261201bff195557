"""Fixtures: a real `tokencached`, an identity provider and an upstream, each with ports of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from broker import Broker
from servers import Idp, Upstream

from tokencache import Client, TokenSource


@pytest.fixture(autouse=True)
def _nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out what requests and httpx would heed: requests ranks a CA bundle named there before the session's."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def idp() -> Iterator[Idp]:
    with Idp() as server:
        yield server


@pytest.fixture
def upstream(idp: Idp) -> Iterator[Upstream]:
    with Upstream(idp.is_alive) as server:
        yield server


@pytest.fixture
def program() -> Path:
    path = os.environ.get("TOKENCACHED")
    if not path:
        pytest.fail("TOKENCACHED does not say where the broker's program is")
    return Path(path)


@pytest.fixture
def broker(idp: Idp, tmp_path: Path, program: Path) -> Iterator[Broker]:
    with Broker(program, tmp_path, idp.url) as running:
        yield running


@pytest.fixture
def client(broker: Broker) -> Iterator[Client]:
    with Client(broker.endpoint) as made:
        yield made


@pytest.fixture
def source(client: Client) -> Iterator[TokenSource]:
    with TokenSource(client, "ci") as made:
        yield made
