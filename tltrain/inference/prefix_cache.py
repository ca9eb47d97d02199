"""What a model has read of conversations that go on: each one's key-value cache, until its next prompt comes.

The next prompt of a conversation begins with the last one and its answer, so that only what was said since is to be
read. Prompts are recognised by their tokens alone.
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
    """Tokens, and the cache of one row that holds their keys and values."""

    tokens: np.ndarray
    cache: Cache


class Memory:
    """At most so many bytes of keys and values; beyond, what was kept first is forgotten first.

    Args:
        worth: tokens that a prompt must share with what was read for that to be used.
    """

    def __init__(self, most_bytes: int = 2 * 2**30, worth: int = 64) -> None:
        self.most_bytes, self.worth = most_bytes, worth
        self._kept: list[Read] = []

    def recall(self, prompts: Sequence[Sequence[int]]) -> dict[int, Read]:
        """Of each prompt that goes on from something that was read, what both begin with; at least the prompt's last
        token is left to be read. What no prompt goes on from is forgotten.
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
        """Remember a row of `cache`, a copy of it.

        Args:
            tokens: N that the row begins with, padding aside. mask: [T or more], 0 where the row is padded.
        """
        at = mask.nonzero()[: len(tokens), 0]
        self._kept.append(Read(np.asarray(tokens), kv_cache.one_row(cache, row, at)))
        sizes = [kv_cache.size(one.cache) for one in self._kept]
        while len(sizes) > 1 and sum(sizes) > self.most_bytes:
            del self._kept[0], sizes[0]


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens both begin with."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    return int(differs.argmax()) if differs.any() else length
