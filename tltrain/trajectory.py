"""What everything else speaks of: tools, calls, messages, trajectories. Plain values, no torch, no I/O.

A trajectory is one conversation: a user asks, the assistant calls tools, each tool answers, and a last call (usually
`finish`) ends it. Formats and readers turn files into these objects; nothing above them looks at raw JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Final, Literal, NamedTuple

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
    """One call of a tool; argument values are JSON-like (in a golden call also `ANY` and `OneOf`).

    `positional`: how many values its text gave without a parameter's name. They are not kept, and calls that differ
    in their number alone are equal.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    positional: int = field(default=0, compare=False)


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
class ToolCall:
    """A call that an assistant message makes.

    `Call` itself has neither `learn` nor `id`: predicted and golden calls are compared by name and arguments alone.

    Attributes:
        call: the tool and its arguments.
        learn: False for a call that is history only: never a target of training.
        id: what the message with its answer names in `Message.answers`; empty where the order of the answers tells.
    """

    call: Call
    learn: bool = True
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: who speaks.
        text: what is said to the others: the user's words, a tool's answer, what the assistant says to the user.
        calls: the tools that an assistant message calls, in their order; none in a message of plain text.
        thought: what the assistant thought before it spoke or called.
        learn: False where `text` and `thought` of an assistant message are history only: never a target of training.
            Each call has a flag of its own.
        answers: in a tool's message the `ToolCall.id` that it answers; empty where the order of the answers tells.
        is_error: in a tool's message whether the call failed, where the source says so outright (MCP `isError`,
            Anthropic `is_error`, an exit code); None where it does not, and the text alone can tell.
    """

    role: Role
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    thought: str = ""
    learn: bool = True
    answers: str = ""
    is_error: bool | None = None

    @classmethod
    def calling(cls, *calls: Call, text: str = "", thought: str = "", learn: bool = True) -> Message:
        """An assistant message that makes these calls, to be learned as a whole or not at all."""
        return cls("assistant", text, tuple(ToolCall(call, learn) for call in calls), thought, learn)

    def with_learn(self, learn: bool) -> Message:
        """The same message with `learn` on all of it, its calls included."""
        return replace(self, learn=learn, calls=tuple(replace(call, learn=learn) for call in self.calls))


class Action(NamedTuple):
    """What the assistant did at one point: it made a call, or said something without one.

    Attributes:
        at: position of its message.
        call: the call; None for a message of plain text.
        learn: whether it may be a target of training.
        answer: position of the tool's message that answers it; None where there is none.
    """

    at: int
    call: Call | None
    learn: bool
    answer: int | None


def actions(messages: Sequence[Message]) -> list[Action]:
    """Everything the assistant did, in order: an action for each call, one for each message without a call."""
    found = []
    for at, message in enumerate(messages):
        if message.role != "assistant":
            continue
        answers = _answers(messages, at)
        if message.calls:
            found += [
                Action(at, made.call, made.learn, answer) for made, answer in zip(message.calls, answers, strict=True)
            ]
        else:
            found.append(Action(at, None, message.learn, answers[0]))
    return found


def _answers(messages: Sequence[Message], at: int) -> list[int | None]:
    """For each call of the assistant message at `at` the position of its answer; for plain text what a tool says to it.

    The answers are the tools' messages that follow directly. One that names a call answers that call; the others
    answer the remaining calls in order.
    """
    following = list(takewhile(lambda i: messages[i].role == "tool", range(at + 1, len(messages))))
    ids = [made.id for made in messages[at].calls] or [""]
    answered: list[int | None] = [None] * len(ids)
    unnamed = []
    for i in following:
        if (name := messages[i].answers) and name in ids:
            free = (k for k, known in enumerate(ids) if known == name and answered[k] is None)
            if (named := next(free, None)) is not None:
                answered[named] = i
        else:
            unnamed.append(i)
    rest = iter(unnamed)
    return [next(rest, None) if answer is None else answer for answer in answered]


def sequential(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The same conversation with at most one call a message, each call directly before its own answer.

    A message of several calls becomes as many messages; its text and thought stay with the first. Neither the number
    nor the order of `actions` changes.
    """
    if all(len(message.calls) <= 1 for message in messages):
        return messages
    moved: set[int] = set()
    found: list[Message] = []
    for at, message in enumerate(messages):
        if at in moved:
            continue
        if len(message.calls) <= 1:
            found.append(message)
            continue
        for number, (made, answer) in enumerate(zip(message.calls, _answers(messages, at), strict=True)):
            words = message if number == 0 else Message("assistant", learn=made.learn)
            found.append(replace(words, calls=(made,)))
            if answer is not None:
                found.append(messages[answer])
                moved.add(answer)
    return tuple(found)


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
        return next((m.text for m in self.messages if m.role == "user"), "")


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
        return next((m.text for m in self.messages if m.role == "user"), "")


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
