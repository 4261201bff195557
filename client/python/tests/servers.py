"""An identity provider that counts, and an upstream that refuses dead tokens and records what it is sent."""

from __future__ import annotations

import itertools
import json
import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Callable, Optional


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are none of the tests' business."""


class Server:
    """Serves on a free port of the loopback interface until the end of the ``with`` block."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], tls: Optional[ssl.SSLContext] = None) -> None:
        self._http = _Http(("127.0.0.1", 0), handler)
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.port = self._http.server_address[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._http.shutdown()
        self._http.server_close()


class Idp(Server):
    """Mints a new token for each request, unless it is told otherwise."""

    def __init__(self) -> None:
        self.lifetime = 3600
        self.down = False
        self.requests = 0
        self.alive: set[str] = set()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        idp = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with idp._lock:
                    status, answer = idp._answer(self.path)
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        super().__init__(Handler)

    def _answer(self, path: str) -> tuple[int, dict[str, object]]:
        self.requests += 1
        if self.down:
            return 503, {}
        if path == "/refuse":
            return 401, {"error": "invalid_client"}
        token = f"token-{next(self._numbers)}"
        self.alive.add(token)
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}

    def is_alive(self, token: str) -> bool:
        return token in self.alive

    def revoke_all(self) -> None:
        self.alive.clear()


@dataclass(frozen=True)
class Seen:
    """A request as it came over the wire."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> Optional[str]:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def but(self, name: str) -> tuple[object, ...]:
        """Everything but one header."""
        return self.method, self.path, [pair for pair in self.headers if pair[0].lower() != name.lower()], self.body


class Upstream(Server):
    """Answers 200 to a token that is alive, and otherwise 401; `answers` by path stand in."""

    def __init__(
        self,
        is_alive: Callable[[str], bool],
        *,
        header: str = "Authorization",
        scheme: str = "Bearer ",
        tls: Optional[ssl.SSLContext] = None,
    ) -> None:
        self.seen: list[Seen] = []
        #: By path: status, headers, body; a callable is asked with the request.
        self.answers: dict[str, object] = {}
        self.challenge = 'Bearer realm="api", error="invalid_token"'
        self.refusal_headers: list[tuple[str, str]] = []
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                seen = Seen(self.command, self.path, list(self.headers.items()), self._body())
                upstream.seen.append(seen)
                status, headers, body = upstream._answer(seen, is_alive, header, scheme)
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = handle_any

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def log_message(self, *arguments: object) -> None:
                pass

        super().__init__(Handler, tls)

    def _answer(self, seen: Seen, is_alive, header: str, scheme: str) -> tuple[int, list[tuple[str, str]], bytes]:
        answer = self.answers.get(seen.path)
        if answer is not None:
            return answer(seen) if callable(answer) else answer
        presented = seen.header(header) or ""
        if presented.startswith(scheme) and is_alive(presented[len(scheme) :]):
            return 200, [], b"welcome"
        return 401, [("WWW-Authenticate", self.challenge), *self.refusal_headers], b"refused"


class Proxy(Server):
    """A forward proxy for plain HTTP that only counts: it answers itself, as the upstream would."""

    def __init__(self, is_alive: Callable[[str], bool]) -> None:
        self.urls: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy.urls.append(self.path)
                alive = is_alive(self.headers.get("Authorization", "")[len("Bearer ") :])
                self.send_response(200 if alive else 401)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        super().__init__(Handler)
