"""Durations in words, as reports, plans and the terminal show them."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """Return `4.2 s`, `12 min 5 s`, `3 h 20 min` or `4 d 6 h`; `–` for None."""
    if not seconds:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for unit, size, part, part_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        # Round to the smaller unit first, so that 59 min 59.7 s is 1 h 0 min and never 60 min.
        parts = round(seconds / part_size)
        if parts * part_size >= size:
            whole, rest = divmod(parts, size // part_size)
            return f"{whole} {unit} {rest} {part}"
    return f"{seconds:.0f} s"
