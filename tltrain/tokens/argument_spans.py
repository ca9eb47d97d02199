"""Where the arguments of a call stand in what a chat template writes, whatever syntax it has.

A template is asked to write the call with one value or one name changed; the text differs from the call's own where
that value or name stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_VALUES = ("\u2603", 8.25)
"""What a value is changed to: a text, which differs from every other text at once, and what no template quotes."""
_SUFFIX = "!"
"""What a name is changed by: a template that sorts parameters leaves it in its place."""


class ArgumentSpan(NamedTuple):
    """The characters from `start` to `end` of a `parameter`, its name, or of its `value` with the quotes around it."""

    part: str
    start: int
    end: int


def argument_spans(
    text: str, arguments: Mapping[str, Any], render: Callable[[Mapping[str, Any]], str]
) -> list[ArgumentSpan]:
    """Return where the names and values of a call's arguments stand in `text`.

    A name that the template writes otherwise is left out.

    Args:
        text: what the template writes for the call. render: returns the same for other arguments.
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
    """Return the length of the common beginning of two texts."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
