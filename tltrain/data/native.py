"""Our own file of trajectories, `train.jsonl` (`data=tltrain`): one JSON object a line, nothing lost either way.

    {"id": "...",
     "tools": [{"name": "...", "description": "...", "parameters": {<JSON schema>}}],
     "messages": [
       {"role": "user", "content": "..."},
       {"role": "assistant", "content": "", "call": {"name": "...", "arguments": {...}}, "learn": false},
       {"role": "tool", "content": "..."}],
     "instructions": "...",
     "meta": {...}}

`call` stands only with an assistant message that calls a tool; `learn` only where it is false, on a message that is
history and never a target; `instructions` and `meta` only where there are any.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args

from tltrain.data.reading import expect, expect_choice, expect_id, expect_tools, member, optional
from tltrain.errors import FieldError, TltrainError
from tltrain.trajectory import Call, Message, Role, Trajectory

ROLES: tuple[Role, ...] = get_args(Role)


def dumps(trajectory: Trajectory) -> str:
    """One line of the file, without the line break; `parse` gives the same trajectory back.

    Raises:
        TltrainError: a value that JSON in UTF-8 cannot hold, such as NaN, a lone surrogate, or `ANY` (a golden value is
            there to compare with, not to learn).
    """
    record: dict[str, Any] = {
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
    record: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.call is not None:
        record["call"] = {"name": message.call.name, "arguments": dict(message.call.arguments)}
    if not message.learn:
        record["learn"] = False
    return record


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """The one trajectory of a record. Raises FieldError, also for a field it does not know."""
    record = _known(record, "record", "id", "tools", "messages", "instructions", "meta")
    tools = expect_tools(member(record, "tools", list), "tools", notes)
    messages = tuple(_message(m, f"messages[{i}]") for i, m in enumerate(member(record, "messages", list)))
    instructions, meta = optional(record, "instructions", ""), optional(record, "meta", {})
    yield Trajectory(expect_id(record), tools, messages, instructions, meta)


def _message(record: Any, where: str) -> Message:
    record = _known(record, where, "role", "content", "call", "learn")
    role = expect_choice(record.get("role"), ROLES, f"{where}.role")
    call = None
    if record.get("call") is not None:
        if role != "assistant":
            raise FieldError(f"{where}.call", "a call with role assistant only", role)
        entry = _known(record["call"], f"{where}.call", "name", "arguments")
        call = Call(member(entry, "name", str, f"{where}.call"), member(entry, "arguments", dict, f"{where}.call"))
    return Message(role, optional(record, "content", "", where), call, optional(record, "learn", True, where))


def _known(record: Any, where: str, *fields: str) -> dict[str, Any]:
    """An object with no other fields than these: in our own format another one is a mistake."""
    for key in expect(record, dict, where):
        if key not in fields:
            raise FieldError(where, f"the fields {', '.join(fields)}", key)
    return record
