"""Questions as chat-completions records with golden calls, the file that `benchmark=openai` reads.

Tools keep their own names here, which an API might refuse: what is asked is to be what was trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tltrain.formats.chat_completions import api_names
from tltrain.formats.native import messages_of
from tltrain.trajectory import Call, Sample, Tool


def record(sample: Sample) -> dict[str, Any]:
    """Return the record of a question; `tltrain.data.openai.parse_sample` reads it back."""
    originals = {api: name for name, api in api_names(sample.tools).items()}
    messages, _ = messages_of(sample.messages, sample.instructions, sample.tools)
    return {
        "id": sample.id,
        "messages": [_with_names(message, originals) for message in messages],
        "tools": tools(sample.tools),
        "tool_calls": [_call(golden, f"golden_{number}") for number, golden in enumerate(sample.goldens)],
    }


def tools(offered: Iterable[Tool]) -> list[dict[str, Any]]:
    """Return tools as chat-completions describe them, by their own names."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in offered
    ]


def _call(call: Call, identity: str) -> dict[str, Any]:
    return {
        "id": identity,
        "type": "function",
        "function": {"name": call.name, "arguments": dict(call.arguments)},
    }


def _with_names(message: dict[str, Any], originals: Mapping[str, str]) -> dict[str, Any]:
    """Return the message with the tools' own names."""
    found = dict(message)
    if "name" in found:
        found["name"] = originals.get(found["name"], found["name"])
    if "tool_calls" in found:
        found["tool_calls"] = [
            {**made, "function": {**made["function"], "name": originals.get(name, name)}}
            for made in found["tool_calls"]
            for name in [made["function"]["name"]]
        ]
    return found
