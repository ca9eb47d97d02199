"""The order in which prompts are asked."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from tltrain.training.rollout import seed_of


class RolloutSampler(torch.utils.data.Sampler[int]):
    """Indices in an order of each epoch's own; each rollout's `size` indices follow one another `repeats` times.

    With repeats the last rollout is filled from the beginning of the order, so that all have the same number of steps.
    """

    def __init__(self, count: int, size: int, repeats: int, seed: int) -> None:
        self.count, self.size, self.repeats, self.seed, self.epoch = count, size, repeats, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count if self.repeats == 1 else math.ceil(self.count / self.size) * self.size * self.repeats

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.epoch))
        order = torch.randperm(self.count, generator=generator).tolist()
        if self.repeats == 1:
            yield from order
            return
        for start in range(0, self.count, self.size):
            for _ in range(self.repeats):
                yield from (order[i % self.count] for i in range(start, start + self.size))
