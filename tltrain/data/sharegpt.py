"""ShareGPT conversations, as LLaMA-Factory, axolotl, Hermes and APIGen-MT use them.

    {"conversations": [
       {"from": "human", "value": "..."},
       {"from": "function_call", "value": "{\\"name\\": \\"...\\", \\"arguments\\": {...}}"},
       {"from": "observation", "value": "..."},
       {"from": "gpt", "value": "..."}],
     "tools": "[...]", "system": "..."}

Calls may also be in the text of `gpt` and tools in the text of `system` (Hermes, `tltrain.data.text_calls`). Several
calls are a list, or consecutive messages. If an observation is a list with one item per call, each call gets its own
item.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tltrain.data.arguments import read_named_call, read_value
from tltrain.data.conversations import trajectory
from tltrain.data.entries import Entry, Made, is_learned
from tltrain.data.openai import tools_in_text
from tltrain.data.reading import expect, expect_choice, member, optional, texts_of
from tltrain.data.schemas import offered_tools
from tltrain.trajectory import Trajectory

ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "model", "chatgpt", "bot"), "assistant"),
    "system": "system",
    **dict.fromkeys(("function_call", "tool_call", "function-call"), "call"),
    **dict.fromkeys(("observation", "tool", "function", "tool_response", "function_response", "ipython"), "tool"),
}
FIELDS = ("conversations", "conversation")


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    for key in FIELDS:
        entries = record.get(key)
        if isinstance(entries, list) and entries and all(isinstance(e, dict) and "from" in e for e in entries):
            return f"`{key}` have `from` and `value`"
    return ""


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    key = FIELDS[1] if FIELDS[1] in record else FIELDS[0]
    entries = entries_of(record, key, notes)
    tools = None if record.get("tools") in (None, "") else offered_tools(record["tools"], "tools", notes)
    entries, in_text = tools_in_text(entries, notes)
    yield trajectory(record, number, tools or in_text, entries, notes, (*FIELDS, "tools", "system"))


def entries_of(record: dict[str, Any], key: str, notes: Counter[str]) -> list[Entry]:
    """Parse the messages, and the system message if it is outside them."""
    found: list[Entry] = []
    system = optional(record, "system", "")
    if system:
        found.append(Entry("system", "system", system, system))
    for i, entry in enumerate(member(record, key, list)):
        where = f"{key}[{i}]"
        entry = expect(entry, dict, where)
        role = ROLES[expect_choice(entry.get("from"), ROLES, f"{where}.from")]
        value = entry.get("value")
        if role in ("call", "tool") and isinstance(value, dict | list):
            value = json.dumps(value, ensure_ascii=False)
        value = member({**entry, "value": value} if "value" in entry else entry, "value", str, where)
        if role == "call":
            calls = tuple(Made(call) for call in _calls(value, f"{where}.value", notes))
            learn = is_learned(entry, where)
            found.append(Entry("assistant", where, "", entry, calls, learn=learn, parallel=_after_call(found)))
        elif role == "assistant":
            found.append(Entry("assistant", where, value, entry, learn=is_learned(entry, where)))
        elif role == "tool":
            count = _open_calls(found)
            answers = texts_of(value, count) if count > 1 else [value]
            found += [Entry("tool", where, text, entry, name=optional(entry, "name", "", where)) for text in answers]
        else:
            found.append(Entry("system" if role == "system" else "user", where, value, entry))
    return found


def _calls(text: str, where: str, notes: Counter[str]) -> list[Any]:
    value = read_value(text, where, notes)
    return [read_named_call(entry, where, notes) for entry in (value if isinstance(value, list) else [value])]


def _after_call(entries: list[Entry]) -> bool:
    return bool(entries) and bool(entries[-1].calls)


def _open_calls(entries: list[Entry]) -> int:
    """Return how many calls directly precede this position."""
    count = 0
    for entry in reversed(entries):
        if not entry.calls:
            break
        count += len(entry.calls)
        if not entry.parallel:
            break
    return count
