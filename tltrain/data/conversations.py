"""Turn the messages of any conversation format into a trajectory: the part that all such formats share.

A format (`tltrain.data.openai`, `sharegpt`, ...) gives the role and the content of each message (`Entry`). This module
pairs tools' answers with calls, reads calls and thoughts out of text, places later system messages, and compares calls
with the tools on offer. Everything that it changes or leaves out is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tltrain.data.arguments import checked
from tltrain.data.entries import Entry, Made, marked
from tltrain.data.pairing import in_order, match, unwrapped
from tltrain.data.reading import expect_id, rest, shown
from tltrain.data.text_calls import LOOKS_LIKE_CALL, responses, split_calls, split_thought
from tltrain.errors import FieldError
from tltrain.trajectory import Message, Tool, ToolCall, Trajectory


def record_id(record: Mapping[str, Any], number: int) -> str:
    """Return a record's id, or its number if it has none."""
    return str(number) if record.get("id") is None else expect_id(record)


def trajectory(
    record: Mapping[str, Any],
    number: int,
    tools: Sequence[Tool] | None,
    entries: Iterable[Entry],
    notes: Counter[str],
    known: Sequence[str],
    instructions: str = "",
) -> Trajectory:
    """Return the trajectory of a record. Without an id its number is the id; fields that are not `known` become `meta`.

    Args:
        tools: None if the record names none, which is an error if its messages contain calls.
        instructions: those given outside the messages.
    """
    messages, own = assemble(marked(record, list(entries)), tools or (), notes)
    check_tools(tools, messages, notes)
    note_unlearned(messages, notes)
    said = "\n\n".join(filter(None, [instructions, own]))
    return Trajectory(record_id(record, number), tuple(tools or ()), messages, said, rest(record, "id", *known))


def check_tools(
    tools: Sequence[Tool] | None, messages: Sequence[Message], notes: Counter[str], found: str = "none"
) -> None:
    """Raise a FieldError if messages have calls but their record names no tools; count a chat without calls."""
    if tools is not None:
        return
    if any(message.calls for message in messages):
        raise FieldError("tools", "a list of tools, as the conversation calls some", found)
    notes["records without tools and calls"] += 1


def note_unlearned(messages: Sequence[Message], notes: Counter[str]) -> None:
    """Count a conversation in which the assistant neither says nor calls anything."""
    if not any(message.role == "assistant" for message in messages):
        notes["records without a message of the assistant, with nothing to learn"] += 1


@dataclass
class _Assembly:
    """A conversation that is built entry by entry."""

    tools: Mapping[str, Tool]
    notes: Counter[str]
    messages: list[Message] = field(default_factory=list)


def assemble(entries: Iterable[Entry], tools: Sequence[Tool], notes: Counter[str]) -> tuple[tuple[Message, ...], str]:
    """Return a conversation's messages and its instructions, which are the system messages at its beginning.

    - A system message after the first message of another role becomes a user message in the same place.
    - The answers right after an assistant's message belong to its calls: by id, then by the tool's name, then by their
      order. Several calls stay together if all of them are answered or none is; else each becomes its own message.
    - An assistant message without text and calls is left out.

    Raises:
        FieldError: an answer has no call, or may belong to several calls.
    """
    state = _Assembly({tool.name: tool for tool in tools}, notes)
    spoken = in_order(unwrapped(_read_text(entries, notes), state.tools, notes))
    instructions = []
    at = 0
    while at < len(spoken) and spoken[at].role == "system":
        instructions.append(spoken[at].text)
        at += 1
    while at < len(spoken):
        entry = spoken[at]
        at += 1
        if entry.role == "system":
            notes["messages: a later system message kept in its place, as a message of the user"] += 1
        if entry.role in ("system", "user"):
            state.messages.append(Message("user", entry.text))
        elif entry.role == "tool":
            raise FieldError(entry.where, "an answer to a call of the assistant message before it", shown(entry.raw))
        else:
            end = at
            while end < len(spoken) and spoken[end].role == "tool":
                end += 1
            _say(state, entry, spoken[at:end])
            at = end
    return tuple(state.messages), "\n\n".join(instructions)


def _read_text(entries: Iterable[Entry], notes: Counter[str]) -> Iterator[Entry]:
    """Yield the entries with the calls, thoughts and answers read out of their text; leave out empty ones."""
    called = False
    for entry in entries:
        if entry.role == "assistant":
            entry = _read_assistant(entry, notes)
            called = bool(entry.calls)
            if not entry.calls and not entry.text.strip():
                notes["messages: of the assistant without words and calls, left out"] += 1
                continue
        elif entry.role in ("user", "tool") and called and (found := responses(entry.text)):
            if entry.role == "user":
                notes["messages: tools' answers read from the text of a user's message"] += 1
            for each in found:
                yield replace(
                    entry,
                    role="tool",
                    text=each.text,
                    answers=each.call_id or (entry.answers if len(found) == 1 else ""),
                    name=each.name or (entry.name if len(found) == 1 else ""),
                )
            continue
        elif entry.role == "user":
            called = False
        yield entry


def _read_assistant(entry: Entry, notes: Counter[str]) -> Entry:
    thought, text = split_thought(entry.text, notes)
    if entry.thought.strip() and thought and thought != entry.thought.strip():
        notes["messages: a thought in the text beside one in its own field, left out"] += 1
    words, calls = split_calls(text, f"{entry.where}.content", notes)
    if calls:
        if entry.calls:
            notes["messages: calls in the text beside calls in their own field, left out"] += 1
        else:
            notes["messages: calls read from the text"] += 1
        entry = replace(entry, calls=entry.calls or tuple(map(Made, calls)))
    elif LOOKS_LIKE_CALL.search(words):
        notes["messages: text that looks like a call but cannot be read as one, kept as text"] += 1
    return replace(entry, text=words, thought=entry.thought or thought)


def _say(state: _Assembly, entry: Entry, answers: Sequence[Entry]) -> None:
    """Add an assistant's message and the answers that follow it."""
    notes, learn = state.notes, entry.learn
    if entry.thought:
        notes["messages: thoughts are not in the TL format"] += 1
    if not entry.calls:
        if answers:
            raise FieldError(answers[0].where, "no tool's answer to a message without calls", shown(answers[0].raw))
        state.messages.append(Message("assistant", entry.text, thought=entry.thought, learn=learn))
        return
    if entry.text:
        notes["messages: text beside a call is not in the TL format"] += 1
    calls = [Made(checked(made.call, state.tools, notes), made.id) for made in entry.calls]
    matched = match(calls, answers, state.tools, notes)
    said = [None if each is None else Message("tool", each.text, is_error=each.is_error) for each in matched]
    answered = [answer for answer in said if answer is not None]
    made = tuple(ToolCall(call.call, learn) for call in calls)
    if len(answered) in (0, len(calls)):
        state.messages += [Message("assistant", entry.text, made, entry.thought, learn), *answered]
        return
    for i, (each, answer) in enumerate(zip(made, said, strict=True)):
        text, thought = ("", "") if i else (entry.text, entry.thought)
        state.messages.append(Message("assistant", text, (each,), thought, learn))
        if answer is not None:
            state.messages.append(answer)
    notes["messages: calls without an answer beside calls with one"] += len(calls) - len(answered)
