"""Our own file of trajectories, `train.jsonl` (`data=tltrain`): one JSON object a line, nothing lost either way.

    {"version": 2,
     "id": "...",
     "tools": [{"name": "...", "description": "...", "parameters": {<JSON schema>}}],
     "messages": [
       {"role": "user", "content": "..."},
       {"role": "assistant", "content": "", "call": {"name": "...", "arguments": {...}}, "learn": false},
       {"role": "tool", "content": "..."},
       {"role": "assistant", "content": "", "thought": "...", "calls": [
         {"name": "...", "arguments": {...}, "id": "a"},
         {"name": "...", "arguments": {...}, "id": "b", "learn": false}]},
       {"role": "tool", "content": "...", "answers": "a"},
       {"role": "tool", "content": "...", "answers": "b", "is_error": true}],
     "instructions": "...",
     "meta": {...}}

`content` is the message's text. An assistant message that makes one call has `call`, one that makes several has
`calls`; `thought` stands only where there is one. `learn` of a message stands only where it is false: the message is
history and never a target. A call has a `learn` of its own only where it differs from its message's. `id` and `answers`
say which call a tool's message answers; without them the answers stand in the order of the calls. `is_error` stands
only where the source says outright whether the call failed. `instructions` and `meta` stand only where there are any.

A line without `version` is version 0, which has neither `calls`, `thought` nor ids; version 1 has no `is_error`. A line
is written in the lowest version from 1 on that can hold it, so that what an earlier tltrain could write it can read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from tltrain.data.reading import expect, expect_choice, expect_id, expect_tools, member, optional, shown
from tltrain.errors import FieldError, TltrainError
from tltrain.trajectory import Call, Message, Role, ToolCall, Trajectory

VERSION = 2
"""The newest version that `dumps` writes; `parse` reads it and all before it."""

ROLES: tuple[Role, ...] = get_args(Role)

MESSAGE_FIELDS = {
    0: ("role", "content", "call", "learn"),
    1: ("role", "content", "thought", "call", "calls", "learn", "answers"),
    2: ("role", "content", "thought", "call", "calls", "learn", "answers", "is_error"),
}
"""Version -> the fields that a message may have."""
CALL_FIELDS = {
    0: ("name", "arguments"),
    1: ("name", "arguments", "id", "learn"),
    2: ("name", "arguments", "id", "learn"),
}
"""Version -> the fields that a call may have."""
SPEAKERS = {
    "call": ("a call", "assistant"),
    "calls": ("calls", "assistant"),
    "thought": ("a thought", "assistant"),
    "answers": ("an answer", "tool"),
    "is_error": ("whether the call failed", "tool"),
}
"""Fields that only messages of one role have."""
RECORD_FIELDS = dict.fromkeys(MESSAGE_FIELDS, ("version", "id", "tools", "messages", "instructions", "meta"))
"""Version -> the fields that a line may have."""


def dumps(trajectory: Trajectory) -> str:
    """One line of the file, without the line break; `parse` gives the same trajectory back.

    Raises:
        TltrainError: a value that JSON in UTF-8 cannot hold, such as NaN, a lone surrogate, or `ANY` (a golden value is
            there to compare with, not to learn).
    """
    record: dict[str, Any] = {
        "version": 1 if all(message.is_error is None for message in trajectory.messages) else VERSION,
        "id": trajectory.id,
        "tools": [
            {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
            for tool in trajectory.tools
        ],
        "messages": [_message_record(message) for message in trajectory.messages],
    }
    if trajectory.instructions:
        record["instructions"] = trajectory.instructions
    if trajectory.meta:
        record["meta"] = dict(trajectory.meta)
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        line.encode()
    except (TypeError, ValueError) as error:
        raise TltrainError(f"trajectory {trajectory.id}: cannot be written as JSON: {error}") from None
    return line


def _message_record(message: Message) -> dict[str, Any]:
    record: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.thought:
        record["thought"] = message.thought
    calls = [_call_record(made, message.learn) for made in message.calls]
    if calls:
        record |= {"call": calls[0]} if len(calls) == 1 else {"calls": calls}
    if not message.learn:
        record["learn"] = False
    if message.answers:
        record["answers"] = message.answers
    if message.is_error is not None:
        record["is_error"] = message.is_error
    return record


def _call_record(made: ToolCall, learn: bool) -> dict[str, Any]:
    """A call; `learn` is its message's."""
    record: dict[str, Any] = {"name": made.call.name, "arguments": dict(made.call.arguments)}
    if made.id:
        record["id"] = made.id
    if made.learn != learn:
        record["learn"] = made.learn
    return record


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """The one trajectory of a record. Raises FieldError, also for a field it does not know."""
    version = _version(expect(record, dict, "record"))
    record = _known(record, "record", RECORD_FIELDS, version)
    tools = expect_tools(member(record, "tools", list), "tools", notes)
    messages = tuple(_message(m, f"messages[{i}]", version) for i, m in enumerate(member(record, "messages", list)))
    instructions, meta = optional(record, "instructions", ""), optional(record, "meta", {})
    yield Trajectory(expect_id(record), tools, messages, instructions, meta)


def _version(record: dict[str, Any]) -> int:
    version = record.get("version", 0)
    if not isinstance(version, int) or isinstance(version, bool) or version not in MESSAGE_FIELDS:
        *others, last = map(str, MESSAGE_FIELDS)
        known = f"{', '.join(others)} or {last}"
        raise FieldError(
            "version", f"{known} (a newer tltrain wrote this: read it with that one, or update)", shown(version)
        )
    return version


def _message(record: Any, where: str, version: int) -> Message:
    record = _known(record, where, MESSAGE_FIELDS, version)
    role = expect_choice(record.get("role"), ROLES, f"{where}.role")
    for key, (what, speaker) in SPEAKERS.items():
        if record.get(key) is not None and role != speaker:
            raise FieldError(f"{where}.{key}", f"{what} with role {speaker} only", role)
    learn = optional(record, "learn", True, where)
    entries = [(entry, f"{where}.calls[{i}]") for i, entry in enumerate(optional(record, "calls", [], where))]
    if record.get("call") is not None:
        if entries:
            raise FieldError(where, "`call` or `calls`", "both")
        entries = [(record["call"], f"{where}.call")]
    return Message(
        role,
        text=optional(record, "content", "", where),
        calls=tuple(_call(entry, place, version, learn) for entry, place in entries),
        thought=optional(record, "thought", "", where),
        learn=learn,
        answers=optional(record, "answers", "", where),
        is_error=None if record.get("is_error") is None else member(record, "is_error", bool, where),
    )


def _call(entry: Any, where: str, version: int, learn: bool) -> ToolCall:
    """A call; `learn` is its message's."""
    entry = _known(entry, where, CALL_FIELDS, version)
    call = Call(member(entry, "name", str, where), member(entry, "arguments", dict, where))
    return ToolCall(call, optional(entry, "learn", learn, where), optional(entry, "id", "", where))


def _known(record: Any, where: str, fields: Mapping[int, tuple[str, ...]], version: int) -> dict[str, Any]:
    """An object with no other fields than its version has: in our own format another one is a mistake."""
    for key in expect(record, dict, where):
        if key in fields[version]:
            continue
        having = [known for known in fields if key in fields[known]]
        if having:
            raise FieldError(where, f'"version": {min(having)} in a line that has `{key}`', f"version {version}")
        raise FieldError(where, f"the fields {', '.join(fields[version])}", key)
    return record
