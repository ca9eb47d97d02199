"""Chat-completions conversations, the format of most public data sets.

    {"messages": [
       {"role": "system", "content": "..."},
       {"role": "user", "content": "..."},
       {"role": "assistant", "content": null, "tool_calls": [
          {"id": "1", "type": "function", "function": {"name": "...", "arguments": "{...}"}}]},
       {"role": "tool", "tool_call_id": "1", "content": "..."}],
     "tools": [{"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}]}

Also accepted: `messages` and `tools` as the text of a JSON list, tools in the system message's own `tools` (GLM-4),
other fields for their parameters (`tltrain.data.schemas`), `arguments` as an object, calls without the wrapper
`function`, content as a list of text parts, a tool's content as an object, the older `functions`, `function_call` and
role `function`, a field of a tool's message that states whether the call failed (`tltrain.data.reading.outcome`), a
thought in `reasoning_content`, `reasoning` or `thinking`, calls and thoughts in the text (`tltrain.data.text_calls`),
and a field that keeps a message out of the loss (`tltrain.data.entries.LEARN`). How answers find their calls and
where system messages go: `tltrain.data.conversations.assemble`.

As a benchmark (`parse_sample`), a record's golden calls are in its field `tool_calls` and its prompt is all of
`messages`; an empty list means that no call is right. Without that field the golden calls are those of the last
assistant message that has any, and the prompt ends before it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeGuard

from tltrain.data.arguments import checked, read_named_call, read_value
from tltrain.data.conversations import assemble, check_tools, note_unlearned, record_id
from tltrain.data.entries import LEARN, MASK, Entry, Made, is_learned, marked
from tltrain.data.pairing import calls_within
from tltrain.data.reading import (
    expect,
    expect_choice,
    member,
    note_rest,
    optional,
    outcome,
    parse_json,
    rest,
    shown,
)
from tltrain.data.schemas import offered_tools
from tltrain.data.text_calls import split_tools
from tltrain.errors import FieldError
from tltrain.formats.native import THOUGHTS
from tltrain.trajectory import Message, Sample, Tool, Trajectory

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_CALLS = ("tool_call", "function_call")
"""Roles of messages whose content is a call, or a list of calls, as ms-swift writes them."""
_OTHER_ROLES = {
    **dict.fromkeys(("human",), "user"),
    **dict.fromkeys(("ai", "gpt", "model", "bot", "chatbot"), "assistant"),
    **dict.fromkeys(("ipython", "observation", "environment", "tool_response"), "tool"),
}
"""Other names for these roles."""
INSTRUCTIONS = ("system", "developer")
ANSWERS = ("tool", "function")
OUTPUTS = ("output", "result", "results", "response", "observation", "text", "value", "data", "error")
"""Fields that may have the text of a tool's message without `content`; `error` means that the call failed."""
BESIDE = (
    "tool_calls",
    "answer",
    "answers",
    "response",
    "completion",
    "output",
    "target",
    "chosen",
    "expected_output",
    "golden",
)
"""Fields that may contain the answer if a record's messages are only the prompt."""
TEXT_PARTS = ("text", "input_text", "output_text")
_KNOWN = ("role", "content", "tool_calls", "function_call", "tool_call_id", "name")


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    name = _field(record)
    messages = record.get(name)
    if isinstance(messages, str) and messages.lstrip().startswith("["):
        return f"`{name}` is the text of a list"
    return f"`{name}` have a `role`" if _have_roles(messages) else ""


