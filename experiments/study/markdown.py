"""Numbers and tables in Markdown, as the page and the documents have them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def signed(value: float | None, digits: int = 1) -> str:
    """A number with its sign; a dash where there is none."""
    return "–" if value is None else f"{value:+.{digits}f}"


def difference(part: Mapping[str, Any]) -> str:
    """A difference with its interval over seeds, which one seed does not have: `+4.2 [+1.0, +7.4]`, `+4.2`."""
    interval = "" if part["low"] is None else f" [{signed(part['low'])}, {signed(part['high'])}]"
    return signed(part["value"]) + interval


def table(title: str, heads: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """A table under its title, if it has one; words to the left, numbers to the right; nothing without a line."""
    cells = [list(line) for line in lines]
    if not cells:
        return []
    numbers = [all(re.match(r"[-+–]?[\d.]*(\W|$)", line[at]) for line in cells) and at > 0 for at in range(len(heads))]
    return [
        *([f"## {title}", ""] if title else []),
        f"| {' | '.join(heads)} |",
        "|" + "|".join(" ---: " if number else " --- " for number in numbers) + "|",
        *(f"| {' | '.join(line)} |" for line in cells),
    ]
