"""What servers with OpenAI's API say is wrong, and which key helps."""

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
"""How servers say that a prompt is too long: OpenAI and vLLM, llama.cpp, SGLang, Anthropic, Gemini, TGI."""
_REJECTED = re.compile(
    r"unsupported|not (?:\w+ )?(?:support|permit|allow|accept)\w*|does(?:n't| not) support|unknown|unrecogni[sz]ed"
    r"|unexpected|extra (?:inputs|fields)|extra_forbidden|invalid",
    re.IGNORECASE,
)


def too_long(status: int, said: str) -> bool:
    """Whether a server says that it has no room for a prompt."""
    return status in (400, 413, 422) and bool(_CONTEXT.search(said))


def remedy(status: int, said: str, body: Mapping[str, Any], limit_field: str) -> str:
    """The key that helps where a server rejects a field of the request; empty where it rejects none that it names.

    Args:
        body: of the request. limit_field: the value of `source.limit_field`.
    """
    other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[limit_field]
    if status not in (400, 422) or not _REJECTED.search(said):
        return ""
    content = ("model", "prompt", "messages")  # words of any explanation
    names = [name for name in body if name not in content and re.search(rf"\b{re.escape(name)}\b", said)]
    if limit_field in names and (limit_field == "max_completion_tokens" or other in said):
        return f"source.limit_field={other} names the limit otherwise"
    keys = {
        "temperature": "source.temperature=null leaves it to the server",
        limit_field: f"see stage.max_new_tokens; source.extra.{limit_field}=null leaves it to the server",
        "add_special_tokens": "model.bos=auto leaves it out",
        "tools": "source.mode=text does not need tools",
    }
    return keys.get(names[0], f"source.extra.{names[0]}=null leaves it out") if names else ""


def no_completion(received: str, shown: str) -> str:
    """What to say of a response that is no completion.

    Args:
        received: its text. shown: the same, as it may be shown.
    """
    try:
        error = json_files.parse(received)["error"]
    except (ValueError, KeyError, TypeError):
        error = None
    if error:
        return f"the server answers with an error in place of a completion: {shown}"
    page = "; a web page: expected source.url to be the API's address" if received.lstrip()[:1] == "<" else ""
    return f"expected a completion in JSON, found {shown!r}{page}"
