r"""The released per-turn file (`mae_data.json`, TL-Training): one record for each turn to learn, all in text.

    {"id": "Turn 2: abc", "conversations": [
      {"role": "system", "content": "Function:\ndef search(query: string):\n ..."},
      {"role": "user", "content": "..."},
      {"role": "assistant", "content": "search(query=\"love\")"},
      {"role": "function", "content": "..."},
      {"role": "assistant", "content": "finish(answer=\"...\")"}]}

The last message is the target, and the number in the id counts the assistant's messages up to it. The reader joins the
records of one trajectory into one `Trajectory`, so that one forward pass serves all of its targets; its other assistant
messages get `learn=False`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from tltrain.config import OnError
from tltrain.data.reading import (
    ReadReport,
    expect,
    expect_choice,
    member,
    note_rest,
    read_file,
    shown,
)
from tltrain.errors import FieldError, TltrainError
from tltrain.formats.calls import CallSyntaxError, read_call, render_call
from tltrain.formats.stubs import read_system
from tltrain.formats.tl import message_text, system_text
from tltrain.trajectory import Message, Role, Tool, Trajectory, actions, sequential

ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "function": "tool"}

_ID = re.compile(r"Turn ([0-9]{1,9}): (.*)", re.DOTALL)


def turn_records(trajectory: Trajectory) -> list[dict[str, Any]]:
    """Return one record for each turn with `learn`, in order, exactly as the released script writes them.

    Each of several calls in one message becomes a turn of its own, followed by its answer.
    """
    names = {role: name for name, role in ROLES.items()}
    messages = sequential(trajectory.messages)
    conversation = [{"role": "system", "content": system_text(trajectory)}] + [
        {"role": names[message.role], "content": message_text(message)} for message in messages
    ]
    return [
        {"id": f"Turn {number}: {trajectory.id}", "conversations": conversation[: action.at + 2]}
        for number, action in enumerate(actions(messages), 1)
        if action.learn
    ]


def read(
    path: str | PathLike[str], on_error: OnError | str = OnError.stop, report: ReadReport | None = None
) -> Iterator[Trajectory]:
    """Yield the trajectories of a file of turns.

    Consecutive records belong to one trajectory if they have the same id, their numbers rise, and each conversation
    begins with all of the one before it; trajectories that merely share an id stay separate.

    Raises:
        TltrainError: the file or a record cannot be read (see `reading.read_file`).
    """
    last: _Turn | None = None
    learned: set[int] = set()
    for turn in read_file(path, _parse, on_error, report):
        if last is not None and not turn.continues(last):
            yield _merge(last, learned)
            learned = set()
        last = turn
        learned.add(turn.number)
    if last is not None:
        yield _merge(last, learned)


@dataclass(frozen=True)
class _Turn:
    """One record: the trajectory up to its turn, and the texts that it was read from."""

    number: int
    trajectory: Trajectory
    texts: list[tuple[str, str]]

    def continues(self, before: _Turn) -> bool:
        """Return whether this is a later turn of the same trajectory as `before`."""
        return (
            self.trajectory.id == before.trajectory.id
            and self.number > before.number
            and self.texts[: len(before.texts)] == before.texts
        )


def _merge(last: _Turn, learned: Collection[int]) -> Trajectory:
    """Return the last record's trajectory with `learn` set on the turns in `learned`."""
    messages, number = [], 0
    for message in last.trajectory.messages:
        if message.role == "assistant":
            number += 1
            message = message.with_learn(number in learned)
        messages.append(message)
    return replace(last.trajectory, messages=tuple(messages))


def _parse(record: Any, number: int, notes: Counter[str]) -> Iterator[_Turn]:
    record = expect(record, dict, "record")
    found = _ID.fullmatch(member(record, "id", str))
    if found is None:
        raise FieldError("id", "`Turn {n}: {id}`", shown(record["id"]))
    entries = member(record, "conversations", list)
    instructions, tools, messages = text_conversation(entries, ROLES, "conversations", notes)
    count = sum(message.role == "assistant" for message in messages)
    if not messages or messages[-1].role != "assistant":
        raise FieldError("conversations", "an assistant message at the end", shown(entries[-1]))
    if count != int(found[1]):
        raise FieldError("id", f"`Turn {count}: ...` for {count} assistant messages", shown(record["id"]))
    texts = [(entry["role"], entry["content"]) for entry in entries]
    if system_text(Trajectory("", tools, (), instructions)) != texts[0][1]:
        notes["system messages: tools rendered differently from the source"] += 1
    yield _Turn(count, Trajectory(found[2], tools, messages, instructions), texts)


def text_conversation(
    entries: Sequence[Any], roles: Mapping[str, Role], where: str, notes: Counter[str]
) -> tuple[str, tuple[Tool, ...], tuple[Message, ...]]:
    """Parse a conversation with tools as stubs and calls as text into instructions, tools and messages.

    Args:
        entries: `{"role", "content"}` objects; the first is the system message (`system` in any case).
        roles: the role for each name that the other entries may have.
        where: the name of the field that holds the entries, for errors.
    """
    entries = [expect(entry, dict, f"{where}[{i}]") for i, entry in enumerate(entries)]
    if not entries or str(entries[0].get("role")).lower() != "system":
        found = shown(entries[0].get("role")) if entries else "an empty list"
        raise FieldError(f"{where}[0].role", "system", found)
    try:
        instructions, tools = read_system(member(entries[0], "content", str, f"{where}[0]"))
    except FieldError:
        raise
    except TltrainError as error:
        raise FieldError(f"{where}[0].content", "tools as Python stubs", str(error)) from None
    names = {tool.name for tool in tools}
    messages = []
    for i, entry in enumerate(entries[1:], 1):
        role = roles[expect_choice(entry.get("role"), roles, f"{where}[{i}].role")]
        content = member(entry, "content", str, f"{where}[{i}]")
        note_rest(entry, notes, "role", "content")
        messages.append(_assistant(content, names, notes) if role == "assistant" else Message(role, content))
    return instructions, tools, tuple(messages)


def _assistant(text: str, names: Collection[str], notes: Counter[str]) -> Message:
    """Parse the assistant's call; text that is not a call of an offered tool (prose with a bracket, say) stays text."""
    try:
        call = read_call(text)
    except CallSyntaxError:
        call = None
    if call is None or (call.name not in names and render_call(call) != text):
        notes["messages: assistant text that is not a call, kept as text"] += 1
        return Message("assistant", text)
    if render_call(call) != text:
        notes["messages: calls rendered differently from the source"] += 1
    return Message.calling(call)
