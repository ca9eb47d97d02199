"""Chat-completions conversations, the format of most public data sets: JSON lines or a JSON list.

    {"messages": [
       {"role": "system", "content": "..."},
       {"role": "user", "content": "..."},
       {"role": "assistant", "content": null, "tool_calls": [
          {"id": "1", "type": "function", "function": {"name": "...", "arguments": "{...}"}}]},
       {"role": "tool", "tool_call_id": "1", "content": "..."}],
     "tools": [{"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}]}

Also accepted: `arguments` as an object, `tools` as the text of a JSON list, content as a list of text parts, the older
`functions`, `function_call` and role `function`, and a field of a tool's message that states whether the call failed
(`tltrain.data.reading.outcome`), and a thought in `reasoning_content`, `reasoning` or `thinking`. A message's calls
stay together, followed by their answers in order, if each of them has one; otherwise each becomes a turn of its own.
System and developer messages become `instructions`.

As a benchmark (`parse_sample`), a record's golden calls are in its field `tool_calls` and its prompt is all of
`messages`; without that field they are the calls of the last assistant message that has any, and the prompt ends there.
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
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Fields in which an assistant message may carry its thought."""


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Without an id its number is the id; other fields become `meta`."""
    tools, messages, instructions = conversation(record, notes)
    identity = str(number) if record.get("id") is None else expect_id(record)
    yield Trajectory(identity, tools, messages, instructions, rest(record, "id", "messages", "tools", "functions"))


def parse_sample(record: Any, number: int, notes: Counter[str]) -> Iterator[Sample]:
    """Parse the one question of a record; it asks for all of its golden calls. Other fields become `meta`."""
    record = expect(record, dict, "record")
    messages = member(record, "messages", list)
    if record.get("tool_calls") is None:
        at = next((i for i in reversed(range(len(messages))) if _has_calls(messages[i])), None)
        if at is None:
            raise FieldError("tool_calls", "golden calls here or in an assistant message", "neither")
        golden = [call for _, call in _calls(messages[at], f"messages[{at}]")]
        if messages[at + 1 :]:
            notes["messages: those after the golden calls are not in the prompt"] += 1
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
    yield Sample(identity, tools, prompt, tuple(golden), instructions, meta, parallel=len(golden) > 1)


def _has_calls(entry: Any) -> bool:
    """Return whether this is an assistant message with calls."""
    if not isinstance(entry, dict) or entry.get("role") != "assistant":
        return False
    return bool(entry.get("tool_calls") or entry.get("function_call"))


def conversation(record: Any, notes: Counter[str]) -> tuple[tuple[Tool, ...], tuple[Message, ...], str]:
    """Parse the tools, messages and instructions of an object with `messages` and `tools`. Raises FieldError."""
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
        known = ("role", "content", "tool_calls", "function_call", "tool_call_id", "name")
        note_rest(
            entry,
            notes,
            *known,
            *(name for name in THOUGHTS if role == "assistant" and isinstance(entry.get(name), str)),
        )
    return tools, tuple(messages), "\n\n".join(instructions)


def _turns(
    entry: dict[str, Any], where: str, answers: Sequence[tuple[dict[str, Any], str]], notes: Counter[str]
) -> list[Message]:
    """An assistant message and its tools' answers, in the order of the calls."""
    calls = _calls(entry, where)
    content = _text(entry, where, required=not calls)
    thought = next((entry[name] for name in THOUGHTS if isinstance(entry.get(name), str) and entry[name]), "")
    if thought:
        notes["messages: thoughts are not in the TL format"] += 1
    if not calls:
        if answers:
            raise FieldError(answers[0][1], "no tool's answer to a message without calls", shown(answers[0][0]))
        return [Message("assistant", content, thought=thought)]
    if content:
        notes["messages: text beside a call is not in the TL format"] += 1
    matched = _match([call_id for call_id, _ in calls], answers, notes)
    answered = [answer for answer in matched if answer is not None]
    if len(answered) == len(calls):
        return [Message.calling(*(call for _, call in calls), text=content, thought=thought), *answered]
    messages = []
    for i, ((_, call), answer) in enumerate(zip(calls, matched, strict=True)):
        messages.append(Message.calling(call, text="" if i else content, thought="" if i else thought))
        if answer is not None:
            messages.append(answer)
    unanswered = sum(answer is None for answer in matched[:-1])
    if unanswered:
        notes["messages: calls without an answer before the next call"] += unanswered
    return messages


def _calls(entry: dict[str, Any], where: str) -> list[tuple[str | None, Call]]:
    """Return the calls of an assistant message with their ids."""
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
    """Match answers to calls: first by id, then in order those whose id matches no call."""
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
            notes["messages: answers whose `tool_call_id` matches no call, matched by order"] += 1
    return matched


def _text(entry: dict[str, Any], where: str, required: bool = True) -> str:
    """Return a message's text: a string or a list of text parts. It may be null or absent unless `required`."""
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
