"""The interface to a library of models' own formats: what it renders, and what it says of an answer.

`NativeFormat` is the interface, which `chat_templates` implements with the model's own chat template; `native` encodes
conversations through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from tltrain.formats.native import Answer
from tltrain.trajectory import Tool

Json = Mapping[str, Any]


class Prompt(NamedTuple):
    """The ids that a server gives a model; the generation prompt, after which the assistant speaks, is at `opening`."""

    ids: list[int]
    opening: int


class CallHead(NamedTuple):
    """The text that a format writes around the name of each call.

    Attributes:
        mark: the text that every readable call begins with.
        before: the text between the mark and the name.
        behind: the texts that can end a name.
    """

    mark: str
    before: str
    behind: tuple[str, ...]


@dataclass(frozen=True)
class SaidCall:
    """The position of a call in an answer.

    Attributes:
        name_at, name_end: the half-open range of tokens that contain the tool's name.
        renamed: returns the answer's ids with each of several other names for the tool.
        arguments: returns the tokens that contain a character of a parameter's name or value, as position ->
            `parameter` or `value`.
    """

    name_at: int
    name_end: int
    renamed: Callable[[Sequence[str]], list[list[int]]]
    arguments: Callable[[], dict[int, str]]


@dataclass(frozen=True)
class Said:
    """The model's answer in a turn.

    Attributes:
        ids: its tokens, the end token last.
        calls: its calls in order.
        spans: returns for each call the range of its tokens, with the marks around it.
    """

    ids: list[int]
    calls: tuple[SaidCall, ...]
    spans: Callable[[], list[tuple[int, int]]]


class NativeFormat(Protocol):
    """The interface to a library of formats. `messages` and `tools` are in the form of an API.

    Attributes:
        name: the format's name in error messages.
        several_calls: whether a message may make several calls.
        thoughts: whether a message may have a thought.
        text_beside_calls: whether a message may have both words and calls.
        stop_ids: tokens that end an answer.
        call_head: the text around the name of each call; None if it is not the same for all calls.
        template: the chat template that is saved with the model.
        date: the date that the template uses as today; None: it writes no date.
    """

    name: str
    several_calls: bool
    thoughts: bool
    text_beside_calls: bool
    stop_ids: frozenset[int]
    call_head: CallHead | None
    template: str
    date: str | None

    def prompt(self, messages: Sequence[Json], tools: Sequence[Json]) -> Prompt:
        """Return the prompt for an answer to these messages; may raise TltrainError."""
        ...

    def said(self, messages: Sequence[Json], tools: Sequence[Json]) -> Said:
        """Return the last message, the assistant's, as the answer to the messages before; may raise TltrainError."""
        ...

    def read(self, ids: Sequence[int], prompt: Sequence[int], tools: Sequence[Tool]) -> Answer:
        """Return the answer that a model gave to a prompt; no answer makes it raise."""
        ...

    def thought(self, ids: Sequence[int], prompt: Sequence[int]) -> range:
        """Return the positions of an answer's thought, with its marks; empty if it has none."""
        ...
