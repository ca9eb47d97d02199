"""Records of a domain, by key, and what tools and tasks of confusable domains do with them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tltrain.toolworld.registry import Failure

Records = dict[str, dict[str, Any]]
"""Key -> record."""
Draw = Callable[[Records, Random], dict[str, Any]]


def record(records: Records, key: str) -> dict[str, Any]:
    """Return the record of a key. Raise Failure if there is none."""
    if key not in records:
        raise Failure(f"nothing found for {key!r}")
    return records[key]


def keys_with(records: Records, **values: Any) -> list[str]:
    """Return the keys of the records with these values. Raise Failure if there is none."""
    found = [key for key, fields in records.items() if all(fields[name] == value for name, value in values.items())]
    if not found:
        raise Failure(f"nothing found for {', '.join(map(repr, values.values()))}")
    return found


def key_with(records: Records, **values: Any) -> str:
    """Return the first key of the records with these values. Raise Failure if there is none."""
    return keys_with(records, **values)[0]


def change(records: Records, key: str, **values: Any) -> dict[str, Any]:
    """Set fields of a record and return them; no text may be empty. Raise Failure if there is no such record."""
    fields = record(records, key)
    for name, value in values.items():
        if not isinstance(value, type(fields[name])) or value == "":
            raise Failure(f"{value!r} is no valid {name}")
    fields.update(values)
    return values


def a_key(name: str) -> Draw:
    """Return a function that draws the key of a record as the argument `name`."""
    return lambda records, rng: {name: rng.choice(list(records))}


def fields_of(*names: str) -> Draw:
    """Return a function that draws a record and returns these fields of it as arguments."""

    def draw(records: Records, rng: Random) -> dict[str, Any]:
        fields = rng.choice(list(records.values()))
        return {name: fields[name] for name in names}

    return draw


def a_key_and(name: str, /, **values: tuple[Any, ...]) -> Draw:
    """Return a function that draws the key of a record and a value for each further argument.

    A value that a field of the same name already has is not drawn, so that setting it is a change.
    """

    def draw(records: Records, rng: Random) -> dict[str, Any]:
        key = rng.choice(list(records))
        free = {
            argument: [value for value in choices if value != records[key].get(argument)]
            for argument, choices in values.items()
        }
        return {name: key} | {argument: rng.choice(choices) for argument, choices in free.items()}

    return draw
