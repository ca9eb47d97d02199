"""What a configuration key carries besides its type and default: its meaning, and the values it may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

LARGEST = 10**18
"""No whole number of the configuration is larger: it fits into 64 bits."""
LARGEST_FLOAT = 1e38
"""No other number is larger: it fits into 32 bits, and an infinity is none."""


def largest(value: float) -> float:
    """The largest number of the type of `value`."""
    return LARGEST if isinstance(value, int) else LARGEST_FLOAT


@dataclass(frozen=True)
class Bounds:
    """The range of a number: `least` and `most` belong to it, `above` and `below` do not; `LARGEST` bounds all."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (  # NaN is in no range: each comparison with it is false
            value == value
            and abs(value) <= largest(value)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __bool__(self) -> bool:
        return self != Bounds()

    def __str__(self) -> str:
        """`0 or more`, `a number from 0 to below 1`: what an error message and the documentation say."""
        low = self.least if self.least is not None else None if self.above is None else f"above {self.above}"
        high = self.most if self.most is not None else None if self.below is None else f"below {self.below}"
        if low is not None and high is not None:
            return f"a number {'' if self.least is None else 'from '}{low} to {high}"
        if self.least is not None:
            return f"{self.least} or more"
        if self.most is not None:
            return f"{self.most} or less"
        return f"a number {low if high is None else high}" if self else "any number"


@dataclass(frozen=True)
class Key:
    """The metadata of a configuration field.

    Attributes:
        meaning: what it is, for the documentation.
        bounds: the values that a number may have.
        hint: what to do instead, after the error of a value out of bounds.
        schema: the dataclass of the keys below it, where the node is one.
        among: the values it may have, where they are no enumeration.
        types: of a field annotated with Any, the types that its value may have; a node with a schema or a library's
            arguments is a dict.
        library: the class of a library whose arguments the node takes, as `tltrain.entry.arguments` names it;
            `algorithm`: that of the algorithm which stands beside it.
        only: a key beside it, and the values of that with which it is read; None: it always is.
    """

    meaning: str
    bounds: Bounds = Bounds()
    hint: str = ""
    schema: type | None = None
    library: str | None = None
    only: tuple[str, tuple[str, ...]] | None = None
    among: tuple[Any, ...] = ()
    types: tuple[type, ...] = ()

    def __post_init__(self) -> None:
        if not self.types and (self.schema or self.library):
            object.__setattr__(self, "types", (dict,))


def key(
    default: Any,
    meaning: str,
    *,
    hint: str = "",
    schema: type | None = None,
    library: str | None = None,
    only: tuple[str, tuple[str, ...]] | None = None,
    among: tuple[Any, ...] = (),
    **bounds: float,
) -> Any:
    """A dataclass field that carries a `Key`.

    Args:
        default: a value (lists and dicts are copied), or the dataclass of a nested node.
        among: the values it may have, or their types (`Key.among`, `Key.types`).
        bounds: of `Bounds`.
    """
    factory: Callable[[], Any] | None = default.copy if isinstance(default, list | dict) else None
    if isinstance(default, type):
        schema = factory = default
    types = tuple(each for each in among if isinstance(each, type))
    values = tuple(each for each in among if not isinstance(each, type))
    carried = {"key": Key(meaning, Bounds(**bounds), hint, schema, library, only, values, types)}
    return field(metadata=carried, **({"default_factory": factory} if factory else {"default": default}))


def keys_of(schema: type) -> Mapping[str, Key]:
    """Name -> metadata of each field of a dataclass, in the order they are written."""
    return {each.name: each.metadata["key"] for each in fields(schema)}
