"""Batches for several processes where the samples do not divide evenly: what is missing is filled with nothing.

accelerate fills the last batches with samples from the beginning, which would then count twice. Here they are filled
with blank ones that have no targets, so that several processes learn from exactly what one would, also where there are
fewer samples than processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler

from tltrain.training.trainer_mixin import TrainerMixin


class Filled(Sampler[int]):
    """The indices of another sampler, then `blank` until there is a multiple of `size`."""

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
    """Mixed in before a Trainer: its loaders give every process as many batches. In one process it changes nothing."""

    def _with_blank(self, dataset: Any) -> Any:
        """The dataset with a blank sample at its end."""
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
        elif type(sampler) is RandomSampler:  # accelerate would put this in its place: the order of one process
            sampler = SeedableRandomSampler(dataset, generator=torch.Generator(), data_seed=self.args.data_seed)
        return Filled(sampler, size, blank=len(dataset))
