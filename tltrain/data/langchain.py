"""Messages as LangChain dumps them, with a type in place of a role.

    {"messages": [
       {"type": "human", "content": "..."},
       {"type": "ai", "content": "", "tool_calls": [{"name": "...", "args": {...}, "id": "1", "type": "tool_call"}]},
       {"type": "tool", "content": "...", "tool_call_id": "1", "name": "...", "status": "success"}],
     "tools": [...]}

A message may be inside `data` (`messages_to_dict`) or inside `kwargs` beside its class (`dumpd`). Everything else is as
in `tltrain.data.openai`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tltrain.data import openai
from tltrain.data.reading import expect, expect_choice, member
from tltrain.errors import FieldError
from tltrain.trajectory import Trajectory

ROLES = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "function",
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "AIMessageChunk": "assistant",
    "HumanMessageChunk": "user",
    "SystemMessage": "system",
    "ToolMessage": "tool",
    "FunctionMessage": "function",
}
"""Role by the type of a message, or by the name of its class."""
_ECHOED = ("tool_use", "tool_call", "input_json_delta")
"""Content parts that repeat what is in `tool_calls`."""
_LEFT_OUT = ("type", "additional_kwargs", "response_metadata", "usage_metadata", "id", "example", "artifact")


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    messages = record.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    if not isinstance(first, dict) or "role" in first:
        return ""
    kind = _kind(first)
    return f"`messages` have the type `{kind}`" if kind in ROLES else ""


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    messages = [
        _message(expect(each, dict, f"messages[{i}]"), f"messages[{i}]", notes)
        for i, each in enumerate(member(record, "messages", list))
    ]
    yield from openai.parse({**record, "messages": messages}, number, notes)


def _kind(message: dict[str, Any]) -> Any:
    name = message.get("id")
    if message.get("type") == "constructor" and isinstance(name, list) and name:
        return name[-1]
    return message.get("type")


def _message(message: dict[str, Any], where: str, notes: Counter[str]) -> dict[str, Any]:
    """Return a message as chat completions write it."""
    role = ROLES[expect_choice(_kind(message), ROLES, f"{where}.type")]
    inner = next((key for key in ("kwargs", "data") if isinstance(message.get(key), dict)), None)
    held = message if inner is None else message[inner]
    if held.get("invalid_tool_calls"):
        raise FieldError(f"{where}.invalid_tool_calls", "calls whose arguments could be read", "some that could not")
    kept = {key: value for key, value in held.items() if key not in (*_LEFT_OUT, "invalid_tool_calls")}
    extra = held.get("additional_kwargs")
    if isinstance(extra, dict) and not kept.get("tool_calls"):
        kept |= {key: extra[key] for key in ("tool_calls", "function_call") if extra.get(key)}
    content = kept.get("content")
    if isinstance(content, list):
        kept["content"] = _parts(content, bool(kept.get("tool_calls")))
    return {"role": role, **kept}


def _parts(content: list[Any], called: bool) -> list[Any]:
    """Return the parts as objects, without those that repeat the calls."""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return [part for part in parts if not (called and isinstance(part, dict) and part.get("type") in _ECHOED)]
