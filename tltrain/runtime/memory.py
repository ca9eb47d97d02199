"""Peak memory of a piece of work, and returning memory to the system after it."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Peak:
    """Peak in bytes, set when the work has ended; None if the system does not report it."""

    bytes: int | None = None


@contextmanager
def peak() -> Iterator[Peak]:
    """Measure the peak within the block: of the accelerator's memory if torch uses one, else of this process."""
    found = Peak()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: reset the peak
    try:
        yield found
    finally:
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            found.bytes = torch.cuda.max_memory_allocated()
        else:
            found.bytes = _high_water_mark()


def _high_water_mark() -> int | None:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def of_machine() -> int:
    """Return the bytes of memory that this machine has, or that its container may use."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        limits.append(int(text))
    return min(limits)


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Numbers of glibc's `mallopt`."""
LARGEST_KEPT, MOST_KEPT, GROWS_BY = 1 << 30, (1 << 31) - 1, 1 << 26
"""Bytes: of a block that is kept, of what is kept at the top of the heap, and by which the heap grows."""


def reuse_freed() -> None:
    """Let glibc's allocator keep large blocks that were freed, until `give_back`.

    By default each block of more than a few MB is mapped anew, and the kernel clears its pages one fault at a time: a
    training step of a model of 135 million weights took 110,000 faults, a tenth of its processor time. With another
    allocator nothing changes.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option, size in (
            (M_MMAP_THRESHOLD, LARGEST_KEPT),
            (M_TRIM_THRESHOLD, MOST_KEPT),
            (M_TOP_PAD, GROWS_BY),
        ):
            library.mallopt(option, size)


def give_back() -> None:
    """Return unused memory to the system. Only the cycle collector frees a trainer, and both torch's GPU allocator and
    glibc's keep freed memory. Without this, the second of two stages in one process would begin with the first one's
    peak.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
