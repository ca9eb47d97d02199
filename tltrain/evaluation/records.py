"""The lines of result files: records as JSON, written and read back.

Only the classes of `predictions` and `transcripts` are such records. Keys that older versions did not write have
defaults, unknown keys are ignored, and an invalid line ends in one error that names the file, the line and the key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tltrain.data.reading import expect, open_file
from tltrain.errors import FieldError, RecordError, TltrainError
from tltrain.trajectory import ANY, Call, OneOf

T = TypeVar("T")


class Record(Protocol):
    """What a line holds."""

    def to_json(self) -> dict[str, Any]:
        """Return the line as plain values."""
        ...


def to_line(record: Record) -> str:
    """Return a record as its line of the file, without the line break."""
    return json.dumps(record.to_json(), ensure_ascii=False)


def scalars(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a sample's or task's `meta` that are texts, numbers or truth values."""
    return {key: value for key, value in meta.items() if isinstance(value, str | int | float | bool)}


def read_lines(file: Path, parse: Callable[[Any], T]) -> list[T]:
    """Return the result of `parse`, which may raise a FieldError, for each line of a file.

    Unlike `data.reading.records` this accepts lone surrogates, since a model may have written some.

    Raises:
        TltrainError: the file cannot be read.
        RecordError: a line is invalid.
    """
    return list(_parsed(file, parse))


def read_some(file: Path, parse: Callable[[Any], T], what: str) -> list[T]:
    """Return the lines of a file as `read_lines` does; raise TltrainError, which names `what`, if there is none."""
    if found := read_lines(file, parse):
        return found
    raise TltrainError(f"{file}: expected {what}, found none")


def _parsed(file: Path, parse: Callable[[Any], T]) -> Iterator[T]:
    with open_file(file) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield parse(_json(line))
            except FieldError as error:
                raise RecordError(file, number, error) from None


def _json(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FieldError("line", "a JSON object in UTF-8", str(error)) from None


def call_to_json(call: Call) -> dict[str, Any]:
    """Return a call as plain values; golden values may be `"<any>"` or `{"<one of>": [...]}`, marked if optional."""
    return {"name": call.name, "arguments": _value(dict(call.arguments))}


def _value(value: Any) -> Any:
    if value is ANY:
        return "<any>"
    if isinstance(value, OneOf):
        return {"<one of>": [_value(one) for one in value.values], **({"<optional>": True} if value.optional else {})}
    if isinstance(value, dict):
        return {key: _value(inner) for key, inner in value.items()}
    return [_value(inner) for inner in value] if isinstance(value, list | tuple) else value


def member_or_none(record: Mapping[str, Any], key: str, kind: type[T]) -> T | None:
    """Return `record[key]`, which must be of this kind; None if it is absent or null."""
    value = record.get(key)
    return None if value is None else expect(value, kind, key)
