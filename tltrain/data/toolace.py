"""ToolACE: tools in the system text, calls as a list of Python calls.

{"system": "... Here is a list of functions in JSON format that you can invoke:\\n[{...}] ...",
 "conversations": [{"from": "user", "value": "..."},
   {"from": "assistant", "value": "[Market Trends(country=\\"us\\"), Clock()]"},
   {"from": "tool", "value": "[{\\"name\\": \\"Market Trends\\", \\"results\\": {...}}, ...]"}]}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tltrain.data import sharegpt
from tltrain.data.conversations import trajectory
from tltrain.data.entries import Entry, Made
from tltrain.data.reading import expect, member, parse_json, parse_json_at, shown
from tltrain.data.schemas import offered_tools
from tltrain.errors import FieldError
from tltrain.formats.calls import CallSyntaxError, call_end, read_call
from tltrain.trajectory import Call, Trajectory

LIST = "list of functions in JSON format"


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    system = record.get("system")
    if isinstance(system, str) and LIST in system and sharegpt.recognise(record):
        return f"`system` has a {LIST}"
    return ""


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    system = member(record, "system", str)
    at = system.find("[", max(system.find(LIST), 0))
    if at < 0:
        raise FieldError("system", "a list of functions", shown(system[:40]))
    listed, _ = parse_json_at(system, at, "system")
    tools = offered_tools(listed, "system", notes)
    names = {tool.name for tool in tools}
    entries = [
        _read(entry, names, notes) for entry in sharegpt.entries_of({**record, "system": ""}, "conversations", notes)
    ]
    notes["system messages: how to write calls, left out"] += 1
    yield trajectory(record, number, tools, _answers(entries), notes, ("system", "conversations"))


def _read(entry: Entry, names: Collection[str], notes: Counter[str]) -> Entry:
    """Return the assistant's message with its calls, if it has any."""
    if entry.role != "assistant" or not entry.text.lstrip().startswith("["):
        return entry
    calls = python_calls(entry.text)
    if calls is None or not any(call.name in names for call in calls):
        notes["messages: text that begins as a list of calls but is none, kept as text"] += 1
        return entry
    return replace(entry, text="", calls=tuple(map(Made, calls)))


def python_calls(text: str) -> list[Call] | None:
    """Return the calls of `[name(key=value, ...), ...]`; None if the text is anything else."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    at = 1
    calls: list[Call] = []
    while at < len(text):
        rest = text[at:].lstrip(" \n\t,")
        at = len(text) - len(rest)
        if rest == "]":
            return calls or None
        end = call_end(rest)
        if end is None:
            return None
        try:
            calls.append(read_call(rest[:end]))
        except CallSyntaxError:
            return None
        at += end
    return None


def _answers(entries: list[Entry]) -> Iterator[Entry]:
    """Yield the entries with each tool's message split into its answers, which name their tools."""
    for entry in entries:
        answers = _named(entry.text) if entry.role == "tool" else None
        if answers is None:
            yield entry
        else:
            for answer in answers:
                value = next((answer[key] for key in ("results", "result", "content") if key in answer), answer)
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                yield replace(entry, text=text, name=str(answer["name"]))


def _named(text: str) -> list[Mapping[str, Any]] | None:
    try:
        value = parse_json(text, "")
    except FieldError:
        return None
    named = isinstance(value, list) and value and all(isinstance(each, dict) and "name" in each for each in value)
    return value if named else None
