"""Agent Data Protocol: a trajectory of actions and observations.

    {"id": "...", "content": [
       {"class_": "text_observation", "content": "...", "source": "user"},
       {"class_": "api_action", "function": "search", "kwargs": {"query": "love"}, "description": "I look it up."},
       {"class_": "text_observation", "content": "...", "source": "environment"},
       {"class_": "message_action", "content": "..."}],
     "available_apis": [...]}

The tools are in `available_apis` or `tools`, of the record or of its `details`. Code (`code_action`) is a call of a
tool named after its language, with the argument `code`. A `web_observation` is read as its accessibility tree, or as
its HTML if it has no tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tltrain.data.arguments import read_arguments
from tltrain.data.conversations import trajectory
from tltrain.data.entries import Entry, Made, is_learned
from tltrain.data.reading import expect, expect_choice, member, optional
from tltrain.data.schemas import offered_tools
from tltrain.errors import FieldError
from tltrain.trajectory import Call, Trajectory

KINDS = ("text_observation", "web_observation", "api_action", "code_action", "message_action")
_TOOLS = ("available_apis", "tools")


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    content = record.get("content")
    first = content[0] if isinstance(content, list) and content else None
    return "`content` has a `class_`" if isinstance(first, dict) and first.get("class_") in KINDS else ""


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    entries: list[Entry] = []
    for i, entry in enumerate(member(record, "content", list)):
        where = f"content[{i}]"
        entries.append(_entry(expect(entry, dict, where), where, bool(entries) and bool(entries[-1].calls), notes))
    yield trajectory(record, number, _tools(record, notes), entries, notes, ("content", *_TOOLS))


def _tools(record: dict[str, Any], notes: Counter[str]) -> Any:
    for holder, where in ((record, ""), (optional(record, "details", {}), "details.")):
        for key in _TOOLS:
            if holder.get(key) is not None:
                return offered_tools(holder[key], f"{where}{key}", notes)
    return None


def _entry(entry: dict[str, Any], where: str, called: bool, notes: Counter[str]) -> Entry:
    """Parse one action or observation; `called` says whether it follows a call."""
    kind = expect_choice(entry.get("class_"), KINDS, f"{where}.class_")
    if kind.endswith("observation"):
        if kind == "web_observation":
            text = next((entry[key] for key in ("axtree", "html") if isinstance(entry.get(key), str)), None)
            if text is None:
                raise FieldError(f"{where}.axtree", "a text, or one in html", "neither")
        else:
            text = member(entry, "content", str, where)
        from_user = entry.get("source", "environment") == "user"
        return Entry("tool" if called and not from_user else "user", where, text, entry, name=_name(entry))
    thought = optional(entry, "description", "", where)
    learn = is_learned(entry, where)
    if kind == "message_action":
        return Entry("assistant", where, member(entry, "content", str, where), entry, thought=thought, learn=learn)
    if kind == "code_action":
        call = Call(member(entry, "language", str, where), {"code": member(entry, "content", str, where)})
    else:
        arguments = read_arguments(entry.get("kwargs"), f"{where}.kwargs", notes)
        call = Call(member(entry, "function", str, where), arguments)
    if not call.name.strip():
        raise FieldError(where, "a tool's name", "an empty one")
    return Entry("assistant", where, "", entry, (Made(call),), thought, learn)


def _name(entry: dict[str, Any]) -> str:
    name = entry.get("name")
    return name if isinstance(name, str) else ""
