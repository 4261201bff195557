"""Opens gRPC channels to the endpoints of a broker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

import grpc

from .errors import InvalidRequestError

#: A ping after so long without a frame, so that a watcher notices a broker that is gone. The proxies of the environment
#: are for the upstream, not for the broker. Reconnecting is quick, as a broker that restarts is back within seconds.
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


@dataclass(frozen=True)
class Tls:
    """The files of a TLS connection, PEM, read when the client connects."""

    ca_file: Optional[str] = None
    cert_file: Optional[str] = None
    key_file: Optional[str] = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files."""
        return grpc.ssl_channel_credentials(_read(self.ca_file), _read(self.key_file), _read(self.cert_file))


@dataclass(frozen=True)
class Endpoint:
    """Where a replica of the broker is."""

    #: What gRPC calls it.
    target: str
    #: Whether it speaks TLS.
    secure: bool

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read ``http://host:port``, ``https://host:port`` or ``unix:PATH``."""
        if text.startswith("unix:") and text[5:].strip("/"):
            return cls(text, secure=False)
        try:
            url = urlsplit(text)
            port = url.port
        except ValueError:
            raise _no_endpoint() from None
        extras = url.path.strip("/") or url.query or url.fragment or url.username or url.password
        if url.scheme not in ("http", "https") or not url.hostname or extras or any(c.isspace() for c in text):
            raise _no_endpoint()
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        secure = url.scheme == "https"
        return cls(f"dns:///{host}:{port or (443 if secure else 80)}", secure)

    def connect(self, tls: Tls) -> grpc.Channel:
        """Make a channel, which connects when it is used."""
        if self.secure:
            return _driven(grpc.secure_channel(self.target, tls.credentials(), options=_OPTIONS))
        options = list(_OPTIONS)
        if self.target.startswith("unix:"):
            # Else gRPC makes one of the path, which servers refuse.
            options.append(("grpc.default_authority", "localhost"))
        return _driven(grpc.insecure_channel(self.target, options=options))


def _driven(channel: grpc.Channel) -> grpc.Channel:
    """Have the channel's connecting go on between calls.

    gRPC moves a connection on while somebody waits on the channel. Calls that fail at once, as they do after a failure to
    connect, do not wait: a broker that came back was then found only by chance, for each attempt timed out in between. Who
    subscribes has a thread that waits.
    """
    channel.subscribe(_nothing)
    return channel


def close(channel: grpc.Channel) -> None:
    """Close a channel that `Endpoint.connect` made."""
    # First, so that its thread does not wait on a channel that is closed.
    channel.unsubscribe(_nothing)
    channel.close()


def _nothing(_: grpc.ChannelConnectivity) -> None:
    pass


def _no_endpoint() -> InvalidRequestError:
    # The text is not repeated: what is no endpoint may hold a password.
    return InvalidRequestError("not an endpoint: write http://host:port, https://host:port or unix:PATH")


def _read(path: Optional[str]) -> Optional[bytes]:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"cannot read {path}: {error.strerror}") from error
