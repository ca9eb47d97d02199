r"""Names on offer (`stage.names=offered`): only tools on offer can be called, as servers' guided decoding does.

In the TL format an answer begins with the name. It may therefore begin with

    ` name(`                    for any tool on offer, and then with anything;
    words                       if no tool `finish` is on offer, since answers to the user are then written as text:
                                a space, a first word without `(`, and then anything but ` (`.

The second line keeps `otherTool(` and `otherTool (`, which would be read as calls, from passing for text. With `finish`
on offer, the answer to the user is its argument, and no answer that begins with words is sampled.

A token may come next if the text so far, followed by the token's text, may still become such an answer. Texts are
compared byte by byte, so all tokenizations of a name are allowed, and so is a token that ends the name and continues.
Once the name is complete, every token is allowed, including the end token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from tltrain.errors import TltrainError
from tltrain.inference.token_bytes import TokenBytes
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.native import NativeEncoder
from tltrain.trajectory import FINISH, Tool


class Offered(Protocol):
    """The tokens that a format allows where an answer names a tool.

    Attributes:
        in_the_beginning: whether every further token is allowed once `allowed` has returned None for an answer.
    """

    in_the_beginning: bool

    def allowed(self, tools: Sequence[Tool], answer: Iterable[int]) -> np.ndarray | None:
        """Return which tokens may follow an answer's tokens so far, [V] bool; None: any token."""
        ...


def offered_in(encoder: Encoder) -> Offered:
    """Return the rule for names on offer in the format of an encoder. Raises TltrainError."""
    if isinstance(encoder, NativeEncoder):
        from tltrain.inference.offered_calls import OfferedCalls

        return OfferedCalls(encoder)
    return OfferedNames(encoder)


_WORD, _REST = rb"[^\s(]", rb"(?:\s+(?:[^\s(].*)?)?"
_SAID = {
    "": re.compile(rb""),
    "space": re.compile(rb" "),
    "word": re.compile(rb" " + _WORD + rb"+"),
    "gap": re.compile(rb" " + _WORD + rb"+\s+"),
    "free": re.compile(rb" " + _WORD + rb"+\s+" + _WORD + rb".*", re.DOTALL),
}
"""The state of an answer in words, by its text so far."""
_NEXT = {
    "": re.compile(rb" (?:" + _WORD + rb"+" + _REST + rb")?", re.DOTALL),
    "space": re.compile(_WORD + rb"+" + _REST, re.DOTALL),
    "word": re.compile(_WORD + rb"*" + _REST, re.DOTALL),
    "gap": re.compile(rb"\s*(?:" + _WORD + rb".*)?", re.DOTALL),
}
"""The texts of tokens that may come next in words."""


class OfferedNames:
    """The tokens that may come next in an answer of the TL format while its tool's name is not complete.

    Raises:
        TltrainError: the texts of the tokenizer's tokens are not known.
    """

    in_the_beginning = True
    """Once the name is complete, every token is allowed."""

    def __init__(self, encoder: Encoder) -> None:
        self.format, self.eos_id = encoder.format, encoder.eos_id
        self.tokens = TokenBytes(encoder.tokenizer)
        self._allowed = lru_cache(maxsize=512)(self._compute)
        self._in_words = lru_cache(maxsize=None)(self._compute_in_words)
        self._heads = lru_cache(maxsize=4096)(self._compute_heads)

    def allowed(self, tools: Sequence[Tool], answer: Iterable[int]) -> np.ndarray | None:
        """Return which tokens may follow an answer's tokens so far, [V] bool; None: any token.

        V is the tokenizer's number of tokens; a model's further rows of logits belong to no token.

        Raises:
            TltrainError: no token of the tokenizer leads on to the name of a tool on offer.
        """
        texts = [self.tokens.of[token] for token in answer]
        if not all(texts):  # after an end token
            return None
        heads, words = self._heads(tuple(tool.name for tool in tools))
        return self._allowed(b"".join(texts), heads, words)

    def _compute_heads(self, names: tuple[str, ...]) -> tuple[tuple[bytes, ...], bool]:
        return tuple(self.format.call_head(name).encode() for name in names), FINISH not in names

    def _compute(self, said: bytes, heads: tuple[bytes, ...], words: bool) -> np.ndarray | None:
        state = next((state for state, text in _SAID.items() if text.fullmatch(said)), None) if words else None
        if state == "free" or any(said.startswith(head) for head in heads):
            return None
        allowed = np.zeros(len(self.tokens.of), dtype=bool)
        for head in heads:
            if head.startswith(said):
                allowed[list(self.tokens.within(head[len(said) :]))] = True
        if state is not None:
            allowed |= self._in_words(state)
        if not allowed.any():
            raise TltrainError(
                f"stage.names=offered: after {said.decode(errors='replace')!r} no token of the tokenizer leads to the "
                "name of a tool on offer; stage.names=free needs none"
            )
        return allowed

    def _compute_in_words(self, state: str) -> np.ndarray:
        fits = _NEXT[state].fullmatch
        allowed = np.array([bool(text) and fits(text) is not None for text in self.tokens.of])
        allowed[self.eos_id] = state in ("word", "gap")
        return allowed
