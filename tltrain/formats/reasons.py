"""Word a grade's reason: the names, values and faults of a call in one line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from tltrain.trajectory import OneOf


def parameter_faults(
    tool: str, hallucinated: Sequence[str], redundant: Sequence[str], missing: Sequence[str], unnamed: int
) -> tuple[str, ...]:
    """Return a phrase for each kind of fault in a call's parameters.

    Args:
        unnamed: number of values without a parameter's name.
    """
    kinds = (
        (hallucinated, f"is not one of {tool}'s", f"are not among {tool}'s"),
        (redundant, "is not asked for", "are not asked for"),
        (missing, "is missing", "are missing"),
    )
    named = tuple(
        f"parameter{'s' if len(names) > 1 else ''} {quoted(names)} {many if len(names) > 1 else one}"
        for names, one, many in kinds
        if names
    )
    return (*named, f"{unnamed} value{'s' if unnamed > 1 else ''} without a parameter's name") if unnamed else named


def quoted(names: Iterable[str], between: str = ", ") -> str:
    """Quote names, shortened to fit a line, since a model may invent long ones."""
    return shortened(between.join(f"`{shortened(' '.join(name.split()))}`" for name in names), 200)


def shown(value: Any) -> str:
    """Return a value as short JSON."""
    return shortened(json.dumps(value, ensure_ascii=False, default=repr))


def shown_golden(value: Any) -> str:
    """Return a golden value as short JSON; the values of a `OneOf` become alternatives."""
    if not isinstance(value, OneOf):
        return shown(value)
    return shortened(" or ".join(map(shown, value.values)), 200) if value.values else "left out"


def shortened(text: str, limit: int = 60) -> str:
    """Return a text of at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
