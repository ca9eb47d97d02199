"""Split logged conversations into those to train on and those to ask about.

A random split of a log easily leaks: one conversation may be logged several times as it grows, and two customers may
send the same first message. Conversations that share a question (the same tools and the same messages before a call)
therefore stay together, as do those with the same id and, if a field names the customer, those of one customer. Numbers
in the instructions do not matter: a clock there differs each time that a conversation is logged.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tltrain.errors import TltrainError, shorten, suggestion
from tltrain.trajectory import Message, Tool, Trajectory, actions

ABSENT = object()
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class LogSplit:
    """Conversations by side.

    Attributes:
        train, held_out: the conversations, in their order. groups: the group number of each held-out conversation;
            members of a group are not independent of one another.
    """

    train: list[Trajectory]
    held_out: list[Trajectory]
    groups: list[int]


def split(
    items: Sequence[Trajectory], share: float, seed: int, *, customer: str | None = None, time: str | None = None
) -> LogSplit:
    """Hold out about `share` of the conversations, whole groups at a time, at least one and not all.

    A group that is drawn and would take the share further from what is asked for, such as a large customer's, is not
    held out. By time, nothing later than a held-out group is left to train on, however large the group is.

    Args:
        customer: field of the records that names the customer; a dotted name reaches into objects.
        time: field with the time of a conversation; the latest groups are held out. None: drawn at random by `seed`.

    Raises:
        TltrainError: a conversation lacks the field, a time cannot be read, or all conversations are one group.
    """
    owners = [_value(item, customer, "stage.customer") for item in items] if customer else []
    times = [_seconds(item, time) for item in items] if time else []
    groups = grouped(items, owners)
    if len(groups) < 2:
        why = f"all have the same {customer}, or ask the same" if customer else "all ask the same"
        found = f"{len(items)} conversations, of which {why}" if len(items) > 1 else f"{len(items)} conversations"
        raise TltrainError(f"nothing can be held out: {found}; at least two different ones are needed")
    if time:
        ordered = sorted(groups, key=lambda group: max(times[at] for at in group), reverse=True)
    else:
        ordered = sorted(groups, key=lambda group: _digest(f"{seed}:{_text(items[group[0]])}"))
    held: dict[int, int] = {}
    wanted = max(round(share * len(items)), 1)
    for number, group in enumerate(ordered[:-1]):  # something is left to train on
        if len(held) >= wanted:
            break
        if time or len(held) + len(group) - wanted <= wanted - len(held):
            held |= dict.fromkeys(group, number)
    if not held:
        smallest: list[int] = min(groups, key=len)
        held = dict.fromkeys(smallest, 0)
    return LogSplit(
        [item for at, item in enumerate(items) if at not in held],
        [item for at, item in enumerate(items) if at in held],
        [held[at] for at in range(len(items)) if at in held],
    )


def grouped(items: Sequence[Trajectory], owners: Sequence[Hashable] = ()) -> list[list[int]]:
    """Return the positions of conversations that belong together, by owner, id or a shared question, in order."""
    parent = list(range(len(items)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    first: dict[Hashable, int] = {}
    for at, item in enumerate(items):
        keys: list[Hashable] = [("id", item.id), *(("question", key) for key in question_keys(item))]
        if owners:
            keys.append(("owner", owners[at]))
        for key in keys:
            parent[root(at)] = root(first.setdefault(key, at))
    groups: dict[int, list[int]] = {}
    for at in range(len(items)):
        groups.setdefault(root(at), []).append(at)
    return list(groups.values())


def question_keys(item: Trajectory) -> Iterator[str]:
    """Yield a digest of everything before each call: what a model is given when it is asked for that call."""
    instructions = _NUMBER.sub("0", item.instructions)
    tools = sorted(map(_tool, item.tools), key=lambda tool: str(tool[0]))
    beginning = hashlib.sha256(repr((instructions, tools)).encode("utf-8", "replace"))
    called = {action.at for action in actions(item.messages) if action.call is not None}
    for at, message in enumerate(item.messages):
        if at in called:
            yield beginning.hexdigest()
        beginning.update(repr(_said(message)).encode("utf-8", "replace"))


def opening_key(item: Trajectory) -> str | None:
    """Return a short digest of a conversation's first question, by which a trained model's folder records it.

    Conversations on different sides of a `split` have different ones. None: it has no call.
    """
    first = next(question_keys(item), None)
    return None if first is None else first[:16]


def _tool(tool: Tool) -> tuple[Any, ...]:
    return tool.name, tool.description, tool.parameters


def _said(message: Message) -> tuple[Any, ...]:
    """Return what a model reads of a message, without the ids of its calls."""
    return message.role, message.text, [(made.call.name, dict(made.call.arguments)) for made in message.calls]


def _text(item: Trajectory) -> str:
    return repr([_said(message) for message in item.messages])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _value(item: Trajectory, field: str, key: str) -> Hashable:
    """Return a field of a conversation's record. Raises TltrainError if it is missing or has several values."""
    value: Any = item.meta
    for name in field.split("."):
        value = value.get(name, ABSENT) if isinstance(value, Mapping) else ABSENT
    if value is ABSENT or value is None:
        hint = suggestion(field, item.meta)
        has = ", ".join(map(str, item.meta)) or "no fields besides the conversation"
        raise TltrainError(f"{key}={field}: conversation {shorten(item.id)} has no such field; it has {has}{hint}")
    if isinstance(value, Mapping | list):
        raise TltrainError(f"{key}={field}: expected a text or a number in conversation {shorten(item.id)}, found more")
    return value


def _seconds(item: Trajectory, field: str) -> float:
    """Return the time of a conversation in seconds: a number as it is, a text as ISO 8601, UTC without a zone."""
    value = _value(item, field, "stage.time")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        raise TltrainError(
            f"stage.time={field}: expected a number or a time such as 2026-05-31T08:00:00Z in conversation "
            f"{shorten(item.id)}, found {shorten(str(value))}"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
