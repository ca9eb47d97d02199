"""Conversations in the format of OpenAI's Responses API: a list of items.

    {"instructions": "...", "input": [
       {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "..."}]},
       {"type": "reasoning", "summary": [{"type": "summary_text", "text": "..."}]},
       {"type": "function_call", "call_id": "1", "name": "...", "arguments": "{...}"},
       {"type": "function_call_output", "call_id": "1", "output": "..."}],
     "output": [...], "tools": [{"type": "function", "name": "...", "parameters": {...}}]}

`input` may be the user's text; the items of `output` and of `items` follow those of `input`. Consecutive calls belong
to one message.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tltrain.data.arguments import read_named_call
from tltrain.data.conversations import trajectory
from tltrain.data.entries import Entry, Made, is_learned
from tltrain.data.openai import INSTRUCTIONS, text_of
from tltrain.data.reading import expect, expect_choice, optional
from tltrain.data.schemas import offered_tools
from tltrain.errors import FieldError
from tltrain.trajectory import Trajectory

KEYS = ("input", "output", "items")
_ROLES = ("user", "assistant", *INSTRUCTIONS)
_ITEMS = ("message", "function_call", "function_call_output", "reasoning")


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    for key in KEYS:
        for item in record[key] if isinstance(record.get(key), list) else ():
            if isinstance(item, dict) and item.get("type") in _ITEMS:
                return f"`{key}` has an item of type `{item['type']}`"
    return ""


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    tools = None if record.get("tools") is None else offered_tools(record["tools"], "tools", notes)
    entries = list(_entries(record, notes))
    if not entries:
        raise FieldError("input", "a text or a list of items", "none")
    known = (*KEYS, "tools", "instructions")
    yield trajectory(record, number, tools, entries, notes, known, optional(record, "instructions", ""))


def _entries(record: dict[str, Any], notes: Counter[str]) -> Iterator[Entry]:
    thought = ""
    called = False
    for key in KEYS:
        items = record.get(key)
        if isinstance(items, str) and key == "input":
            yield Entry("user", key, items, items)
            continue
        for i, item in enumerate(optional(record, key, []) if items is not None else []):
            where = f"{key}[{i}]"
            item = expect(item, dict, where)
            kind = expect_choice(item.get("type", "message"), _ITEMS, f"{where}.type")
            if kind == "reasoning":
                thought = "\n".join(filter(None, [thought, _reasoning(item, where)]))
                continue
            entry = _entry(item, kind, where, notes)
            if entry.role == "assistant":
                entry = replace(entry, thought=thought, parallel=called)
                thought = ""
            called = bool(entry.calls)
            yield entry
    if thought:
        notes["messages: a thought that nothing follows, left out"] += 1


def _entry(item: dict[str, Any], kind: str, where: str, notes: Counter[str]) -> Entry:
    if kind == "function_call":
        made = Made(read_named_call(item, where, notes), optional(item, "call_id", "", where))
        return Entry("assistant", where, "", item, (made,), learn=is_learned(item, where))
    if kind == "function_call_output":
        if "output" not in item:
            raise FieldError(f"{where}.output", "a text", "no such field")
        output = item["output"]
        if isinstance(output, list) and output and all(isinstance(part, dict) and "type" in part for part in output):
            text = text_of({"content": output}, where)
        else:
            text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
        return Entry("tool", where, text, item, answers=optional(item, "call_id", "", where))
    role = expect_choice(item.get("role"), _ROLES, f"{where}.role")
    said = text_of(item, where)
    if role == "assistant":
        return Entry("assistant", where, said, item, learn=is_learned(item, where))
    return Entry("system" if role in INSTRUCTIONS else "user", where, said, item)


def _reasoning(item: dict[str, Any], where: str) -> str:
    """Return a reasoning item's text, or its summary's."""
    for key in ("content", "summary"):
        parts = optional(item, key, [], where)
        texts = [expect(part, dict, f"{where}.{key}[{i}]").get("text") for i, part in enumerate(parts)]
        if any(isinstance(text, str) and text for text in texts):
            return "\n".join(text for text in texts if isinstance(text, str))
    return ""
