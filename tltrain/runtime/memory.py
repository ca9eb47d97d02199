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
