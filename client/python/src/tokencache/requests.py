"""Attaches tokens to the requests of a `requests.Session` of the user's own."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Optional
from urllib.parse import urljoin

from requests import PreparedRequest, Response
from requests.auth import AuthBase
from requests.cookies import extract_cookies_to_jar
from requests.exceptions import RequestException, UnrewindableBodyError
from requests.sessions import SessionRedirectMixin
from requests.utils import rewind_body

from ._rules import Verdict, error_code, header_value, may_replay
from .errors import TokencacheError
from .source import TokenSource
from .types import Token

_log = logging.getLogger("tokencache")

#: What requests itself does when an answer points elsewhere.
_REDIRECTS = SessionRedirectMixin()


class TokenAuth(AuthBase):
    """Attaches a token; after a 401, reports it, takes the replacement and sends the request again.

    Use it as ``session.auth`` or as ``auth=`` of one request. The request is sent again through the same adapter with the
    same settings: proxies, certificates and timeouts are the user's. Hooks of the user's see the final answer; the refused
    one is in its ``history``. Every other answer is handed through untouched, and so is the 401 where the body cannot be
    sent again (a generator), where the broker gives no replacement or is away, or after `max_replays`.

    The token is sent to no other host than the one asked for, wherever it redirects to.
    """

    def __init__(
        self,
        source: TokenSource,
        *,
        header: str = "Authorization",
        scheme: Optional[str] = None,
        max_replays: int = 1,
        is_rejection: Optional[Callable[[Response], Verdict]] = None,
    ) -> None:
        """Take the tokens from a source.

        `scheme` stands before the token in the header; by default it is the token's type, and nothing if it is empty.
        `is_rejection` says which answers mean a dead token, by default those with 401; it may return the upstream's error
        code. A request that is not idempotent is sent again after a 401 alone.
        """
        self._source = source
        self._header = header
        self._scheme = scheme
        self._max_replays = max_replays
        self._is_rejection = is_rejection

    def __repr__(self) -> str:
        return f"TokenAuth({self._source!r}, header={self._header!r})"

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Be called by requests for each request."""
        exchange = _Exchange(self, self._source.get(), r.url or "")
        exchange.attach(r)
        r.register_hook("response", exchange.answered)  # type: ignore[no-untyped-call]
        return r


class _Exchange:
    """One request of the user's, with its redirects and replays."""

    def __init__(self, auth: TokenAuth, token: Token, url: str) -> None:
        self._auth = auth
        self._token = token
        self._url = url
        self._replays = 0

    def attach(self, request: PreparedRequest) -> None:
        auth = self._auth
        request.headers[auth._header] = header_value(self._token, auth._scheme)

    def answered(self, response: Response, **kwargs: Any) -> Response:
        """Be the hook of the request and of those that redirects make of it."""
        sent = response.request
        if self._carries_token(sent):
            response = self._replay_while_refused(response, kwargs)
            self._mind_redirect(sent, response)
        return response

    def _carries_token(self, request: PreparedRequest) -> bool:
        """Whether our token was sent: not if the user put another header there, nor after a redirect elsewhere."""
        expected = header_value(self._token, self._auth._scheme)
        return request.headers.get(self._auth._header) == expected and not self._is_elsewhere(request.url or "")

    def _is_elsewhere(self, url: str) -> bool:
        return bool(_REDIRECTS.should_strip_auth(self._url, url))  # type: ignore[no-untyped-call]

    def _replay_while_refused(self, response: Response, kwargs: dict[str, Any]) -> Response:
        while True:
            verdict = self._judge(response)
            if verdict is False or verdict is None:
                return response
            # The last one is not reported: an upstream that refuses fresh tokens has another reason.
            if 0 < self._auth._max_replays <= self._replays:
                return response
            replacement = self._report(response, verdict if isinstance(verdict, str) else "")
            if replacement is None or self._replays >= self._auth._max_replays:
                return response
            if not may_replay(response.request.method or "", response.status_code):
                return response
            again = self._send_again(response, replacement, kwargs)
            if again is None:
                return response
            response = again

    def _judge(self, response: Response) -> Verdict:
        if self._auth._is_rejection is not None:
            return self._auth._is_rejection(response)
        return response.status_code == 401

    def _report(self, response: Response, code: str) -> Optional[Token]:
        code = code or error_code(response.headers.get("WWW-Authenticate"))
        try:
            return self._auth._source.rejected(self._token, response.status_code, error=code)
        except TokencacheError as error:
            _log.warning("no replacement for a refused token: %s", error)
            return None

    def _send_again(self, response: Response, token: Token, kwargs: dict[str, Any]) -> Optional[Response]:
        # Any, as the published types know neither its cookies nor what answers' connection is.
        request: Any = response.request.copy()
        if not _rewind(request):
            return None
        # The connection is free for the replay once the answer is read.
        with contextlib.suppress(RequestException):
            _ = response.content
        response.close()
        if request._cookies is not None:
            extract_cookies_to_jar(request._cookies, response.request, response.raw)  # type: ignore[no-untyped-call]
            request.prepare_cookies(request._cookies)
        self._token = token
        self._replays += 1
        self.attach(request)
        begun = time.perf_counter()
        again: Response = response.connection.send(request, **kwargs)
        again.elapsed = timedelta(seconds=time.perf_counter() - begun)
        again.history = [*response.history, response]
        again.request = request
        return again

    def _mind_redirect(self, sent: PreparedRequest, response: Response) -> None:
        """Prepare what requests makes the next request of, which is the one that was sent first."""
        target = _REDIRECTS.get_redirect_target(response)
        if target is None:
            return
        if self._is_elsewhere(urljoin(response.url, target)):
            # requests drops `Authorization` alone.
            sent.headers.pop(self._auth._header, None)
        else:
            self.attach(sent)


def _rewind(request: PreparedRequest) -> bool:
    """Make the body ready to be sent again; false if it cannot be."""
    body = request.body
    if body is None or isinstance(body, (bytes, bytearray, str)):
        return True
    if not isinstance(getattr(request, "_body_position", None), int) or not hasattr(body, "seek"):
        return False
    try:
        rewind_body(request)
    except UnrewindableBodyError:
        return False
    return True
