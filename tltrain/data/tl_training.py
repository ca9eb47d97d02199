r"""The paper's raw trajectories (`raw_data.json`, TL-Training): a JSON list or JSON lines.

    {"id": "...", "conversations": [
      {"role": "system",    "content": "<JSON list of {type: function, function: {name, description, parameters}}>"},
      {"role": "user",      "content": "..."},
      {"role": "assistant", "content": "tool_name\n{\"param\": value}"},
      {"role": "function",  "content": "<the tool's answer, as text>"}]}

Other fields of a record become the trajectory's `meta`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tltrain.data.reading import (
    expect,
    expect_choice,
    expect_id,
    expect_tools,
    member,
    note_rest,
    parse_json_at,
    rest,
    shown,
)
from tltrain.errors import FieldError, TltrainError
from tltrain.formats.tl import call_of
from tltrain.trajectory import Call, Message, Role, Trajectory, sequential

ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "function": "tool"}
OTHERWISE = "leave stage.write out for tltrain's own file, which has everything, or write another trainer's"
"""The remedy if the raw format has no place for something."""


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    conversation = member(record, "conversations", list)
    if not conversation:
        raise FieldError("conversations", "a system message", "an empty list")
    first = expect(conversation[0], dict, "conversations[0]")
    expect_choice(first.get("role"), ["system"], "conversations[0].role")
    tools = expect_tools(member(first, "content", str, "conversations[0]"), "conversations[0].content", notes)
    messages = tuple(
        _message(expect(message, dict, f"conversations[{i}]"), f"conversations[{i}]", notes)
        for i, message in enumerate(conversation[1:], 1)
    )
    yield Trajectory(expect_id(record), tools, messages, meta=rest(record, "id", "conversations"))


def _message(message: dict[str, Any], where: str, notes: Counter[str]) -> Message:
    role = ROLES[expect_choice(message.get("role"), ROLES, f"{where}.role")]
    content = member(message, "content", str, where)
    note_rest(message, notes, "role", "content")
    if role != "assistant":
        return Message(role, content)
    return Message.calling(_call(content, f"{where}.content", notes))


def _call(content: str, where: str, notes: Counter[str]) -> Call:
    """Parse the call in `name\n{arguments}`. Like the released code, ignore any further lines."""
    name, newline, text = content.partition("\n")
    if not name.strip() or not newline:
        raise FieldError(where, "a tool's name, a line break and its arguments as JSON", shown(content))
    arguments, end = parse_json_at(text, 0, where)
    behind = text[end:]
    if behind.partition("\n")[0].strip():
        raise FieldError(where, "nothing after the arguments", shown(behind))
    if behind.strip():
        notes["messages: text below a call's arguments not kept"] += 1
    return Call(name, expect(arguments, dict, where))


def raw_record(trajectory: Trajectory) -> dict[str, Any]:
    """Return the trajectory in the raw format, which has neither `learn` nor thoughts.

    Several calls of one message are written one after another, each with its answer.

    Raises:
        TltrainError: it has instructions or an assistant message without a call, which the format cannot represent.
    """
    if trajectory.instructions:
        raise TltrainError(
            f"trajectory {trajectory.id}: the paper's raw format has no place for instructions; {OTHERWISE}"
        )
    tools = [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in trajectory.tools
    ]
    conversation = [{"role": "system", "content": json.dumps(tools, ensure_ascii=False)}]
    names = {role: name for name, role in ROLES.items()}
    for message in sequential(trajectory.messages):
        content = message.text
        if message.role == "assistant":
            if (call := call_of(message)) is None:
                raise TltrainError(
                    f"trajectory {trajectory.id}: the paper's raw format has no words without a call; {OTHERWISE}"
                )
            content = f"{call.name}\n{json.dumps(dict(call.arguments), ensure_ascii=False)}"
        conversation.append({"role": names[message.role], "content": content})
    return {"id": trajectory.id, "conversations": conversation, **rest(trajectory.meta, "id", "conversations")}
