"""Conversations whose tools ran: `Transcript`, a line of `transcripts.jsonl`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from tltrain.data.reading import expect, member, optional
from tltrain.errors import FieldError
from tltrain.evaluation.records import member_or_none, read_some
from tltrain.trajectory import Tool

T = TypeVar("T")

TRANSCRIPTS = "transcripts.jsonl"


@dataclass(frozen=True, slots=True)
class TranscriptMessage:
    """A message of the user, the model (`assistant`) or a tool.

    Attributes:
        calls: the model's calls, as JSON; in the file a single call is `call`, as in versions without several calls.
        thought: the model's thought before its words and calls.
    """

    role: str
    content: str = ""
    calls: Sequence[Mapping[str, Any]] = ()
    thought: str = ""

    @classmethod
    def from_json(cls, record: Any) -> TranscriptMessage:
        """Read a message. Raises FieldError."""
        record = expect(record, dict, "message")
        call = member_or_none(record, "call", dict)
        several = optional(record, "calls", [])
        calls = (call,) if call else tuple(expect(each, dict, f"calls[{i}]") for i, each in enumerate(several))
        return cls(member(record, "role", str), member(record, "content", str), calls, optional(record, "thought", ""))

    def to_json(self) -> dict[str, Any]:
        """Return the message as plain values."""
        calls = {"call": self.calls[0]} if len(self.calls) == 1 else {"calls": list(self.calls)} if self.calls else {}
        return {
            "role": self.role,
            "content": self.content,
            **calls,
            **({"thought": self.thought} if self.thought else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptCall:
    """One judged call of a conversation; the fields are in the order of the file.

    Attributes:
        message: index of its message, which may make several calls, in the conversation; None in older files.
        turn: number of the model's answer, from 1.
        text: the model's text.
        call: the call read from the text, as JSON.
        de: whether it contradicts the documentation.
        ce: whether the tool answered with an error.
        kind: its `Outcome` by the documentation alone.
        reason: the reason for `kind`, in words.
        ran: whether a tool was called.
        error: the kind of error with which the tool answered.
    """

    message: int | None = None
    turn: int = 0
    text: str = ""
    call: Mapping[str, Any] | None = None
    de: bool
    ce: bool
    kind: str = ""
    reason: str = ""
    ran: bool = False
    error: str | None = None

    @classmethod
    def from_json(cls, record: Any) -> TranscriptCall:
        """Read a call. Raises FieldError."""
        record = expect(record, dict, "call")
        return cls(
            message=member_or_none(record, "message", int),
            turn=optional(record, "turn", 0),
            text=optional(record, "text", ""),
            call=member_or_none(record, "call", dict),
            de=member(record, "de", bool),
            ce=member(record, "ce", bool),
            kind=optional(record, "kind", ""),
            reason=optional(record, "reason", ""),
            ran=optional(record, "ran", False),
            error=member_or_none(record, "error", str),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the call as plain values."""
        return {column.name: getattr(self, column.name) for column in fields(self)}


@dataclass(frozen=True, slots=True)
class Transcript:
    """A whole conversation whose tools ran: a line of `transcripts.jsonl`.

    Attributes:
        meta: what the benchmark says about the task.
        instructions: what the model was told besides the tools.
        ended: `finish`, `turn limit`, `too long` or `environment error`.
        answer: the text that `finish` was called with; None if it was not called.
        valid: whether `answer` counts as a valid answer (VA).
        outcome: the verdict of the environment's checker; it has `success` if the checker can tell.
    """

    id: str
    messages: Sequence[TranscriptMessage]
    calls: Sequence[TranscriptCall]
    ended: str
    answer: str | None
    valid: bool
    outcome: Mapping[str, Any]
    meta: Mapping[str, Any] = field(default_factory=dict)
    instructions: str = ""
    tools: Sequence[Tool] = ()

    @classmethod
    def from_json(cls, record: Any) -> Transcript:
        """Read a line. Raises FieldError."""
        record = expect(record, dict, "line")
        return cls(
            id=member(record, "id", str),
            messages=_each(record, "messages", TranscriptMessage.from_json),
            calls=_each(record, "calls", TranscriptCall.from_json),
            ended=member(record, "ended", str),
            answer=member_or_none(record, "answer", str),
            valid=member(record, "valid", bool),
            outcome=member(record, "outcome", dict),
            meta=optional(record, "meta", {}),
            instructions=optional(record, "instructions", ""),
            tools=_each(record, "tools", _tool) if "tools" in record else (),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the line as plain values."""
        return {
            "id": self.id,
            "meta": dict(self.meta),
            "instructions": self.instructions,
            "tools": [
                {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
                for tool in self.tools
            ],
            "messages": [message.to_json() for message in self.messages],
            "calls": [call.to_json() for call in self.calls],
            "ended": self.ended,
            "answer": self.answer,
            "valid": self.valid,
            "outcome": dict(self.outcome),
        }

    @property
    def query(self) -> str:
        """The user's first message."""
        return next((message.content for message in self.messages if message.role == "user"), "")

    @property
    def success(self) -> bool | None:
        """The verdict of the environment's checker; None if it cannot tell."""
        success = self.outcome.get("success")
        return success if isinstance(success, bool) else None


def read_transcripts(file: Path) -> list[Transcript]:
    """Return the conversations of a file; raise TltrainError if there is none."""
    return read_some(file, Transcript.from_json, "conversations")


def _each(record: Mapping[str, Any], key: str, parse: Callable[[Any], T]) -> tuple[T, ...]:
    """Return the parsed items of a list; a FieldError names the item."""
    items = []
    for position, item in enumerate(member(record, key, list)):
        try:
            items.append(parse(item))
        except FieldError as error:
            raise FieldError(f"{key}[{position}].{error.field}", error.expected, error.found) from None
    return tuple(items)


def _tool(record: Any) -> Tool:
    record = expect(record, dict, "tool")
    return Tool(member(record, "name", str), optional(record, "description", ""), optional(record, "parameters", {}))
