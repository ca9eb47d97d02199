"""Format a count together with its share."""

from __future__ import annotations


def share(count: int, of: int) -> str:
    """Return `12 of 1,217 (1.0 %)`."""
    percent = 100 * count / of if of else 0.0
    return f"{count:,} of {of:,} ({percent:.1f} %)"
