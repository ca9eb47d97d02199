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
    """Peak in bytes, set when the work has ended; None if the system cannot tell."""

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
    """Bytes of memory that this machine has, or its container may use."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        limits.append(int(text))
    return min(limits)


def give_back() -> None:
    """Return what is no longer used to the system: a trainer is freed by the cycle collector alone, and both torch's
    allocator on a GPU and glibc's keep what was freed. In a process that runs one stage after another the second
    would else begin with the first one's peak.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
