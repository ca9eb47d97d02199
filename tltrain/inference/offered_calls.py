"""Names on offer (`stage.names=offered`) in native formats: only tools on offer can be called, as in guided decoding.

Every call that a format's parser reads begins with a fixed text, its mark: `<tool_call>` (Qwen3, Hermes), `{"name":`
(Llama 3), `to=functions.` (harmony), `<|tool_call>call:` (Gemma). The mark must be followed by the text that the
template writes before the name, the name of a tool on offer, and the text that ends a name. Everything else is free:
thoughts, words, arguments, further calls. Texts are compared byte by byte, special tokens by their names, so a mark
that is spelled in other tokens counts, and so does a token that completes a mark and continues.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from tltrain.errors import TltrainError
from tltrain.formats.chat_completions import api_names
from tltrain.inference.token_bytes import TokenBytes
from tltrain.tokens.native import NativeEncoder
from tltrain.trajectory import Tool


class OfferedCalls:
    """The tokens that may come next in an answer of a native format.

    Raises:
        TltrainError: its calls do not begin with a fixed text before each name, or the texts of the tokenizer's tokens
            are not known.
    """

    in_the_beginning = False
    """Any number of calls may follow, so no answer is complete before its end."""

    def __init__(self, encoder: NativeEncoder) -> None:
        head = encoder.native.call_head
        if head is None:
            raise TltrainError(
                f"stage.names=offered: format={encoder.native.name} writes no fixed text before the name of each call, "
                "by which a call could be told: stage.names=free"
            )
        self.head, self.ends = head, encoder.ends
        self.mark = head.mark.encode()
        self.tokens = TokenBytes(encoder.tokenizer, special=True)
        self._inside = [  # tokens that complete a mark by themselves, and their text after it
            (number, text[text.rfind(self.mark) + len(self.mark) :])
            for number, text in enumerate(self.tokens.of)
            if self.mark in text
        ]
        self._rests = lru_cache(maxsize=4096)(self._compute_rests)
        self._named = lru_cache(maxsize=512)(self._compute_named)
        self._marking = lru_cache(maxsize=512)(self._compute_marking)

    def allowed(self, tools: Sequence[Tool], answer: Iterable[int]) -> np.ndarray | None:
        """Return which tokens may follow an answer's tokens so far, [V] bool; None: any token.

        V is the tokenizer's number of tokens; a model's further rows of logits belong to no token.

        Raises:
            TltrainError: no token of the tokenizer leads on to the name of a tool on offer.
        """
        tokens = list(answer)
        if not self.ends.isdisjoint(tokens):
            return None
        said = b"".join(self.tokens.of[token] for token in tokens)
        rests = self._rests(tuple(api_names(tuple(tools)).values()))
        at = said.rfind(self.mark)
        behind = said[at + len(self.mark) :]
        if at >= 0 and any(rest.startswith(behind) and rest != behind for rest in rests):
            return self._named(behind, rests)
        lengths = range(1, min(len(self.mark), len(said) + 1))
        begun = tuple(k for k in lengths if said.endswith(self.mark[:k]))
        return self._marking(begun, rests)

    def _compute_rests(self, names: tuple[str, ...]) -> tuple[bytes, ...]:
        """Return the texts that may follow a mark, up to the end of a name."""
        return tuple(f"{self.head.before}{name}{end}".encode() for name in names for end in self.head.behind)

    def _compute_named(self, behind: bytes, rests: tuple[bytes, ...]) -> np.ndarray:
        allowed = np.zeros(len(self.tokens.of), dtype=bool)
        for rest in rests:
            if rest.startswith(behind) and rest != behind:
                allowed[list(self.tokens.within(rest[len(behind) :]))] = True
        if not allowed.any():
            raise TltrainError(
                f"stage.names=offered: after {behind.decode(errors='replace')!r} no token of the tokenizer leads to "
                "the name of a tool on offer; stage.names=free needs none"
            )
        return allowed

    def _compute_marking(self, begun: tuple[int, ...], rests: tuple[bytes, ...]) -> np.ndarray | None:
        """Return all tokens but those that complete a mark and continue with anything but the name of a tool on offer.

        Args:
            begun: the numbers of bytes of the mark with which the answer may already end.
        """
        found = list(self._inside)
        for k in begun:
            missing = self.mark[k:]
            found += [(token, self.tokens.of[token][len(missing) :]) for token in self.tokens.beginning_with(missing)]
        wrong = [
            token for token, rest in found if not any(own.startswith(rest) or rest.startswith(own) for own in rests)
        ]
        if not wrong:
            return None
        allowed = np.ones(len(self.tokens.of), dtype=bool)
        allowed[wrong] = False
        return allowed
