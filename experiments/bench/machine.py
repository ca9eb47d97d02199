"""The clock of a benchmark script, and this machine's rate of matrix multiplication, measured in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tltrain.plan import compute, shapes
from tltrain.plan.compute import Tokens

SIDE = 2048
"""Side of the square matrices that are multiplied."""


_clock: Callable[[], float] = time.perf_counter


def now() -> float:
    """Return the clock's time in seconds."""
    return _clock()


def use_processor_time() -> None:
    """Count CPU seconds from now on; use this on a busy machine, with OMP_NUM_THREADS=1."""
    global _clock
    _clock = time.process_time


class MatmulRate:
    """Operations per second of matrix products of side `SIDE`, the median over measurements between the rounds."""

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = {"bf16": [], "fp32": []}

    def measure(self, least_seconds: float = 0.5) -> None:
        """Multiply for at least `least_seconds` in each precision."""
        for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
            one, other = torch.randn(2, SIDE, SIDE).to(dtype)
            torch.mm(one, other)  # warm-up
            start, count = now(), 0
            while (elapsed := now() - start) < least_seconds:
                torch.mm(one, other)
                count += 1
            self._seen[name].append(2 * SIDE**3 * count / elapsed)

    def __call__(self, precision: str) -> float:
        """Return the median rate in `bf16` or `fp32`."""
        return statistics.median(self._seen[precision])

    def to_json(self) -> dict[str, float]:
        """Return the median rate of each precision."""
        return {name: self(name) for name in self._seen}


def operations(config: Any, lengths: Sequence[int], targets: int, seen: float | None = None) -> float:
    """Return the operations that forward and backward passes over sequences need, with logits only at targets.

    Args:
        config: the model's. lengths: tokens of each sequence. targets: number of targets in all sequences.
        seen: total number of tokens that all tokens attend to; None for chains.
    """
    read = sum(lengths)
    if seen is None:
        seen = sum(length * (length + 1) / 2 for length in lengths)
    return compute.training(shapes.shape_of(config), Tokens(read, targets, 2 * seen / read), checkpointing=False)
