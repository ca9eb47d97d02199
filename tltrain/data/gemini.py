"""Conversations in the format of Google's Gemini API: contents with parts.

    {"systemInstruction": {"parts": [{"text": "..."}]}, "contents": [
       {"role": "user", "parts": [{"text": "..."}]},
       {"role": "model", "parts": [{"functionCall": {"name": "...", "args": {...}}}]},
       {"role": "user", "parts": [{"functionResponse": {"name": "...", "response": {...}}}]}],
     "tools": [{"functionDeclarations": [{"name": ..., "description": ..., "parameters": {...}}]}]}

Keys may also be written with underscores (`function_call`). A response that has only `output` or only `error` is the
tool's answer, as the API reference says; any other response is written as JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tltrain.data.arguments import read_named_call
from tltrain.data.conversations import trajectory
from tltrain.data.entries import Entry, Made, is_learned
from tltrain.data.reading import expect, expect_choice, member, note_rest, optional, shown
from tltrain.data.schemas import offered_tools
from tltrain.errors import FieldError
from tltrain.trajectory import Trajectory

ROLES = ("user", "model", "function", "tool", "system")
_INSTRUCTIONS = ("systemInstruction", "system_instruction")
_CALL = ("functionCall", "function_call")
_RESPONSE = ("functionResponse", "function_response")
_SIGNATURE = ("thoughtSignature", "thought_signature", "thought")


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    contents = record.get("contents")
    first = contents[0] if isinstance(contents, list) and contents else None
    return "`contents` have `parts`" if isinstance(first, dict) and isinstance(first.get("parts"), list) else ""


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    tools = None if record.get("tools") is None else offered_tools(record["tools"], "tools", notes)
    entries = [
        entry
        for i, content in enumerate(member(record, "contents", list))
        for entry in _entries(expect(content, dict, f"contents[{i}]"), f"contents[{i}]", notes)
    ]
    known = ("contents", "tools", *_INSTRUCTIONS)
    yield trajectory(record, number, tools, entries, notes, known, _instructions(record))


def _instructions(record: Mapping[str, Any]) -> str:
    where, said = _either(record, _INSTRUCTIONS)
    if said is None or isinstance(said, str):
        return said or ""
    parts = member(expect(said, dict, where), "parts", list, where)
    texts = [expect(part, dict, f"{where}.parts[{i}]") for i, part in enumerate(parts)]
    return "".join(member(part, "text", str, f"{where}.parts[{i}]") for i, part in enumerate(texts))


def _entries(content: dict[str, Any], where: str, notes: Counter[str]) -> Iterator[Entry]:
    """Yield the tools' answers in a content, then the rest of it."""
    role = expect_choice(content.get("role", "user"), ROLES, f"{where}.role")
    text: list[str] = []
    thought: list[str] = []
    calls: list[Made] = []
    for i, part in enumerate(member(content, "parts", list, where)):
        place = f"{where}.parts[{i}]"
        part = expect(part, dict, place)
        called, response = _either(part, _CALL), _either(part, _RESPONSE)
        if called[1] is not None and role == "model":
            call = expect(called[1], dict, f"{place}.{called[0]}")
            calls.append(Made(read_named_call(call, f"{place}.{called[0]}", notes), _id(call)))
        elif response[1] is not None and role != "model":
            yield _answer(expect(response[1], dict, f"{place}.{response[0]}"), f"{place}.{response[0]}")
        elif isinstance(part.get("text"), str):
            note_rest(part, notes, "text", *_SIGNATURE)
            (thought if part.get("thought") is True else text).append(part["text"])
        else:
            kinds = "text or functionCall" if role == "model" else "text or functionResponse"
            raise FieldError(place, kinds, shown(sorted(part)))
    if role == "model":
        learn = is_learned(content, where)
        yield Entry("assistant", where, "".join(text), content, tuple(calls), "\n".join(thought), learn)
    elif text:
        yield Entry("system" if role == "system" else "user", where, "".join(text), content)


def _answer(response: dict[str, Any], where: str) -> Entry:
    said = response.get("response")
    is_error = None
    if isinstance(said, dict) and len(said) == 1:
        is_error = True if "error" in said else None
        said = next((said[key] for key in ("output", "error") if key in said), said)
    if "response" not in response:
        raise FieldError(f"{where}.response", "an object", "no such field")
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    name = optional(response, "name", "", where)
    return Entry("tool", where, text, response, answers=_id(response), name=name, is_error=is_error)


def _either(holder: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, Any]:
    """Return the first of the names whose value is not null, and that value."""
    return next(((name, holder[name]) for name in names if holder.get(name) is not None), (names[0], None))


def _id(holder: Mapping[str, Any]) -> str:
    return holder["id"] if isinstance(holder.get("id"), str) else ""
