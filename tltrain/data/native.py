"""Our own trajectory file, `train.jsonl` (`data=tltrain`): one JSON object per line, lossless in both directions.

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

`content` is the message's text. An assistant message with one call has `call`, one with several has `calls`; `thought`
is present only if there is one. A message's `learn` is written only if it is false: the message is history and never a
target. A call has its own `learn` only if it differs from its message's. `id` and `answers` link a tool's message to
the call it answers; without them the answers follow the order of the calls. `is_error` is present only if the source
states whether the call failed. `instructions` and `meta` are present only if they are not empty.

A line without `version` is version 0, which has no `calls`, `thought` or ids; version 1 has no `is_error`. A line is
written in the lowest version from 1 on that can represent it, so that an earlier tltrain can read what it could write.
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
"""The newest version; `parse` reads it and all earlier ones."""

ROLES: tuple[Role, ...] = get_args(Role)

MESSAGE_FIELDS = {
    0: ("role", "content", "call", "learn"),
    1: ("role", "content", "thought", "call", "calls", "learn", "answers"),
    2: ("role", "content", "thought", "call", "calls", "learn", "answers", "is_error"),
}
"""The fields that a message may have, by version."""
CALL_FIELDS = {
    0: ("name", "arguments"),
    1: ("name", "arguments", "id", "learn"),
    2: ("name", "arguments", "id", "learn"),
}
"""The fields that a call may have, by version."""
SPEAKERS = {
    "call": ("a call", "assistant"),
    "calls": ("calls", "assistant"),
    "thought": ("a thought", "assistant"),
    "answers": ("an answer", "tool"),
    "is_error": ("whether the call failed", "tool"),
}
"""Fields that only messages of one role have."""
RECORD_FIELDS = dict.fromkeys(MESSAGE_FIELDS, ("version", "id", "tools", "messages", "instructions", "meta"))
"""The fields that a line may have, by version."""


def dumps(trajectory: Trajectory) -> str:
    """Return one line of the file without the line break; `parse` returns the same trajectory.

    Raises:
        TltrainError: a value cannot be written as JSON in UTF-8: NaN, a lone surrogate, or `ANY`, which only golden
            calls to compare with may contain.
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
    return json_line(record, trajectory.id)


def json_line(record: Mapping[str, Any], name: str) -> str:
    """Return a record of the trajectory of this name as a line of JSON. Raises TltrainError, as `dumps`."""
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        line.encode()
    except (TypeError, ValueError) as error:
        raise TltrainError(f"trajectory {name}: cannot be written as JSON: {error}") from None
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
    """Return a call's record; `learn` is its message's."""
    record: dict[str, Any] = {"name": made.call.name, "arguments": dict(made.call.arguments)}
    if made.id:
        record["id"] = made.id
    if made.learn != learn:
        record["learn"] = made.learn
    return record


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError, also for an unknown field."""
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
    """Parse a call; `learn` is its message's."""
    entry = _known(entry, where, CALL_FIELDS, version)
    call = Call(member(entry, "name", str, where), member(entry, "arguments", dict, where))
    return ToolCall(call, optional(entry, "learn", learn, where), optional(entry, "id", "", where))


def _known(record: Any, where: str, fields: Mapping[int, tuple[str, ...]], version: int) -> dict[str, Any]:
    """Return the object if it has only its version's fields; in our own format any other field is a mistake."""
    for key in expect(record, dict, where):
        if key in fields[version]:
            continue
        having = [known for known in fields if key in fields[known]]
        if having:
            raise FieldError(where, f'"version": {min(having)} in a line that has `{key}`', f"version {version}")
        raise FieldError(where, f"the fields {', '.join(fields[version])}", key)
    return record
