"""The metadata of configuration keys besides type and default: meaning and allowed values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

LARGEST = 10**18
"""Largest whole number of the configuration, which fits in 64 bits."""
LARGEST_FLOAT = 1e38
"""Largest other number, which fits in 32 bits; infinity is not allowed."""


def largest(value: float) -> float:
    """Return the largest number allowed for the type of `value`."""
    return LARGEST if isinstance(value, int) else LARGEST_FLOAT


@dataclass(frozen=True)
class Bounds:
    """The range of a number: `least` and `most` are inclusive, `above` and `below` exclusive; `LARGEST` bounds all."""

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
        """Return `0 or more`, `a number from 0 to below 1`, ... for error messages and the documentation."""
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
        meaning: its meaning, for the documentation.
        bounds: the range of a number.
        hint: what to do instead, appended to the error about a value out of bounds.
        schema: the dataclass of the keys below it, if the field is a node.
        among: the allowed values, if they are not an enumeration.
        types: the allowed types of a field annotated with Any; a node with a schema or a library's arguments is a dict.
        library: the library's class whose arguments the node takes, by its name in `tltrain.entry.arguments`;
            `algorithm`: the class of the `algorithm` key beside it.
        only: keys beside it, each with its values with which this one is read; one of them suffices. Empty: it is
            always read.
    """

    meaning: str
    bounds: Bounds = Bounds()
    hint: str = ""
    schema: type | None = None
    library: str | None = None
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
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
    only: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    among: tuple[Any, ...] = (),
    **bounds: float,
) -> Any:
    """Return a dataclass field with a `Key`.

    Args:
        default: a value (lists and dicts are copied), or the dataclass of a nested node.
        among: the allowed values, or their types (`Key.among`, `Key.types`).
        bounds: arguments of `Bounds`.
    """
    factory: Callable[[], Any] | None = default.copy if isinstance(default, list | dict) else None
    if isinstance(default, type):
        schema = factory = default
    types = tuple(each for each in among if isinstance(each, type))
    values = tuple(each for each in among if not isinstance(each, type))
    carried = {"key": Key(meaning, Bounds(**bounds), hint, schema, library, only, values, types)}
    return field(metadata=carried, **({"default_factory": factory} if factory else {"default": default}))


def keys_of(schema: type) -> Mapping[str, Key]:
    """Map the name of each field of a dataclass to its metadata, in the order of the source."""
    return {each.name: each.metadata["key"] for each in fields(schema)}
