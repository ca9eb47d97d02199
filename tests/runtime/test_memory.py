"""The memory of finished work is returned to the system."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tltrain.runtime import memory


def held() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_of_cycles_and_of_the_heap_is_given_back():
    class Trainer:
        """An object that refers to itself, as trainers do through their callbacks."""

    def work() -> int:
        trainer = Trainer()
        trainer.me, trainer.tensors = trainer, [torch.ones(20_000) for _ in range(4000)]  # 80 kB each: from the heap
        return held()

    before = held()
    peak = work()
    assert peak - before > 250e6
    memory.give_back()
    assert held() - before < 0.2 * (peak - before)
