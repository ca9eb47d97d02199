"""Chat-completions conversations, the shape most public sets are published in: JSON lines or a JSON list.

    {"messages": [
       {"role": "system", "content": "..."},
       {"role": "user", "content": "..."},
       {"role": "assistant", "content": null, "tool_calls": [
          {"id": "1", "type": "function", "function": {"name": "...", "arguments": "{...}"}}]},
       {"role": "tool", "tool_call_id": "1", "content": "..."}],
     "tools": [{"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}]}

Also read: `arguments` as an object, `tools` as the text of a JSON list, text content as a list of text parts, and the
older `functions`, `function_call` and role `function`, and in a tool's message whether the call failed, where a field
says so outright (`tltrain.data.reading.outcome`). The TL format has one call a turn: several calls in one message
become turns in their order, each followed by its own answer. System and developer messages become `instructions`.

As a benchmark (`parse_sample`) a record asks for the calls in its field `tool_calls`, after all of its `messages`, or,
without that field, for those of the last assistant message that has any, after what stands before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tltrain.data.reading import (
    expect,
    expect_choice,
    expect_id,
    expect_tools,
    member,
    note_rest,
    optional,
    outcome,
    parse_json,
    rest,
    shown,
)
from tltrain.errors import FieldError
from tltrain.trajectory import Call, Message, Sample, Tool, Trajectory

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
INSTRUCTIONS = ("system", "developer")
ANSWERS = ("tool", "function")


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """The one trajectory of a record: its id is its number if it has none, other fields are `meta`."""
    tools, messages, instructions = conversation(record, notes)
    identity = str(number) if record.get("id") is None else expect_id(record)
    yield Trajectory(identity, tools, messages, instructions, rest(record, "id", "messages", "tools", "functions"))


def parse_sample(record: Any, number: int, notes: Counter[str]) -> Iterator[Sample]:
    """The one question of a record; several golden calls are calls that are all asked for. Other fields are `meta`."""
    record = expect(record, dict, "record")
    messages = member(record, "messages", list)
    if record.get("tool_calls") is None:
        at = next((i for i in reversed(range(len(messages))) if _has_calls(messages[i])), None)
        if at is None:
            raise FieldError("tool_calls", "golden calls here or in an assistant message", "neither")
        golden = [call for _, call in _calls(messages[at], f"messages[{at}]")]
        if messages[at + 1 :]:
            notes["messages: what follows the golden calls is not shown"] += 1
        messages = messages[:at]
    else:
        golden = [call for _, call in _calls(record, "")]
    tools, prompt, instructions = conversation({**record, "messages": messages}, notes)
    if not golden:
        raise FieldError("tool_calls", "at least one golden call", "an empty list")
    if not prompt or prompt[-1].role == "assistant":
        raise FieldError("messages", "a user's or tool's message before the golden calls", "none")
    identity = str(number) if record.get("id") is None else expect_id(record)
    meta = rest(record, "id", "messages", "tools", "functions", "tool_calls")
    yield Sample(identity, tools, prompt, tuple(golden), instructions, meta)


def _has_calls(entry: Any) -> bool:
    """Whether this is an assistant message that calls something."""
    if not isinstance(entry, dict) or entry.get("role") != "assistant":
        return False
    return bool(entry.get("tool_calls") or entry.get("function_call"))


def conversation(record: Any, notes: Counter[str]) -> tuple[tuple[Tool, ...], tuple[Message, ...], str]:
    """Tools, messages and instructions of an object with `messages` and `tools`. Raises FieldError."""
    record = expect(record, dict, "record")
    key = "functions" if record.get("tools") is None and "functions" in record else "tools"
    if record.get(key) is None:
        raise FieldError("tools", "a list of tools", "no such field" if key not in record else "null")
    tools = expect_tools(record[key], key, notes)
    entries = [
        (expect(entry, dict, f"messages[{i}]"), f"messages[{i}]")
        for i, entry in enumerate(member(record, "messages", list))
    ]
    instructions: list[str] = []
    messages: list[Message] = []
    at = 0
    while at < len(entries):
        entry, where = entries[at]
        at += 1
        role = expect_choice(entry.get("role"), ROLES, f"{where}.role")
        if role in INSTRUCTIONS:
            if messages:
                notes[f"messages: a later `{role}` message moved to the instructions"] += 1
            instructions.append(_text(entry, where))
        elif role == "user":
            messages.append(Message("user", _text(entry, where)))
        elif role == "assistant":
            behind = at
            while at < len(entries) and entries[at][0].get("role") in ANSWERS:
                at += 1
            messages += _turns(entry, where, entries[behind:at], notes)
        else:
            raise FieldError(where, "an answer to a call of the assistant message before it", shown(entry))
        note_rest(entry, notes, "role", "content", "tool_calls", "function_call", "tool_call_id", "name")
    return tools, tuple(messages), "\n\n".join(instructions)


def _turns(
    entry: dict[str, Any], where: str, answers: Sequence[tuple[dict[str, Any], str]], notes: Counter[str]
) -> list[Message]:
    """An assistant message and its tools' answers: one turn a call, each followed by its answer."""
    calls = _calls(entry, where)
    content = _text(entry, where, required=not calls)
    if not calls:
        if answers:
            raise FieldError(answers[0][1], "no tool's answer where nothing was called", shown(answers[0][0]))
        return [Message("assistant", content)]
    if content:
        notes["messages: text beside a call is not in the TL format"] += 1
    matched = _match([call_id for call_id, _ in calls], answers, notes)
    messages = []
    for i, ((_, call), answer) in enumerate(zip(calls, matched, strict=True)):
        messages.append(Message.calling(call, text="" if i else content))
        if answer is not None:
            messages.append(answer)
    unanswered = sum(answer is None for answer in matched[:-1])
    if unanswered:
        notes["messages: calls without an answer before the next call"] += unanswered
    return messages


