"""Find the arguments of a call in a chat template's text, whatever the template's syntax.

The template renders the call with one value or one name changed; the two texts differ exactly at that value or name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_VALUES = ("\u2603", 8.25)
"""Replacements for a value: a text that differs from any other at its first character, and a number, which no template
quotes."""
_SUFFIX = "!"
"""Suffix that changes a name without moving it in a template that sorts parameters."""


class ArgumentSpan(NamedTuple):
    """The characters from `start` to `end`: a parameter's name (`parameter`), or its `value` with its quotes."""

    part: str
    start: int
    end: int


def argument_spans(
    text: str, arguments: Mapping[str, Any], render: Callable[[Mapping[str, Any]], str]
) -> list[ArgumentSpan]:
    """Return the positions of the names and values of a call's arguments in `text`.

    A name that the template writes in another way is left out.

    Args:
        text: the template's text for the call.
        render: returns the template's text for other arguments.
    """
    found = []
    for name, value in arguments.items():
        longer = {name + _SUFFIX if key == name else key: other for key, other in arguments.items()}
        end = _common(text, render(longer))
        if text[:end].endswith(name):
            found.append(ArgumentSpan("parameter", end - len(name), end))
        changed = [render({**arguments, name: other}) for other in _VALUES if other != value]
        start = min(_common(text, other) for other in changed)
        tail = min(_common(text[start:][::-1], other[start:][::-1]) for other in changed)
        found.append(ArgumentSpan("value", start, len(text) - tail))
    return sorted(found, key=lambda span: span.start)


def _common(one: str, other: str) -> int:
    """Return the length of the common prefix of two texts."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
