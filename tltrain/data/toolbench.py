"""ToolBench's solution paths: APIs as a Python list in the system text, calls as Thought, Action and Action Input.

{"id": "Step 3: ...", "conversations": [
   {"from": "system", "value": "You are AutoGPT ... access to the following APIs: [{'name': ..., ...}]"},
   {"from": "user", "value": "...\\nBegin!\\n"},
   {"from": "assistant", "value": "\\nThought: ...\\nAction: NAME\\nAction Input: {...}"},
   {"from": "function", "value": "..."}]}
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tltrain.data import sharegpt
from tltrain.data.arguments import python_value, read_arguments
from tltrain.data.conversations import trajectory
from tltrain.data.entries import Entry, Made
from tltrain.data.reading import expect, shown
from tltrain.data.schemas import offered_tools
from tltrain.errors import FieldError
from tltrain.trajectory import Call, Trajectory

APIS = "access to the following APIs:"
_ACTION = re.compile(r"\s*(?:Thought:(.*?))?\n?\s*Action:\s*([^\n]+?)\s*\n\s*Action Input:\s*(.*)", re.DOTALL)


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    first = record["conversations"][0] if sharegpt.recognise(record) and record.get("conversations") else {}
    value = first.get("value")
    return f"the system message says `{APIS}`" if isinstance(value, str) and APIS in value else ""


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    system, *entries = sharegpt.entries_of(record, "conversations", notes) or [Entry("system", "conversations[0]")]
    listed = python_value(system.text.partition(APIS)[2])
    if system.role != "system" or not isinstance(listed, list):
        raise FieldError(f"{system.where}.value", f"`{APIS}` and a list of them", shown(system.text[-40:]))
    notes["system messages: how to write calls, left out"] += 1
    tools = offered_tools(listed, f"{system.where}.value", notes)
    yield trajectory(record, number, tools, [_read(entry, notes) for entry in entries], notes, ("conversations",))


def _read(entry: Entry, notes: Counter[str]) -> Entry:
    if entry.role == "user":
        return replace(entry, text=entry.text.strip().removesuffix("Begin!").strip())
    found = _ACTION.fullmatch(entry.text) if entry.role == "assistant" else None
    if found is None:
        return entry
    arguments = read_arguments(found[3].strip(), f"{entry.where}.value, Action Input", notes)
    return replace(entry, text="", thought=(found[1] or "").strip(), calls=(Made(Call(found[2], arguments)),))
