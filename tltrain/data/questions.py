"""Write conversations and questions as chat-completions records, which `data=openai` and `benchmark=openai` read.

Tools keep their own names, although an API might refuse them: questions must match what was trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tltrain.formats.chat_completions import api_names
from tltrain.formats.native import messages_of
from tltrain.trajectory import Call, Message, Sample, Tool


def record(sample: Sample) -> dict[str, Any]:
    """Return the record of a question with its golden calls; `tltrain.data.openai.parse_sample` reads it back."""
    golden = [_call(each, f"golden_{number}") for number, each in enumerate(sample.goldens)]
    return conversation(sample.id, sample.tools, sample.messages, sample.instructions) | {"tool_calls": golden}


def conversation(
    identity: str, offered: Sequence[Tool], said: Sequence[Message], instructions: str = ""
) -> dict[str, Any]:
    """Return the record of a conversation; `tltrain.data.openai.parse` reads it back."""
    originals = {api: name for name, api in api_names(offered).items()}
    messages, _ = messages_of(said, instructions, offered)
    return {
        "id": identity,
        "messages": [_with_names(message, originals) for message in messages],
        "tools": tools(offered),
    }


def tools(offered: Iterable[Tool]) -> list[dict[str, Any]]:
    """Return tools as chat completions describe them, under their own names."""
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
