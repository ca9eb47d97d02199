"""Fill up batches with blank samples if the samples do not divide evenly among the processes.

accelerate fills the last batches with samples from the beginning, which would then count twice. Blank samples have no
targets, so several processes train on exactly the samples that a single process would, even if there are fewer samples
than processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler

from tltrain.training.trainer_mixin import TrainerMixin


class Filled(Sampler[int]):
    """Yield the indices of another sampler, then `blank` until their number is a multiple of `size`."""

    def __init__(self, sampler: Sampler[int], size: int, blank: int) -> None:
        self.sampler, self.size, self.blank = sampler, size, blank

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.size) * self.size

    def __iter__(self) -> Iterator[int]:
        yield from self.sampler
        yield from [self.blank] * (len(self) - len(self.sampler))

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)


class FilledBatches(TrainerMixin):
    """Trainer mix-in whose loaders give every process the same number of batches; no effect in a single process."""

    def _with_blank(self, dataset: Any) -> Any:
        """Return the dataset with a blank sample appended."""
        raise NotImplementedError

    def _get_dataloader(
        self, dataset: Any, description: str, batch_size: int, sampler_fn: Callable | None = None, **kwargs: Any
    ) -> DataLoader:
        if self.args.world_size > 1:
            sampler = self._filled(sampler_fn and sampler_fn(dataset), dataset, batch_size * self.args.world_size)
            dataset, sampler_fn = self._with_blank(dataset), lambda _: sampler
        return super()._get_dataloader(dataset, description, batch_size, sampler_fn, **kwargs)

    def _filled(self, sampler: Any, dataset: Any, size: int) -> Filled:
        if sampler is None:
            sampler = SequentialSampler(dataset)
        elif type(sampler) is RandomSampler:  # as accelerate would, for the same order as a single process
            sampler = SeedableRandomSampler(dataset, generator=torch.Generator(), data_seed=self.args.data_seed)
        return Filled(sampler, size, blank=len(dataset))
