"""An HTTP client for servers of strangers: what it reads has a limit, and it goes nowhere else.

`openai` retries around it and reads the status; what is raised here is an `OpenAIError`, which it does not retry.
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
    """A response that is not taken, or a server that cannot be reached: no retry would change it."""


class UnreachableError(RefusedError):
    """There is no connection to the server, and there never was one."""


class LimitedClient(httpx2.AsyncClient):
    """`httpx2.AsyncClient` that reads each response whole, to a limit, and follows no redirect.

    A header may have 100 KiB, a chain of content encodings five links (limits of httpx2). Text is UTF-8, as JSON is,
    whatever the server says of its encoding.

    Attributes:
        most_bytes: most bytes of a response's body, decompressed.
        reached: whether the server has ever answered: from then on a lost connection is tried again.
    """

    def __init__(self, most_bytes: int, connections: int, **settings: Any) -> None:
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        super().__init__(
            follow_redirects=False, default_encoding="utf-8", limits=limits, verify=_tls_context(), **settings
        )
        self.most_bytes = most_bytes
        self.reached = False

    async def send(self, request: httpx2.Request, *, stream: bool = False, **settings: Any) -> httpx2.Response:
        """The whole response to a request.

        Raises:
            RefusedError: it is a redirect, or longer than the limit.
            UnreachableError: there is no server.
            httpx2.RequestError: the connection was lost, or nothing came for too long.
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
    """Who is trusted, as httpx2 finds it; reading the certificates takes longer than many a request."""
    return httpx2.create_ssl_context()


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _redirect(url: httpx2.URL, location: str) -> str:
    try:
        target = url.join(location)
    except httpx2.InvalidURL:
        return "the server redirects to an address that is none; expected source.url to be the API's own address"
    same = _origin(target) == _origin(url)
    why = "redirects are not followed" if same else "another origin, to which neither the question nor the key is sent"
    return f"the server redirects to {target}: {why}; expected source.url to be the address that answers"


def _cause(error: Exception) -> str:
    """Why a connection failed, in words."""
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
