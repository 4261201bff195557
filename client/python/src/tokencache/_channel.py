"""Opens gRPC channels to the endpoints of a broker."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

import grpc

from .errors import InvalidRequestError

#: A ping after so long without a frame, so that a watcher notices a broker that is gone. The proxies of the environment
#: are for the upstream, not for the broker. An attempt to connect takes no longer than the least pause between two of
#: them, and a new channel has nothing to do with what became of the last one.
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.min_reconnect_backoff_ms", 3_000),
]


@dataclass(frozen=True)
class Tls:
    """The files of a TLS connection, PEM, read for each connection."""

    ca_file: Optional[str] = None
    cert_file: Optional[str] = None
    key_file: Optional[str] = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files."""
        return grpc.ssl_channel_credentials(_read(self.ca_file), _read(self.key_file), _read(self.cert_file))

    def stamp(self) -> Optional[tuple[tuple[int, ...], ...]]:
        """Return what differs once a file was replaced or written to; ``None`` while one is away."""
        paths = [path for path in (self.ca_file, self.cert_file, self.key_file) if path is not None]
        try:
            return tuple(_stamp(Path(path).stat()) for path in paths)
        except OSError:
            return None


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
            return grpc.secure_channel(self.target, tls.credentials(), options=_OPTIONS)
        options = list(_OPTIONS)
        if self.target.startswith("unix:"):
            # Else gRPC makes one of the path, which servers refuse.
            options.append(("grpc.default_authority", "localhost"))
        return grpc.insecure_channel(self.target, options=options)


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


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
