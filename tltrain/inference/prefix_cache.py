"""A prefix cache for conversations in progress: it keeps each key-value cache until the conversation's next prompt.

The next prompt of a conversation begins with the previous prompt and its answer, so only the new messages must be
prefilled. Entries are matched only by their tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import Cache

from tltrain.inference import kv_cache


@dataclass(frozen=True)
class CachedPrefix:
    """A sequence of tokens and the one-row cache of its keys and values."""

    tokens: np.ndarray
    cache: Cache


class PrefixCache:
    """A prefix cache of at most `most_bytes` of keys and values; the oldest entries are evicted first.

    The newest entry stays even if it alone is larger.

    Args:
        worth: minimum number of tokens that a prompt must share with an entry to use it.
    """

    def __init__(self, most_bytes: int = 2 * 2**30, worth: int = 64) -> None:
        self.most_bytes, self.worth = most_bytes, worth
        self._kept: list[CachedPrefix] = []

    def lookup(self, prompts: Sequence[Sequence[int]]) -> dict[int, CachedPrefix]:
        """Return, by prompt number, the longest common prefix of each prompt with an entry.

        The prefix never includes the prompt's last token, which must be computed. Entries that no prompt uses are
        evicted.
        """
        found: dict[int, CachedPrefix] = {}
        used: set[int] = set()
        for number, prompt in enumerate(prompts):
            tokens = np.asarray(prompt[:-1])
            shared = [_common(tokens, one.tokens) for one in self._kept]
            best = int(np.argmax(shared)) if shared else -1
            if best >= 0 and shared[best] >= self.worth:
                used.add(best)
                length = shared[best]
                found[number] = CachedPrefix(tokens[:length], kv_cache.prefix(self._kept[best].cache, length))
        self._kept = [one for at, one in enumerate(self._kept) if at in used]
        return found

    def add(self, tokens: Sequence[int], cache: Cache, row: int, mask: torch.Tensor) -> None:
        """Add a copy of a row of `cache`.

        Args:
            tokens: the first N tokens of the row, without padding.
            mask: [at least T], 0 for padding.
        """
        at = mask.nonzero()[: len(tokens), 0]
        self._kept.append(CachedPrefix(np.asarray(tokens), kv_cache.copy_row(cache, row, at)))
        sizes = [kv_cache.num_bytes(one.cache) for one in self._kept]
        while len(sizes) > 1 and sum(sizes) > self.most_bytes:
            del self._kept[0], sizes[0]


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """Return the length of the common prefix."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    return int(differs.argmax()) if differs.any() else length
