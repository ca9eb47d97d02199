"""Readers and benchmarks of a user's own: what they raise and what they return is told in one line.

Ours are tested to raise `FieldError` alone and to yield trajectories; somebody's first attempt does neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tltrain.data.reading import Parse, ReadReport
from tltrain.errors import FieldError, TltrainError
from tltrain.runtime import targets
from tltrain.trajectory import Call, Message, Sample, Tool, Trajectory

T = TypeVar("T", Trajectory, Sample)


def parser(parse: Callable[..., Any], target: str, kind: type[T]) -> Parse[T]:
    """A parser of records that calls the user's `parse`, and raises FieldError for whatever it does wrong.

    Args:
        target: names it, for messages. kind: of what it returns, one or several.
    """

    def parsed(record: Any, number: int, notes: Counter[str]) -> list[T]:
        try:
            items = list(_items(parse(record=record, number=number, notes=notes), kind))
        except TltrainError:
            raise
        except Exception as error:
            raise FieldError(target, _wanted(kind), targets.told(error)) from error
        for item in items:
            if (wrong := _wrong(item, kind)) is not None:
                raise FieldError(target, *wrong)
        return items

    return parsed


def reader(read: Callable[[], Any], target: str, report: ReadReport) -> Iterator[Trajectory]:
    """Yield what a user's reader gives, which counts in `report` or leaves that to this function.

    Raises:
        TltrainError: it raises something, or gives what is no trajectory.
    """
    where = f"data.{targets.TARGET}={target}"
    number = 0
    with targets.explained(where):
        found = read()
        if not isinstance(found, Iterable):
            what = "None" if found is None else type(found).__name__
            raise TltrainError(
                f"{where}: expected trajectories (return a list, or yield), or a function or __call__ with the "
                f"parameter record; it returned {what}"
            )
        for number, item in enumerate(_items(found, Trajectory), 1):
            _refuse(item, Trajectory, f"{where}: item {number}")
            yield item
    if not report.read:
        report.read = number


def check(items: Iterable[Any], kind: type, where: str) -> None:
    """Raise a TltrainError for the first of the items that is not of this kind, or not whole."""
    for number, item in enumerate(items, 1):
        _refuse(item, kind, f"{where}: item {number}")


def _refuse(item: Any, kind: type, where: str) -> None:
    if (wrong := _wrong(item, kind)) is not None:
        raise TltrainError(f"{where}: expected {wrong[0]}, found {wrong[1]}")


def _wanted(kind: type) -> str:
    return f"a {kind.__name__}, or several of them (return a list, or yield)"


def _items(found: Any, kind: type) -> Iterable[Any]:
    if isinstance(found, kind):
        return [found]
    if found is None or isinstance(found, str | dict) or not isinstance(found, Iterable):
        raise TypeError(f"it returned {'None' if found is None else type(found).__name__}")
    return found


def _wrong(item: Any, kind: type) -> tuple[str, str] | None:
    """What was expected and what was found, where an item is not of this kind, or holds what it should not."""
    if not isinstance(item, kind):
        return _wanted(kind), type(item).__name__
    inner: dict[str, type] = {"tools": Tool, "messages": Message} | ({"goldens": Call} if kind is Sample else {})
    for name, each in inner.items():
        members = getattr(item, name)
        if not isinstance(members, tuple) or not all(isinstance(member, each) for member in members):
            kinds = sorted({type(member).__name__ for member in members}) if isinstance(members, tuple | list) else []
            found = f"a {type(members).__name__}" + (f" of {', '.join(kinds)}" if kinds else "")
            return f"{kind.__name__}.{name} to be a tuple of {each.__name__}", found
    return None
