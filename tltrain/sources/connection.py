"""The connection to a server with OpenAI's API: its address, its key, and whether it is running."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from tltrain.errors import TltrainError
from tltrain.runtime import redact

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONNECT_TIMEOUT = 5.0
"""Seconds until a server that accepts no connection counts as not running."""


@contextmanager
def open_client(source: DictConfig) -> Iterator[tuple[AsyncOpenAI, asyncio.Runner]]:
    """Open a client of the server that `cfg.source` names, and a runner for its requests.

    Raises:
        TltrainError: there is no URL or model name, the URL contains a key, or the package `openai` is missing.
    """
    for key, example in (("url", "http://localhost:8000/v1"), ("model", "NAME")):
        if not source[key]:
            raise TltrainError(f"source=endpoint asks a server: give source.{key}={example}")
    if not re.fullmatch(r"https?://[^/@?#\s]+(/[^@?#\s]*)?", source.url):
        raise TltrainError(
            "source.url: expected http://HOST:PORT/v1, or https, without user, password or `?`; a key belongs into the "
            "environment variable that source.api_key_env names"
        )
    try:
        from openai import AsyncOpenAI, Timeout

        from tltrain.sources.limited_client import LimitedClient
    except ImportError:
        raise TltrainError("source=endpoint needs the package openai: pip install 'tltrain[endpoint]'") from None
    for library in ("httpx", "httpx2"):  # they log a line for each request
        logging.getLogger(library).setLevel(logging.WARNING)
    key = _key_from_environment(source.api_key_env)
    redact.learn(key)
    timeout = Timeout(source.timeout, connect=min(source.timeout, CONNECT_TIMEOUT))
    with asyncio.Runner() as runner:
        client = AsyncOpenAI(
            base_url=source.url,
            api_key=key or "none",  # a server without keys ignores it
            timeout=timeout,
            max_retries=source.retries,
            http_client=LimitedClient(int(source.max_response_size * 1e6), source.concurrency, timeout=timeout),
        )
        try:
            yield client, runner
        finally:
            runner.run(client.close())


def _key_from_environment(name: str) -> str:
    """Return the key in the environment variable `name`, "" if there is none; errors do not repeat the value."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise TltrainError("source.api_key_env: expected the name of an environment variable, not the key itself")
    key = os.environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise TltrainError(f"the environment variable {name} (source.api_key_env) holds no key: expected ASCII letters")
    return key


async def connect(client: AsyncOpenAI, url: str) -> None:
    """Raise a TltrainError unless the server at `url` accepts connections."""
    import openai

    from tltrain.sources.limited_client import UnreachableError

    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await client.with_options(max_retries=0).get("/models", cast_to=str)
    except UnreachableError as error:
        raise TltrainError(f"{url}: {error}") from None
    except (openai.OpenAIError, TimeoutError):  # it is running; the first request will report its errors
        pass
