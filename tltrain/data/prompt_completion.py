"""TRL's prompt and completion: only the completion is learned.

    {"prompt": [{"role": "user", "content": "..."}],
     "completion": [{"role": "assistant", "tool_calls": [...]}], "tools": [...]}

Both are lists of messages as `tltrain.data.openai` reads them, or texts: a user's and an assistant's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from tltrain.data.conversations import trajectory
from tltrain.data.entries import Entry
from tltrain.data.openai import entry_of, tools_in_text
from tltrain.data.reading import expect, shown
from tltrain.data.schemas import offered_tools
from tltrain.errors import FieldError
from tltrain.trajectory import Trajectory


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    return "it has `prompt` and `completion`" if {"prompt", "completion"} <= record.keys() else ""


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    prompt = [replace(entry, learn=False) for entry in entries_under(record, "prompt", "user", notes)]
    entries = [*prompt, *entries_under(record, "completion", "assistant", notes)]
    tools = None if record.get("tools") in (None, "") else offered_tools(record["tools"], "tools", notes)
    if tools is None:
        entries, tools = tools_in_text(entries, notes)
    yield trajectory(record, number, tools, entries, notes, ("prompt", "completion", "tools"))


def entries_under(
    record: dict[str, Any], key: str, speaker: Literal["user", "assistant"], notes: Counter[str]
) -> list[Entry]:
    """Return the entries of a field: messages, one message, or a text of `speaker`. Raises FieldError."""
    value = record.get(key)
    if isinstance(value, str):
        return [Entry(speaker, key, value, value)]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise FieldError(key, "a text or a list of messages", "no such field" if key not in record else shown(value))
    return [entry_of(expect(entry, dict, f"{key}[{i}]"), f"{key}[{i}]", notes) for i, entry in enumerate(value)]
