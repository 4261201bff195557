"""Attaches tokens to the requests of an `httpx.Client` or `httpx.AsyncClient` of the user's own."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from typing import Optional, TypeVar, Union

import anyio.to_thread
import httpx

from ._rules import Verdict, error_code, header_value, may_replay
from .errors import InvalidRequestError, TokencacheError
from .source import TokenSource
from .types import Token

_log = logging.getLogger("tokencache")

_Result = TypeVar("_Result")

#: Where a request says which origin its token is for; httpx hands it on to what a redirect makes of it.
_ORIGIN = "tokencache.origin"


class TokenAuth(httpx.Auth):
    """Attaches a token; after a 401, reports it, takes the replacement and sends the request again.

    Use it as ``auth=`` of a client or of one request. Every other answer is handed through untouched, and so is the 401
    where the broker gives no replacement or is away, or after `max_replays`. A body that is a stream is read into memory,
    so that it can be sent again; with ``requires_request_body=False`` it is not, and its 401 is handed through.

    httpx takes ``Authorization`` out of a request that is redirected elsewhere. For another header `install` does.
    """

    def __init__(
        self,
        source: TokenSource,
        *,
        header: str = "Authorization",
        scheme: Optional[str] = None,
        max_replays: int = 1,
        is_rejection: Optional[Callable[[httpx.Response], Verdict]] = None,
        requires_request_body: bool = True,
        requires_response_body: bool = False,
    ) -> None:
        """Take the tokens from a source.

        `scheme` stands before the token in the header; by default it is the token's type, and nothing if it is empty.
        `is_rejection` says which answers mean a dead token, by default those with 401; it may return the upstream's error
        code, and finds the answer's body read if `requires_response_body`. A request that is not idempotent is sent again
        after a 401 alone.
        """
        self.requires_request_body = requires_request_body
        self.requires_response_body = requires_response_body
        self._source = source
        self._header = header
        self._scheme = scheme
        self._max_replays = max_replays
        self._is_rejection = is_rejection
        self._guards = header.lower() == "authorization"

    def __repr__(self) -> str:
        return f"TokenAuth({self._source!r}, header={self._header!r})"

    def install(self, client: Union[httpx.Client, httpx.AsyncClient]) -> None:
        """Become the client's ``auth``, and take the token out of each request that is redirected to another origin.

        A header other than ``Authorization`` needs this, as httpx would send it wherever an upstream redirects to.
        """

        async def guard_async(request: httpx.Request) -> None:
            self._guard(request)

        guard = guard_async if isinstance(client, httpx.AsyncClient) else self._guard
        hooks = client.event_hooks
        client.event_hooks = {**hooks, "request": [*hooks.get("request", []), guard]}
        client.auth = self
        self._guards = True

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Be driven by `httpx.Client`."""
        exchange = _Exchange(self, request)
        if self.requires_request_body and self._max_replays > 0:
            request.read()
        token: Token = self._source.get()
        while True:
            response = yield exchange.attach(token)
            if self.requires_response_body:
                response.read()
            code = exchange.judge(response)
            replacement = None if code is None else exchange.settle(self._reported(token, response, code))
            if replacement is None:
                return
            token = replacement

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Be driven by `httpx.AsyncClient`. Whatever waits for the broker waits in a thread."""
        exchange = _Exchange(self, request)
        if self.requires_request_body and self._max_replays > 0:
            await request.aread()
        held = self._source.current()
        token: Token = await _in_thread(self._source.get) if held is None else held
        while True:
            response = yield exchange.attach(token)
            if self.requires_response_body:
                await response.aread()
            code = exchange.judge(response)
            if code is None:
                return
            replacement = exchange.settle(await _in_thread(partial(self._reported, token, response, code)))
            if replacement is None:
                return
            token = replacement

    def _reported(self, token: Token, response: httpx.Response, code: str) -> Optional[Token]:
        """Report a token; its replacement, if there is one."""
        code = code or error_code(response.headers.get("WWW-Authenticate"))
        try:
            return self._source.rejected(token, response.status_code, error=code)
        except TokencacheError as error:
            _log.warning("no replacement for a refused token: %s", error)
            return None

    def _guard(self, request: httpx.Request) -> None:
        origin = request.extensions.get(_ORIGIN)
        if origin is not None and origin != _origin(request.url):
            request.headers.pop(self._header, None)


class _Exchange:
    """One request of the user's, with its redirects and replays."""

    def __init__(self, auth: TokenAuth, request: httpx.Request) -> None:
        if not auth._guards:
            raise InvalidRequestError(f"{auth._header} would follow redirects to anywhere: use TokenAuth.install(client)")
        self._auth = auth
        self._next = request
        self._origin = _origin(request.url)
        self._value = ""
        self._replays = 0
        request.extensions = {**request.extensions, _ORIGIN: self._origin}

    def attach(self, token: Token) -> httpx.Request:
        self._value = header_value(token, self._auth._scheme)
        self._next.headers[self._auth._header] = self._value
        return self._next

    def judge(self, response: httpx.Response) -> Optional[str]:
        """Return the upstream's code, or an empty text, if the answer means that our token is dead."""
        request = response.request
        # Neither what a redirect elsewhere came to nor a header that the user replaced tells anything about our token.
        if request.headers.get(self._auth._header) != self._value or _origin(request.url) != self._origin:
            return None
        # The last one is not reported: an upstream that refuses fresh tokens has another reason.
        if 0 < self._auth._max_replays <= self._replays:
            return None
        verdict: Verdict = response.status_code == 401
        if self._auth._is_rejection is not None:
            verdict = self._auth._is_rejection(response)
        self._answered = response
        if isinstance(verdict, str):
            return verdict
        return "" if verdict else None

    def settle(self, replacement: Optional[Token]) -> Optional[Token]:
        """Decide whether the request is sent again, and prepare it: what was answered, which a redirect may have made."""
        response = self._answered
        request = response.request
        if replacement is None or self._replays >= self._auth._max_replays:
            return None
        if not may_replay(request.method, response.status_code) or not _is_replayable(request):
            return None
        if response.cookies:
            httpx.Cookies(response.cookies).set_cookie_header(request)
        self._replays += 1
        self._next = request
        return replacement


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    # What the thread has begun goes on for the others who wait for it.
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


def _is_replayable(request: httpx.Request) -> bool:
    """Whether the body is in memory, or there is none."""
    return isinstance(request.stream, httpx.ByteStream)


def _origin(url: httpx.URL) -> tuple[str, str, Optional[int]]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)
