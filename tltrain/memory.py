"""How much memory a piece of work takes at its peak."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Peak:
    """Filled in when the work has ended; None where this system cannot tell."""

    bytes: int | None = None


@contextmanager
def peak() -> Iterator[Peak]:
    """The peak within the block: of the accelerator's memory where torch uses one, else of this process's own."""
    found = Peak()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
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
