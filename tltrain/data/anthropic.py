"""Conversations in the format of Anthropic's Messages API: content in blocks.

{"system": "...", "messages": [
   {"role": "user", "content": "..."},
   {"role": "assistant", "content": [{"type": "text", "text": "..."},
      {"type": "tool_use", "id": "1", "name": "...", "input": {...}}]},
   {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "...", "is_error": true}]}],
 "tools": [{"name": "...", "description": "...", "input_schema": {...}}]}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, cast

from tltrain.data.arguments import read_named_call
from tltrain.data.conversations import trajectory
from tltrain.data.entries import Entry, Made, is_learned
from tltrain.data.reading import expect, expect_choice, member, optional
from tltrain.data.schemas import offered_tools
from tltrain.trajectory import Trajectory

BLOCKS = ("tool_use", "tool_result", "thinking", "redacted_thinking")


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    messages = record.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict) and block.get("type") in BLOCKS:
                return f"content has a block `{block['type']}`"
    tools = record.get("tools")
    first = tools[0] if isinstance(tools, list) and tools else None
    return (
        "`system` stands beside `messages`, tools have `input_schema`"
        if (isinstance(messages, list) and "system" in record and isinstance(first, dict) and "input_schema" in first)
        else ""
    )


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    instructions = "" if record.get("system") is None else _text(record["system"], "system")
    tools = None if record.get("tools") is None else offered_tools(record["tools"], "tools", notes)
    entries = [
        entry
        for i, message in enumerate(member(record, "messages", list))
        for entry in _entries(expect(message, dict, f"messages[{i}]"), f"messages[{i}]", notes)
    ]
    yield trajectory(record, number, tools, entries, notes, ("messages", "tools", "system"), instructions)


def _entries(message: dict[str, Any], where: str, notes: Counter[str]) -> Iterator[Entry]:
    """Yield a message's tool results, then the rest of its content."""
    role = expect_choice(message.get("role"), ("user", "assistant", "system"), f"{where}.role")
    content = message.get("content")
    blocks = (
        [{"type": "text", "text": content}] if isinstance(content, str) else expect(content, list, f"{where}.content")
    )
    text: list[str] = []
    thought: list[str] = []
    calls: list[Made] = []
    for i, block in enumerate(blocks):
        place = f"{where}.content[{i}]"
        kinds = ("text", *(BLOCKS[:1] + BLOCKS[2:] if role == "assistant" else BLOCKS[1:2]))
        kind = expect_choice(expect(block, dict, place).get("type"), kinds, f"{place}.type")
        if kind == "text":
            text.append(member(block, "text", str, place))
        elif kind == "thinking":
            thought.append(member(block, "thinking", str, place))
        elif kind == "redacted_thinking":
            notes["messages: thoughts that are encrypted, left out"] += 1
        elif kind == "tool_use":
            calls.append(Made(read_named_call(block, place, notes), optional(block, "id", "", place)))
        else:
            failed = block.get("is_error")
            yield Entry(
                "tool",
                place,
                "" if block.get("content") is None else _text(block["content"], f"{place}.content"),
                block,
                answers=optional(block, "tool_use_id", "", place),
                is_error=None if failed is None else expect(failed, bool, f"{place}.is_error"),
            )
    if text or calls or thought or role == "assistant":
        learn = role != "assistant" or is_learned(message, where)
        speaker = cast(Literal["user", "assistant", "system"], role)
        yield Entry(speaker, where, "".join(text), message, tuple(calls), "\n".join(thought), learn)


def _text(content: Any, where: str) -> str:
    """Return the text of a string or of a list of text blocks."""
    if isinstance(content, str):
        return content
    parts = []
    for i, block in enumerate(expect(content, list, where)):
        expect_choice(expect(block, dict, f"{where}[{i}]").get("type"), ["text"], f"{where}[{i}].type")
        parts.append(member(block, "text", str, f"{where}[{i}]"))
    return "".join(parts)