def _have_roles(messages: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(messages, list) and bool(messages) and all(isinstance(m, dict) and "role" in m for m in messages)


def _field(record: dict[str, Any]) -> str:
    """Return the field of a record's messages: `messages`, or ShareGPT's name if its messages have role and content.

    The paper's files have such messages too, with tools in the text of the first one.
    """
    for name in ("conversations", "conversation"):
        messages: Any = record.get(name)
        if record.get("messages") is None and _have_roles(messages) and all("content" in m for m in messages):
            text = str(messages[0]["content"])
            return "messages" if text.startswith("[") or "Function:\ndef " in text else name
    return "messages"


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Without an id its number is the id; other fields become `meta`."""
    tools, messages, instructions = conversation(record, notes)
    meta = rest(record, "id", _field(record), "tools", "functions", MASK)
    note_unlearned(messages, notes)
    if not any(message.role == "assistant" for message in messages) and (named := [k for k in BESIDE if meta.get(k)]):
        raise FieldError(
            _field(record), "the assistant's answer as the last message", f"it in `{named[0]}` beside them"
        )
    yield Trajectory(record_id(record, number), tools, messages, instructions, meta)


def parse_sample(record: Any, number: int, notes: Counter[str]) -> Iterator[Sample]:
    """Parse the one question of a record; it asks for all of its golden calls. Other fields become `meta`."""
    record = expect(record, dict, "record")
    messages = _messages(record)
    if record.get("tool_calls") is None:
        at = next((i for i in reversed(range(len(messages))) if _has_calls(messages[i])), None)
        if at is None:
            raise FieldError(
                "tool_calls", "golden calls here or in an assistant message, or [] if no call is right", "neither"
            )
        made = _calls(messages[at], f"messages[{at}]", notes)
        if messages[at + 1 :]:
            notes["messages: those after the golden calls are not in the prompt"] += 1
        messages = messages[:at]
    else:
        made = _calls(record, "", notes)
    tools, prompt, instructions = conversation({**record, "messages": messages}, notes)
    if not prompt or prompt[-1].role == "assistant":
        raise FieldError("messages", "a user's or tool's message before the golden calls", "none")
    offered = {tool.name: tool for tool in tools}
    asked = [call for each in made for call in calls_within(each, offered, "tool_calls", notes)]
    golden = tuple(checked(each.call, offered, notes) for each in asked)
    meta = rest(record, "id", "messages", "tools", "functions", "tool_calls")
    identity = record_id(record, number)
    yield Sample(identity, tools, prompt, golden, instructions, meta, parallel=len(golden) > 1, abstain=not golden)


def _has_calls(entry: Any) -> bool:
    """Return whether this is an assistant message with calls."""
    if not isinstance(entry, dict) or entry.get("role") != "assistant":
        return False
    return bool(entry.get("tool_calls") or entry.get("function_call"))


def conversation(record: Any, notes: Counter[str]) -> tuple[tuple[Tool, ...], tuple[Message, ...], str]:
    """Parse the tools, messages and instructions of an object with `messages` and `tools`. Raises FieldError."""
    if isinstance(record, list):
        raise FieldError("record", 'an object {"messages": [...], "tools": [...]}', "a list, of messages without tools")
    record = expect(record, dict, "record")
    raw, name = _messages(record), _field(record)
    entries = [entry_of(expect(each, dict, f"{name}[{i}]"), f"{name}[{i}]", notes) for i, each in enumerate(raw)]
    entries = marked(record, entries, len(raw))
    tools = _tools(record, raw, notes)
    if tools is None:
        entries, tools = tools_in_text(entries, notes)
    messages, instructions = assemble(entries, tools or (), notes)
    key = next((key for key in ("tools", "functions") if key in record), None)
    check_tools(tools, messages, notes, "no such field" if key is None else shown(record[key]))
    return tools or (), messages, instructions


def tools_in_text(entries: list[Entry], notes: Counter[str]) -> tuple[list[Entry], tuple[Tool, ...] | None]:
    """Return the messages without the tools in the text of a system message, and those tools; None if it has none."""
    for i, entry in enumerate(entries):
        if entry.role == "system":
            text, found = split_tools(entry.text, entry.where, notes)
            if found is not None:
                tools = offered_tools(found, f"{entry.where}.<tools>", notes)
                kept = [replace(entry, text=text)] if text else []
                return [*entries[:i], *kept, *entries[i + 1 :]], tools
    return entries, None


def _messages(record: dict[str, Any]) -> list[Any]:
    name = _field(record)
    value = record.get(name)
    if isinstance(value, str) and value.lstrip().startswith("["):
        return expect(parse_json(value, name), list, name)
    return member(record, name, list)


def _tools(record: dict[str, Any], messages: list[Any], notes: Counter[str]) -> tuple[Tool, ...] | None:
    """Return the tools of a record, or of its system message; None if neither has any."""
    for key in ("tools", "functions"):
        if record.get(key) not in (None, ""):
            return offered_tools(record[key], key, notes)
    for i, message in enumerate(messages):
        if message.get("role") in INSTRUCTIONS and message.get("tools"):
            return offered_tools(message["tools"], f"messages[{i}].tools", notes)
    return None


def entry_of(entry: dict[str, Any], where: str, notes: Counter[str]) -> Entry:
    """Parse one message. Raises FieldError."""
    said = entry.get("role")
    if isinstance(said, str) and said in _CALLS:
        value = entry.get("content")
        value = read_value(value, f"{where}.content", notes) if isinstance(value, str) else value
        held = value if isinstance(value, list) else [value]
        made = tuple(_made(call, f"{where}.content", notes) for call in held)
        note_rest(entry, notes, *_KNOWN, *LEARN)
        return Entry("assistant", where, "", entry, made, learn=is_learned(entry, where), parallel=True)
    role = expect_choice(_OTHER_ROLES.get(said, said) if isinstance(said, str) else said, ROLES, f"{where}.role")
    known = [*_KNOWN, *(["tools"] if role in INSTRUCTIONS else [])]
    if role in ANSWERS:
        is_error, stated = outcome(entry)
        text, field = _answer(entry, where, notes)
        note_rest(entry, notes, *known, *filter(None, [stated, field]))
        is_error = True if field == "error" else is_error
        answers, name = _id_or_empty(entry, "tool_call_id"), _text_or_empty(entry, "name")
        return Entry("tool", where, text, entry, answers=answers, name=name, is_error=is_error)
    if role != "assistant":
        note_rest(entry, notes, *known)
        text = text_of(entry, where)
        if role == "user" and not text.strip():
            notes["messages: of the user without words"] += 1
        return Entry("system" if role in INSTRUCTIONS else "user", where, text, entry)
    thoughts = [name for name in THOUGHTS if isinstance(entry.get(name), str)]
    calls = _calls(entry, where, notes)
    refusal = entry.get("refusal")
    if entry.get("content") is None and isinstance(refusal, str) and refusal:
        entry = {key: value for key, value in entry.items() if key != "refusal"} | {"content": refusal}
    note_rest(entry, notes, *known, *thoughts, *LEARN)
    return Entry(
        "assistant",
        where,
        text_of(entry, where, required=not calls),
        entry,
        tuple(calls),
        thought=next((entry[name] for name in thoughts if entry[name]), ""),
        learn=is_learned(entry, where),
    )


def _text_or_empty(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def _id_or_empty(entry: dict[str, Any], key: str) -> str:
    """Return an id as text: a table's column may have turned it into a number on only one side of a pair."""
    value = entry.get(key)
    return str(value) if isinstance(value, int) else _text_or_empty(entry, key)


def _calls(entry: dict[str, Any], where: str, notes: Counter[str]) -> list[Made]:
    """Return the calls of an assistant message with their ids."""
    place = f"{where}.tool_calls".lstrip(".")
    stated = entry.get("tool_calls")
    if isinstance(stated, str):
        stated = read_value(stated, place, notes) if stated.strip() else []
    stated = [] if stated is None else expect(stated, list, place)
    calls = [_made(call, f"{place}[{i}]", notes) for i, call in enumerate(stated)]
    if entry.get("function_call") is not None:
        calls.append(Made(read_named_call(entry["function_call"], f"{where}.function_call", notes)))
    return calls


def _made(call: Any, where: str, notes: Counter[str]) -> Made:
    call = expect(call, dict, where)
    call_id = _id_or_empty(call, "id") or optional(call, "id", "", where)
    if "function" not in call and "name" in call:
        return Made(read_named_call(call, where, notes), call_id)
    return Made(read_named_call(member(call, "function", dict, where), f"{where}.function", notes), call_id)


def _answer(entry: dict[str, Any], where: str, notes: Counter[str]) -> tuple[str, str]:
    """Return a tool's text and its field; objects, numbers and lists other than of text parts become JSON."""
    field = "content"
    if entry.get(field) in (None, ""):
        field = next((key for key in OUTPUTS if key in entry and not _is_nothing(entry[key])), field)
        if field != "content":
            notes[f"messages: a tool's answer read from `{field}`, as it has no content"] += 1
        elif entry.get(field) is None:
            notes["messages: a tool's answer without content, read as an empty text"] += 1
    content = entry.get(field)
    parts = isinstance(content, list) and all(isinstance(part, dict) and "type" in part for part in content)
    if isinstance(content, dict | int | float) or (isinstance(content, list) and not (content and parts)):
        notes["messages: a tool's answer that is an object, written as JSON"] += 1
        return json.dumps(content, ensure_ascii=False), field
    return text_of({"content": content}, where, required=False), field


def _is_nothing(value: Any) -> bool:
    return value is None or value == "" or isinstance(value, bool)


def text_of(entry: dict[str, Any], where: str, required: bool = True) -> str:
    """Return a message's text: a string or a list of text parts. It may be null or absent unless `required`."""
    content = entry.get("content")
    where = f"{where}.content"
    if content is None and not required:
        return ""
    if not isinstance(content, list):
        return expect(content, str, where)
    parts = [expect(part, dict, f"{where}[{i}]") for i, part in enumerate(content)]
    for i, part in enumerate(parts):
        if part.get("type") not in TEXT_PARTS:
            expect_choice(part.get("type"), ["text"], f"{where}[{i}].type")
    return "".join(member(part, "text", str, f"{where}[{i}]") for i, part in enumerate(parts))
