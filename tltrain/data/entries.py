"""Messages as the conversation formats pass them to `tltrain.data.conversations`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from tltrain.data.reading import shown
from tltrain.errors import FieldError
from tltrain.trajectory import Call

LEARN = ("weight", "loss_weight", "loss", "train", "training", "trainable", "learn", "loss_mask")
"""Fields by which trainers leave an assistant message out of the loss: OpenAI and LLaMA-Factory (`weight`,
`loss_weight`), ms-swift (`loss`), axolotl (`train`, `training`), and others. On a record, such a field applies to all
of its messages."""
MASK = "message_loss_mask"
"""A record's field with one mark per message: 0 or false leaves the message out of the loss."""


class Made(NamedTuple):
    """A call as written in a message. `id` is empty if it has none."""

    call: Call
    id: str = ""


@dataclass(frozen=True)
class Entry:
    """A message as its format gives it.

    Attributes:
        role: who speaks; a developer message counts as `system`.
        where: its field in the record, for errors.
        raw: the content of that field, for errors.
        learn: False if the source excludes it from training.
        answers: for a tool's message, the id of the call that it answers; `name` is the tool's name.
        parallel: for an assistant's message with calls, whether they belong to the message right before it.
    """

    role: Literal["system", "user", "assistant", "tool"]
    where: str
    text: str = ""
    raw: Any = None
    calls: tuple[Made, ...] = ()
    thought: str = ""
    learn: bool = True
    answers: str = ""
    name: str = ""
    is_error: bool | None = None
    parallel: bool = False


def is_learned(message: Mapping[str, Any], where: str) -> bool:
    """Return whether a message's own fields (`LEARN`) let it be a training target. Raises FieldError."""
    learned = True
    for key in LEARN:
        value = message.get(key)
        if isinstance(value, str) and value.strip().lower() in ("true", "false", "0", "1"):
            value = value.strip().lower() in ("true", "1")
        if value is None:
            continue
        if not isinstance(value, int | float):
            raise FieldError(f"{where}.{key}", "true or false, or a weight", shown(value))
        learned = learned and bool(value)
    return learned


def marked(record: Mapping[str, Any], entries: Sequence[Entry], count: int | None = None) -> list[Entry]:
    """Return the entries with `learn` cleared on those that the record's `LEARN` and `MASK` leave out of the loss.

    Such a field of a record may mean something else to its source, so only false, 0 and their texts count there.

    Args:
        count: the record's number of messages if each is one of `entries`; None if the entries are not its messages.

    Raises:
        FieldError: `MASK` does not have as many marks as the record has messages.
    """
    whole = not any(_is_no(record.get(key)) for key in LEARN)
    marks = record.get(MASK)
    if count is None or not isinstance(marks, list):
        return [entry if whole else replace(entry, learn=False) for entry in entries]
    if len(marks) != count:
        raise FieldError(MASK, f"{count} marks, one for each message", f"{len(marks)}")
    return [
        replace(entry, learn=entry.learn and whole and not _is_no(mark))
        for entry, mark in zip(entries, marks, strict=True)
    ]


def _is_no(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("false", "0")
    return isinstance(value, int | float) and not value
