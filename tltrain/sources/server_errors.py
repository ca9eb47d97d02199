"""Recognize the errors of servers with OpenAI's API, and name the key that helps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tltrain.runtime import json_files

_CONTEXT = re.compile(
    r"context[ _-]?\w{0,10}[ _-]?(length|size|window)|longer than the model|(prompt|input) is too long"
    r"|exceeds the maximum number of (input )?tokens|tokens`? \+ `?max_new_tokens`? must be",
    re.IGNORECASE,
)
"""Messages about a prompt that is too long, from OpenAI, vLLM, llama.cpp, SGLang, Anthropic, Gemini and TGI."""
_REJECTED = re.compile(
    r"unsupported|not (?:\w+ )?(?:support|permit|allow|accept)\w*|does(?:n't| not) support|unknown|unrecogni[sz]ed"
    r"|unexpected|extra (?:inputs|fields)|extra_forbidden|invalid",
    re.IGNORECASE,
)


def too_long(status: int, said: str) -> bool:
    """Return whether a server reports that a prompt is too long."""
    return status in (400, 413, 422) and bool(_CONTEXT.search(said))


def remedy(status: int, said: str, body: Mapping[str, Any], limit_field: str) -> str:
    """Return how to avoid the field of a request that a server rejects; empty if the server names none.

    Args:
        said: the server's message.
        body: the request's body.
        limit_field: the value of `source.limit_field`.
    """
    other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[limit_field]
    if status not in (400, 422) or not _REJECTED.search(said):
        return ""
    content = ("model", "prompt", "messages")  # words that any message may contain
    names = [name for name in body if name not in content and re.search(rf"\b{re.escape(name)}\b", said)]
    if limit_field in names and (limit_field == "max_completion_tokens" or other in said):
        return f"source.limit_field={other} uses another name for the limit"
    keys = {
        "temperature": "source.temperature=null leaves it to the server",
        limit_field: f"see stage.max_new_tokens; source.extra.{limit_field}=null leaves it to the server",
        "add_special_tokens": "model.bos=auto leaves it out",
        "tools": "source.mode=text does not need tools",
    }
    return keys.get(names[0], f"source.extra.{names[0]}=null leaves it out") if names else ""


def no_completion(received: str, shown: str) -> str:
    """Return the message about a response that is not a completion.

    Args:
        received: the response's text.
        shown: the same text, shortened and without secrets.
    """
    try:
        error = json_files.parse(received)["error"]
    except (ValueError, KeyError, TypeError):
        error = None
    if error:
        return f"the server answers with an error in place of a completion: {shown}"
    page = "; a web page: expected source.url to be the API's address" if received.lstrip()[:1] == "<" else ""
    return f"expected a completion in JSON, found {shown!r}{page}"
