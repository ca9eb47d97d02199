"""Check readers and benchmarks that users write: any exception or wrong result becomes a one-line error.

Built-in readers are tested to raise only `FieldError` and to yield trajectories; a user's first attempt may do neither.
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
    """Return a record parser that calls the user's `parse` and raises FieldError for any mistake in it.

    Args:
        target: the function's name, for messages. kind: the type of its items; it may return one or several.
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
    """Yield the trajectories of a user's reader, and count them in `report` if the reader does not.

    Raises:
        TltrainError: the reader raises an exception, or yields something other than a trajectory.
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
    """Raise a TltrainError for the first item that is not of this kind, or has a wrong part."""
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
    """Return what was expected and what was found if an item is not of this kind or has a wrong part, else None."""
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
