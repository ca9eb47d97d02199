"""The bytes that each token of a tokenizer stands for, and the tokens that fit a given text."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tltrain.errors import TltrainError

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """The bytes of each token, whatever tokenization a text has.

    Byte-level tokenizers (GPT-2, Llama 3, Qwen) write each byte as a letter; SentencePiece-like ones (LLaMA 2, Gemma)
    write a space as `▁` and a byte without a token as `<0x0A>`. Special tokens stand for no text.

    Args:
        special: special tokens stand for their names.

    Attributes:
        of: bytes by token id; empty for tokens without text.

    Raises:
        TltrainError: the tokenizer is of neither family.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, special: bool = False) -> None:
        added = tokenizer.added_tokens_decoder
        vocabulary = tokenizer.get_vocab()
        read = _reader(tokenizer)
        self.of = [b""] * (max(vocabulary.values()) + 1)
        for token, number in vocabulary.items():
            if number not in added:
                self.of[number] = read(token)
            elif special or (not added[number].special and number not in tokenizer.all_special_ids):
                self.of[number] = added[number].content.encode()
        self._sorted = sorted((text, number) for number, text in enumerate(self.of) if text)
        self._texts = [text for text, _ in self._sorted]

    def equal_to(self, text: bytes) -> Iterator[int]:
        """Yield the tokens that stand for `text`."""
        at = bisect_left(self._texts, text)
        while at < len(self._texts) and self._texts[at] == text:
            yield self._sorted[at][1]
            at += 1

    def beginning_with(self, text: bytes) -> Iterator[int]:
        """Yield the tokens whose text begins with `text`, such as `name(` and `name("` for `name(`."""
        at = bisect_left(self._texts, text)
        while at < len(self._texts) and self._texts[at].startswith(text):
            yield self._sorted[at][1]
            at += 1

    def within(self, text: bytes) -> Iterator[int]:
        """Yield the tokens that `text` begins with or that begin with `text`: those that may come next in it."""
        for end in range(1, len(text)):
            yield from self.equal_to(text[:end])
        yield from self.beginning_with(text)


def _reader(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the function from a token of the vocabulary to its bytes."""
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] or {}
    steps = decoder.get("decoders", [decoder])
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
        return lambda token: bytes(letters[letter] for letter in token) if set(token) <= letters.keys() else b""
    replaced = any(step.get("type") == "Replace" and step["pattern"].get("String") == "▁" for step in steps)
    if replaced or "Metaspace" in kinds:

        def read(token: str) -> bytes:
            byte = _BYTE.fullmatch(token) if "ByteFallback" in kinds else None
            return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()

        return read
    raise TltrainError(
        f"stage.names=offered: the tokenizer's tokens have no known text (decoder {decoder.get('type')}), only those "
        "of byte-level and SentencePiece-like tokenizers have; stage.names=free needs none"
    )
