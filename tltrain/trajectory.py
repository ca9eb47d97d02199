"""The data types of the whole package: tools, calls, messages and trajectories. Plain values, no torch, no I/O.

A trajectory is one conversation: a user asks, the assistant calls tools, each tool answers, and a last call (usually
`finish`) ends it. Formats and readers turn files into these objects; no module above them reads raw JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Final, Literal, NamedTuple

Role = Literal["user", "assistant", "tool"]
FINISH: Final = "finish"
"""The tool whose call answers the user, if a tool of this name is on offer; its last argument is the answer."""


class _Any:
    """The type of `ANY`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ANY"

    def __reduce__(self) -> str:  # copy and pickle return the same object
        return "ANY"


ANY: Final = _Any()
"""A golden argument value that accepts any predicted value (RoTBench writes it as the string "None")."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """A golden argument value that accepts any of `values` (BFCL's possible answers), at any depth of an argument.

    `optional`: the argument, or the key of a dict, may also be omitted; if `values` is empty, it must be omitted.
    """

    values: tuple[Any, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: its name, a description, and `parameters`, a JSON schema object (`properties`, `required`)."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def properties(self) -> Mapping[str, Any]:
        """Map each parameter name to its JSON schema, in the order of the documentation."""
        return self.parameters.get("properties") or {}

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the parameters that a call must include."""
        return tuple(self.parameters.get("required") or ())


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool; argument values are JSON-like (in a golden call also `ANY` and `OneOf`).

    `positional`: number of values that the call's text gives without a parameter name. The values themselves are not
    stored, and the number does not count in comparisons.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    positional: int = field(default=0, compare=False)


def example(golden: Call) -> Call:
    """Return a concrete call that `golden` accepts: the first value of each `OneOf`, and "any" for `ANY`."""
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
    """A call within an assistant message.

    `Call` itself has neither `learn` nor `id`, since predicted and golden calls are compared by name and arguments.

    Attributes:
        call: the tool and its arguments.
        learn: False for a call that is only history and never a training target.
        id: identifier that the tool message with the answer repeats in `Message.answers`; empty if answers are matched
            by their order.
    """

    call: Call
    learn: bool = True
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: who speaks.
        text: the user's words, a tool's answer, or what the assistant says to the user.
        calls: the calls of an assistant message, in order; empty in a message of plain text.
        thought: the assistant's reasoning before its text and calls.
        learn: False if `text` and `thought` of an assistant message are only history and never a training target. Each
            call has its own flag.
        answers: in a tool message, the `ToolCall.id` that it answers; empty if answers are matched by their order.
        is_error: in a tool message, whether the call failed, if the source states it explicitly (MCP `isError`,
            Anthropic `is_error`, an exit code); None if only the text can tell.
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
        """Create an assistant message with these calls and one `learn` flag for all of it."""
        return cls("assistant", text, tuple(ToolCall(call, learn) for call in calls), thought, learn)

    def with_learn(self, learn: bool) -> Message:
        """Return the message with this `learn` flag on its text and on every call."""
        return replace(self, learn=learn, calls=tuple(replace(call, learn=learn) for call in self.calls))


class Action(NamedTuple):
    """One action of the assistant: a call, or a message without calls.

    Attributes:
        at: index of its message.
        call: the call; None for a message of plain text.
        learn: whether it may be a training target.
        answer: index of the tool message that answers it; None if there is none.
    """

    at: int
    call: Call | None
    learn: bool
    answer: int | None


def actions(messages: Sequence[Message]) -> list[Action]:
    """Return the assistant's actions in order: one for each call and one for each message without calls."""
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


def abstains(messages: Sequence[Message], action: Action) -> bool:
    """Return whether an action answers the user directly in words, so that the user's message asks for no call."""
    return (
        action.call is None
        and bool(messages[action.at].text.strip())
        and action.at > 0
        and messages[action.at - 1].role == "user"
    )


def _answers(messages: Sequence[Message], at: int) -> list[int | None]:
    """Return the index of the answer to each call of the assistant message at `at`; plain text counts as one call.

    The answers are the tool messages that follow directly. A tool message that names a call answers that call; the
    others answer the remaining calls in order.
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
    """Return the conversation with at most one call per message, each call directly followed by its answer.

    A message with several calls is split into one message per call; its text and thought stay with the first. The
    number and order of `actions` do not change.
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

    `instructions` is system text other than the tools' documentation. `meta` holds further data of the source, such as
    `scenario` and `level` (RoTBench), or `errors` (toolworld: for each assistant message the kind of its mistake or
    None).
    """

    id: str
    tools: tuple[Tool, ...]
    messages: tuple[Message, ...]
    instructions: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def query(self) -> str:
        """The first user message, or an empty string."""
        return next((m.text for m in self.messages if m.role == "user"), "")


@dataclass(frozen=True, slots=True)
class Sample:
    """A benchmark question: given `messages` (the last one from the user or a tool), call one of `tools`.

    Each of `goldens` is a correct answer; if `parallel`, they are the calls of one message and all of them are asked
    for. With `abstain`, no call is right and `goldens` is empty. `meta` holds the fields by which results are split
    (`scenario`, `level`, `turn`, ...).
    """

    id: str
    tools: tuple[Tool, ...]
    messages: tuple[Message, ...]
    goldens: tuple[Call, ...]
    instructions: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    parallel: bool = False
    abstain: bool = False

    @property
    def asked(self) -> tuple[tuple[Call, ...], ...]:
        """For each call that is asked for, the golden calls, any of which is correct."""
        if self.parallel:
            return tuple((golden,) for golden in self.goldens)
        return (self.goldens,) if self.goldens else ()

    @property
    def query(self) -> str:
        """The first user message, or an empty string."""
        return next((m.text for m in self.messages if m.role == "user"), "")


@dataclass(frozen=True, slots=True)
class Task:
    """The task of a conversation. `meta` holds the fields by which results are split, and data for the environment."""

    id: str
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """The start of a conversation or the user's next turn: new messages, and the tools available from here on."""

    tools: tuple[Tool, ...]
    messages: tuple[Message, ...]
    instructions: str = ""
