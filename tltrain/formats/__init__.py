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
        turn: for text that the model says, the number (from 0) of its action in the order of `trajectory.actions`;
            None for text that the model is given.
        opens_turn: whether the model speaks after this text.
    """

    text: str
    turn: int | None = None
    opens_turn: bool = False


class Format(Protocol):
    """How one kind of model reads conversations and writes calls."""

    writes_bos: bool
    """Whether the segments begin with the text of the BOS token; if not, the encoder adds the token."""
    stop: tuple[str, ...]
    """Texts that end an answer: a server may stop generating at any of them."""

    def segments(self, conversation: Trajectory | Sample) -> list[Segment]:
        """The conversation, cut where given and predicted text meet; it contains every action of the assistant."""
        ...

    def prompt_segments(self, conversation: Trajectory | Sample) -> list[Segment]:
        """The conversation as a history, and the words that ask for the next message."""
        ...

    def call_text(self, call: Call) -> str:
        """The text of a call in the segment of its turn."""
        ...

    def name_at(self, call: Call) -> int:
        """The index in `call_text(call)` at which the tool's name begins."""
        ...

    def call_head(self, name: str) -> str:
        """The text with which every call of the tool `name` begins, up to the character that ends the name."""
        ...

    def answer_length(self, text: str) -> int | None:
        """The number of characters of the answer that `text` begins with; None if the answer may go on."""
        ...

    def answer(self, text: str) -> str:
        """The answer in a generated text, without anything that follows it."""
        ...


def joined(segments: Iterable[Segment]) -> str:
    """Return the segments' text as one string."""
    return "".join(segment.text for segment in segments)
