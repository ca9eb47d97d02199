"""A prefix cache for conversations in progress: it keeps each one's key-value cache until its next prompt arrives.

The next prompt of a conversation begins with the previous prompt and its answer, so that only the new messages must be
prefilled. Prompts are recognised by their tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import Cache

from tltrain.inference import kv_cache


@dataclass(frozen=True)
class Read:
    """Tokens and the one-row cache of their keys and values."""

    tokens: np.ndarray
    cache: Cache


class Memory:
    """At most `most_bytes` of keys and values; the oldest entries are evicted first.

    Args:
        worth: tokens that a prompt must share with an entry for the entry to be used.
    """

    def __init__(self, most_bytes: int = 2 * 2**30, worth: int = 64) -> None:
        self.most_bytes, self.worth = most_bytes, worth
        self._kept: list[Read] = []

    def recall(self, prompts: Sequence[Sequence[int]]) -> dict[int, Read]:
        """For each prompt that continues an entry, their common prefix; at least the prompt's last token is left to
        compute. Entries that no prompt continues are evicted.
        """
        found: dict[int, Read] = {}
        used: set[int] = set()
        for number, prompt in enumerate(prompts):
            tokens = np.asarray(prompt[:-1])
            shared = [_common(tokens, one.tokens) for one in self._kept]
            best = int(np.argmax(shared)) if shared else -1
            if best >= 0 and shared[best] >= self.worth:
                used.add(best)
                length = shared[best]
                found[number] = Read(tokens[:length], kv_cache.cropped(self._kept[best].cache, length))
        self._kept = [one for at, one in enumerate(self._kept) if at in used]
        return found

    def keep(self, tokens: Sequence[int], cache: Cache, row: int, mask: torch.Tensor) -> None:
        """Add a copy of a row of `cache`.

        Args:
            tokens: the N tokens that the row begins with, without padding.
            mask: [T or more], 0 where the row is padded.
        """
        at = mask.nonzero()[: len(tokens), 0]
        self._kept.append(Read(np.asarray(tokens), kv_cache.one_row(cache, row, at)))
        sizes = [kv_cache.size(one.cache) for one in self._kept]
        while len(sizes) > 1 and sum(sizes) > self.most_bytes:
            del self._kept[0], sizes[0]


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """Length of the common prefix."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    return int(differs.argmax()) if differs.any() else length
