"""Readers of a user's own: what they raise and what they return is told in one line.

Ours are tested to raise `FieldError` alone and to yield trajectories; somebody's first attempt does neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tltrain.data.reading import Parse, ReadReport
from tltrain.errors import FieldError, TltrainError
from tltrain.runtime import targets
from tltrain.trajectory import Message, Tool, Trajectory

WANTED = "a Trajectory, or several of them (return a list, or yield)"


def parser(parse: Callable[..., Any], target: str) -> Parse[Trajectory]:
    """A parser of records that calls the user's `parse`, and raises FieldError for whatever it does wrong.

    Args:
        target: names it, for messages.
    """

    def parsed(record: Any, number: int, notes: Counter[str]) -> list[Trajectory]:
        try:
            found = parse(record=record, number=number, notes=notes)
            items = list(_items(found))
        except TltrainError:
            raise
        except Exception as error:
            raise FieldError(target, WANTED, targets.told(error)) from error
        for item in items:
            if (wrong := _wrong(item)) is not None:
                raise FieldError(target, *wrong)
        return items

    return parsed


def reader(read: Callable[[], Any], target: str, report: ReadReport) -> Iterator[Trajectory]:
    """Yield what a user's reader gives, which counts itself or not in `report`.

    Raises:
        TltrainError: it raises something, or gives what is no trajectory.
    """
    where = f"data._target_={target}"
    number = 0
    with targets.explained(where):
        for number, item in enumerate(_items(read()), 1):
            if (wrong := _wrong(item)) is not None:
                raise TltrainError(f"{where}: item {number}: {FieldError('', *wrong)}".replace(": : ", ": "))
            yield item
    if not report.read:
        report.read = number


def _items(found: Any) -> Iterable[Any]:
    if isinstance(found, Trajectory):
        return [found]
    if found is None or isinstance(found, str | dict) or not isinstance(found, Iterable):
        raise TypeError(f"it returned {'None' if found is None else type(found).__name__}")
    return found


def _wrong(item: Any) -> tuple[str, str] | None:
    """What was expected and what was found, where an item is no trajectory."""
    if not isinstance(item, Trajectory):
        return WANTED, type(item).__name__
    for name, kind in (("tools", Tool), ("messages", Message)):
        members = getattr(item, name)
        if not isinstance(members, tuple) or not all(isinstance(member, kind) for member in members):
            kinds = sorted({type(each).__name__ for each in members}) if isinstance(members, tuple | list) else []
            found = f"a {type(members).__name__}" + (f" of {', '.join(kinds)}" if kinds else "")
            return f"Trajectory.{name} to be a tuple of {kind.__name__}", found
    return None
