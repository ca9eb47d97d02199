"""A conversation as OpenAI's chat completions write it, with native tools; the returned calls as text of the TL format.

The counterpart of `tltrain.data.openai`, which reads such conversations.

An API refuses what the TL format allows, so it is put otherwise: names of tools are made of letters, digits, `_` and
`-` (`math.gcd` is offered as `math_gcd`, the way of the Berkeley benchmark, and read back); a call that nobody answered
gets an empty answer; a tool's answer to words that were no call is said by the user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tltrain.formats.calls import CallSyntaxError, read_call, render_call
from tltrain.trajectory import Call, Message, Sample, Tool


def request(sample: Sample) -> dict[str, Any]:
    """`messages` and `tools` of a request for the sample's next call."""
    names = api_names(sample.tools)
    written: dict[str, Any] = {"messages": _messages(sample, names)}
    if sample.tools:  # an empty list is refused
        written["tools"] = [_tool(tool, names) for tool in sample.tools]
    return written


def api_names(tools: Sequence[Tool]) -> dict[str, str]:
    """Tool name -> its name in the API: at most 64 of the characters an API allows, different for different tools."""
    names: dict[str, str] = {}
    for name in dict.fromkeys(tool.name for tool in tools):
        wanted, number = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64] or "_", 1
        free = wanted
        while free in names.values():
            number += 1
            free = f"{wanted[:60]}_{number}"
        names[name] = free
    return names


def _tool(tool: Tool, names: Mapping[str, str]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {}, **tool.parameters}
    function = {"name": names[tool.name], "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _messages(sample: Sample, names: Mapping[str, str]) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = []
    if sample.instructions:
        written.append({"role": "system", "content": sample.instructions})
    asked: str | None = None  # the id of the call that waits for its answer
    for number, message in enumerate(sample.messages):
        if message.role == "tool" and asked is not None:
            written.append({"role": "tool", "tool_call_id": asked, "content": message.content})
            asked = None
            continue
        if asked is not None:
            written.append({"role": "tool", "tool_call_id": asked, "content": ""})
            asked = None
        if message.call is not None:
            asked = f"call{number:05d}"  # nine letters and digits: Mistral's templates take no other
            written.append(_calling(message, message.call, asked, names))
        else:
            role = "user" if message.role == "tool" else message.role
            written.append({"role": role, "content": message.content})
    return written


def _calling(message: Message, call: Call, identity: str, names: Mapping[str, str]) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    function = {"name": names.get(call.name, call.name), "arguments": arguments}
    calls = [{"id": identity, "type": "function", "function": function}]
    return {"role": "assistant", "content": message.content or None, "tool_calls": calls}


UNREADABLE = "(not a call) "
"""Begins a call that has no place in the TL format: nothing that begins so is read as a call."""


def answer_text(message: Any, tools: Sequence[Tool]) -> str:
    """What an assistant's message says as text of the TL format: its calls, one a line, or its words.

    Raises:
        ValueError: it is no assistant's message.
    """
    if not isinstance(message, dict):
        raise ValueError(f"expected a message, found {str(message)[:80]!r}")
    calls, content = message.get("tool_calls"), message.get("content")
    if calls and isinstance(calls, list):
        originals = {api: name for name, api in api_names(tools).items()}
        return "\n".join(_call_text(call, originals) for call in calls)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"expected `content` to be text, found {str(content)[:80]!r}")
    return (content or "").strip()


def _call_text(entry: Any, originals: Mapping[str, str]) -> str:
    """One of `tool_calls` as a call, if that reads back as the same; else as it came, marked as no call."""
    try:
        function = entry["function"]
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            arguments = json.loads(arguments) if arguments.strip() else None
        call = Call(originals.get(function["name"], function["name"]), {} if arguments is None else arguments)
        text = render_call(call)
        if read_call(text) == call:
            return text
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, CallSyntaxError):
        pass
    return UNREADABLE + json.dumps(entry, ensure_ascii=False)
