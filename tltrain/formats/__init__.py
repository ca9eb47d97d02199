"""Text in and out: how conversations are written for a model, and how its answers are read back.

A conversation becomes *segments*: pieces of text that are tokenized one by one, so that no token crosses the boundary
between what is given and what is to be predicted. Training and inference cut at the same places.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from tltrain.trajectory import Call, Sample, Trajectory


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a conversation's text.

    Attributes:
        text: the piece.
        turn: where the model says it, the number (from 0) of the action it belongs to, in the order of
            `trajectory.actions`; None where the model is given it.
        opens_turn: whether these are the words after which the model speaks.
    """

    text: str
    turn: int | None = None
    opens_turn: bool = False


class Format(Protocol):
    """How one kind of model reads conversations and writes calls."""

    writes_bos: bool
    """Whether the segments begin with the text of the BOS token; else the encoder puts the token there."""
    stop: tuple[str, ...]
    """Texts that end an answer: a server that is asked for one may stop there."""

    def segments(self, conversation: Trajectory | Sample) -> list[Segment]:
        """The conversation cut where given text and predicted text meet; every action of the assistant is in it."""
        ...

    def prompt_segments(self, conversation: Trajectory | Sample) -> list[Segment]:
        """The conversation as a history, and the words that ask for what comes next."""
        ...

    def call_text(self, call: Call) -> str:
        """A call as it stands in the segment of its turn."""
        ...

    def name_at(self, call: Call) -> int:
        """The character of `call_text(call)` at which the tool's name begins."""
        ...

    def call_head(self, name: str) -> str:
        """What the text of every call of the tool `name` begins with: the name, and what ends it."""
        ...

    def answer_length(self, text: str) -> int | None:
        """Where the answer ends that `text` begins with, in characters; None if it may go on."""
        ...

    def answer(self, text: str) -> str:
        """The answer in what a model generated, without anything behind it."""
        ...


def joined(segments: Iterable[Segment]) -> str:
    """The segments' text in one string."""
    return "".join(segment.text for segment in segments)
