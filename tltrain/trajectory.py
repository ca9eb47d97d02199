"""What everything else speaks of: tools, calls, messages, trajectories. Plain values, no torch, no I/O.

A trajectory is one conversation: a user asks, the assistant calls tools one at a time, each tool answers, and a last
call (usually `finish`) ends it. Formats and readers turn files into these objects; nothing above them looks at raw
JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Role = Literal["user", "assistant", "tool"]


class _Any:
    """The type of `ANY`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ANY"

    def __reduce__(self) -> str:  # stays the one object through copy and pickle
        return "ANY"


ANY: Final = _Any()
"""A golden argument value that accepts whatever the prediction says (RoTBench writes it as the string "None")."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """A golden argument value that accepts any of `values` (BFCL's possible answers), at any depth of an argument.

    `optional`: the argument, or the key of a dict, may be left out as well; with no `values` it must be.
    """

    values: tuple[Any, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool on offer: its name, what it does, and `parameters`, a JSON schema object (`properties`, `required`)."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def properties(self) -> Mapping[str, Any]:
        """Parameter name -> its JSON schema, in the order of the documentation."""
        return self.parameters.get("properties") or {}

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the parameters a call must give."""
        return tuple(self.parameters.get("required") or ())


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool; argument values are JSON-like (in a golden call also `ANY` and `OneOf`)."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def example(golden: Call) -> Call:
    """A call that `golden` accepts, such as a model would make it: of `OneOf` the first value, for `ANY` a word."""
    return Call(golden.name, _example(dict(golden.arguments)))


def _example(value: Any) -> Any:
    if value is ANY:
        return "any"
    if isinstance(value, OneOf):
        return _example(value.values[0])
    if isinstance(value, dict):
        stated = {key: inner for key, inner in value.items() if inner != OneOf((), optional=True)}
        return {key: _example(inner) for key, inner in stated.items()}
    return [_example(inner) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Message:
    """One message. An assistant message with a `call` is a turn that calls a tool; without one it is plain text.

    `content` of an assistant message that has a `call` is whatever the model said besides it (a thought); the TL format
    does not write it. `learn` is False on an assistant message that is history only: never a target of training.
    """

    role: Role
    content: str = ""
    call: Call | None = None
    learn: bool = True


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A conversation over a set of tools.

    `instructions` is system text other than the tools' documentation. `meta` carries what a source knows besides, such
    as `scenario` and `level` (RoTBench), or `errors` (toolworld: per assistant message None or the kind of its
    mistake).
    """

    id: str
    tools: tuple[Tool, ...]
    messages: tuple[Message, ...]
    instructions: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def query(self) -> str:
        """The first user message: what the conversation is about."""
        return next((m.content for m in self.messages if m.role == "user"), "")


@dataclass(frozen=True, slots=True)
class Sample:
    """One question of a benchmark: given `messages` (ending with a user or tool message), call one of `tools`.

    Any of `goldens` is right. `meta` holds what results are split by (`scenario`, `level`, `turn`, ...).
    """

    id: str
    tools: tuple[Tool, ...]
    messages: tuple[Message, ...]
    goldens: tuple[Call, ...]
    instructions: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def query(self) -> str:
        """The first user message."""
        return next((m.content for m in self.messages if m.role == "user"), "")


@dataclass(frozen=True, slots=True)
class Task:
    """What one conversation is to be about. `meta` is what results are split by, and what the environment needs."""

    id: str
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """The beginning of a conversation, or what its user says next: the tools on offer from here on, and messages."""

    tools: tuple[Tool, ...]
    messages: tuple[Message, ...]
    instructions: str = ""
