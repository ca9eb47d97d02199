"""An HTTP client for untrusted servers: it limits the size of responses and follows no redirect.

`openai` retries around it and reads the status. Errors raised here are `OpenAIError`s, which `openai` does not retry.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx2
from openai import OpenAIError


class RefusedError(OpenAIError):
    """The response is refused, or the server cannot be reached; a retry would not help."""


class UnreachableError(RefusedError):
    """The server cannot be reached and has never answered."""


class LimitedClient(httpx2.AsyncClient):
    """An `httpx2.AsyncClient` that reads whole responses up to a size limit and follows no redirect.

    httpx2 itself limits headers to 100 KiB and chains of content encodings to five. Text is decoded as UTF-8, the
    encoding of JSON, whatever encoding the server states.

    Attributes:
        most_bytes: maximum size of a response's decompressed body, in bytes.
        reached: whether the server has ever answered; from then on, lost connections are retried.
    """

    def __init__(self, most_bytes: int, connections: int, **settings: Any) -> None:
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        super().__init__(
            follow_redirects=False, default_encoding="utf-8", limits=limits, verify=_tls_context(), **settings
        )
        self.most_bytes = most_bytes
        self.reached = False

    async def send(self, request: httpx2.Request, *, stream: bool = False, **settings: Any) -> httpx2.Response:
        """Send a request and return the whole response.

        Raises:
            RefusedError: the response is a redirect, or larger than the limit.
            UnreachableError: the server cannot be reached.
            httpx2.RequestError: the connection was lost or timed out.
        """
        try:
            response = await super().send(request, stream=True, **settings)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            if self.reached:
                raise
            raise UnreachableError(f"there is no connection to {_origin(request.url)}: {_cause(error)}") from error
        self.reached = True
        try:
            if response.has_redirect_location:
                raise RefusedError(_redirect(request.url, response.headers["location"]))
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > self.most_bytes:
                    raise RefusedError(
                        f"the response is longer than {self.most_bytes / 1e6:g} MB (source.max_response_size)"
                    )
        finally:
            await response.aclose()
        headers = {
            name: value
            for name, value in response.headers.items()
            if name not in ("content-encoding", "content-length", "content-type", "transfer-encoding")
        }
        return httpx2.Response(
            response.status_code, headers=headers, content=bytes(content), request=request, default_encoding="utf-8"
        )


@cache
def _tls_context() -> ssl.SSLContext:
    """Return httpx2's TLS settings; reading the certificates takes longer than many requests."""
    return httpx2.create_ssl_context()


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _redirect(url: httpx2.URL, location: str) -> str:
    try:
        target = url.join(location)
    except httpx2.InvalidURL:
        return "the server redirects to an invalid address; expected source.url to be the API's own address"
    same = _origin(target) == _origin(url)
    why = "redirects are not followed" if same else "another origin, to which neither the question nor the key is sent"
    return f"the server redirects to {target}: {why}; expected source.url to be the address that answers"


def _cause(error: Exception) -> str:
    """Return in words why a connection failed."""
    for cause in _causes(error):
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused; is the server running, and source.url its address?"
        if isinstance(cause, socket.gaierror):
            return "the name of the host is not known; see source.url"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason or cause}); see whether source.url begins with http:// or https://"
    if isinstance(error, httpx2.ConnectTimeout):
        return "nobody answers; is the server running, and source.url its address?"
    return f"{error}; is the server running, and source.url its address?"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        yield from error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        error = error.__cause__ or error.__context__