def _calls(entry: dict[str, Any], where: str) -> list[tuple[str | None, Call]]:
    """The calls of an assistant message with their ids."""
    place = f"{where}.tool_calls".lstrip(".")
    calls = [
        (_call_id(call, f"{place}[{i}]"), _call(call["function"], f"{place}[{i}].function"))
        for i, call in enumerate(optional(entry, "tool_calls", [], where))
    ]
    if entry.get("function_call") is not None:
        calls.append((None, _call(entry["function_call"], f"{where}.function_call")))
    return calls


def _call_id(call: Any, where: str) -> str | None:
    member(expect(call, dict, where), "function", dict, where)
    return optional(call, "id", "", where) or None


def _call(function: Any, where: str) -> Call:
    function = expect(function, dict, where)
    name = member(function, "name", str, where)
    if not name.strip():
        raise FieldError(f"{where}.name", "a tool's name", shown(name))
    where = f"{where}.arguments"
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = parse_json(arguments, where) if arguments.strip() else {}
    return Call(name, expect({} if arguments is None else arguments, dict, where))


def _match(
    ids: list[str | None], answers: Sequence[tuple[dict[str, Any], str]], notes: Counter[str]
) -> list[Message | None]:
    """The answer to each call: the one that names its id, then, for answers that name none of them, by order."""
    matched: list[Message | None] = [None] * len(ids)
    others = []
    for entry, where in answers:
        is_error, field = outcome(entry)
        note_rest(entry, notes, "role", "content", "tool_call_id", "name", *filter(None, [field]))
        answer = Message("tool", _text(entry, where, required=False), is_error=is_error)
        call_id = entry.get("tool_call_id")
        free = (i for i, known in enumerate(ids) if call_id and known == call_id and matched[i] is None)
        at = next(free, None)
        if at is None:
            others.append((answer, where, entry))
        else:
            matched[at] = answer
    for answer, where, entry in others:
        if None not in matched:
            raise FieldError(where, f"at most {len(ids)} answers to {len(ids)} calls", shown(entry))
        matched[matched.index(None)] = answer
        if entry.get("tool_call_id"):
            notes["messages: answers whose `tool_call_id` names no call, matched by order"] += 1
    return matched


def _text(entry: dict[str, Any], where: str, required: bool = True) -> str:
    """A message's text: a string or a list of text parts; null or absent only where it is not `required`."""
    content = entry.get("content")
    where = f"{where}.content"
    if content is None and not required:
        return ""
    if not isinstance(content, list):
        return expect(content, str, where)
    parts = [expect(part, dict, f"{where}[{i}]") for i, part in enumerate(content)]
    for i, part in enumerate(parts):
        expect_choice(part.get("type"), ["text"], f"{where}[{i}].type")
    return "".join(member(part, "text", str, f"{where}[{i}]") for i, part in enumerate(parts))
