"""Files in, records out, and checked access to what stands in a record. What a record means, each reader says.

A file of records is a JSON list or JSON lines (one value a line), told apart by its first character. JSON lines are
streamed; a list is held in memory. A record that is not as its format says ends the run in one line
(`FILE, record N: FIELD: expected ..., found ...`), or with `on_error="skip"` is counted and listed in a `ReadReport`.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from os import PathLike
from typing import Any, BinaryIO, NoReturn, TypeVar, overload

from tltrain.config import OnError
from tltrain.data import nearby
from tltrain.errors import FieldError, RecordError, TltrainError
from tltrain.formats.stubs import not_rendered
from tltrain.trajectory import Tool

MAX_DEPTH = 100
"""JSON nested deeper than this is refused; it keeps every recursion over a record far from Python's limit."""

T = TypeVar("T")
Word = TypeVar("Word", bound=str)
Parse = Callable[[Any, int, Counter[str]], Iterable[T]]
"""`(record, number, notes)` -> what the record holds. Raises FieldError; counts in `notes` what it leaves out."""


@dataclass
class ReadReport:
    """What happened while reading: `read` counts records that were read.

    `skipped` holds the one-line error of each record that was not, `notes` counts what was left out of records or
    changed in them, by a line that says what.
    """

    read: int = 0
    skipped: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def problem(self, error: RecordError, on_error: OnError | str) -> None:
        """Raise `error`, or with `skip` list it."""
        if on_error == "stop":
            raise error
        self.skipped.append(str(error))


def read_file(
    path: str | PathLike[str], parse: Parse[T], on_error: OnError | str = OnError.stop, report: ReadReport | None = None
) -> Iterator[T]:
    """What `parse` makes of each record of a file, in order.

    Raises:
        TltrainError: the file cannot be read or holds no records.
        RecordError: a record is not as its format says, and `on_error` is `stop`.
    """
    report = ReadReport() if report is None else report
    number = 0
    for number, record in records(path, on_error, report):
        notes: Counter[str] = Counter()
        try:
            parsed = list(parse(record, number, notes))
        except FieldError as error:
            report.problem(RecordError(path, number, error), on_error)
            continue
        report.read += 1
        report.notes.update(notes)
        yield from parsed
    if not number and not report.skipped:
        raise TltrainError(f"{path}: expected records (a JSON list, or JSON lines), found none")


def records(
    path: str | PathLike[str], on_error: OnError | str = OnError.stop, report: ReadReport | None = None
) -> Iterator[tuple[int, Any]]:
    """The records of a file with their numbers, from 1; blank lines do not count.

    Raises:
        TltrainError: there is no such file, or it is no text in UTF-8.
        RecordError: a record is not valid JSON. In a list broken syntax cannot be skipped: where it ends is unknown.
    """
    report = ReadReport() if report is None else report
    with open_file(path) as file:
        lines = (line for line in chain([file.readline().removeprefix(b"\xef\xbb\xbf")], file) if line.strip())
        first = next(lines, b"")
        if first.lstrip().startswith(b"["):
            yield from _list_records(path, b"".join([first, *lines]), on_error, report)
            return
        for number, line in enumerate(chain([first] if first else [], lines), 1):
            try:
                record = parse_json(_decode(line.rstrip()), "line")
            except FieldError as error:
                report.problem(RecordError(path, number, error), on_error)
                continue
            yield number, record


@contextmanager
def open_file(path: str | PathLike[str]) -> Iterator[BinaryIO]:
    """The file, opened; TltrainError where there is none, or a folder."""
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below; the two errors must not be mixed up with those of the body)
    except OSError as error:
        hint = nearby.file_hint(path)
        raise TltrainError(f"{path}: expected a file of JSON, found: {error.strerror}{hint}") from None
    except ValueError as error:  # a NUL in the path
        raise TltrainError(f"{str(path)!r}: expected a file of JSON, found: {error}") from None
    with file:
        yield file


def check_file(path: str | PathLike[str]) -> None:
    """Raise a TltrainError, as `open_file`, where there is no such file. It is not opened: a pipe is read once."""
    try:
        there = not stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        there = False
    if not there:
        with open_file(path):
            pass


def read_json(path: str | PathLike[str]) -> Any:
    """The one JSON value that a file holds. Raises TltrainError."""
    with open_file(path) as file:
        data = file.read()
    try:
        return parse_json(_decode(data.removeprefix(b"\xef\xbb\xbf")), "content")
    except FieldError as error:
        raise TltrainError(f"{path}: {error}") from None


def _list_records(
    path: str | PathLike[str], data: bytes, on_error: OnError | str, report: ReadReport
) -> Iterator[tuple[int, Any]]:
    """The items of a JSON list, parsed one by one, so that an error has its record's number."""
    try:
        text = _decode(data)
    except FieldError as error:
        raise TltrainError(f"{path}: {error}") from None
    number = 1
    at = _skip_space(text, text.index("[") + 1)
    more = text[at : at + 1] != "]"
    try:
        while more:
            value, end = _raw_json(text, at, "item")
            try:
                _check(value, text[at:end], "item")
            except FieldError as error:
                report.problem(RecordError(path, number, error), on_error)
            else:
                yield number, value
            at = _skip_space(text, end)
            more = text[at : at + 1] == ","
            if more:
                number, at = number + 1, at + 1
        if text[at : at + 1] != "]":
            _bad_json("item", text, at, "expected `,` or `]` after it")
        if text[at + 1 :].strip():
            _bad_json("end of the list", text, _skip_space(text, at + 1), "text after the list")
    except FieldError as error:
        raise RecordError(path, number, error) from None


# --- JSON -----------------------------------------------------------------------------------------------------------


def parse_json(text: str, where: str) -> Any:
    """The JSON value that `text` is.

    Raises:
        FieldError: it is not JSON, holds more than one value, NaN, an infinity or a lone surrogate, or nests deeper
            than `MAX_DEPTH`. Never another exception.
    """
    value, end = parse_json_at(text, 0, where)
    end = _skip_space(text, end)
    if end < len(text):
        _bad_json(where, text, end, "text after the value")
    return value


def parse_json_at(text: str, at: int, where: str) -> tuple[Any, int]:
    """The JSON value that starts at `at` (space before it is skipped), and where it ends. Raises as `parse_json`."""
    value, end = _raw_json(text, at, where)
    _check(value, text[at:end], where)
    return value, end


def _raw_json(text: str, at: int, where: str) -> tuple[Any, int]:
    """As `parse_json_at`, without the checks of what JSON's syntax allows."""
    try:
        return _DECODER.raw_decode(text, _skip_space(text, at))
    except json.JSONDecodeError as error:
        _bad_json(where, text, error.pos, error.msg)
    except RecursionError:
        _too_deep(where)
    except ValueError as error:  # a number that cannot be kept
        raise FieldError(where, "valid JSON", str(error)) from None


def _check(value: Any, text: str, where: str) -> None:
    """FieldError for lone surrogates and deep nesting. Few texts hold what makes it look at the value itself."""
    if text.count("{") + text.count("[") > MAX_DEPTH:
        _check_depth(value, where)
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise FieldError(where, "Unicode text", "half of a surrogate pair (\\ud800 to \\udfff)") from None


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits}, too large a number")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is not JSON")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
_SPACE = re.compile(r"[ \t\n\r]*")


def _skip_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _bad_json(where: str, text: str, at: int, problem: str) -> NoReturn:
    excerpt = repr(text[at : at + 24]) if at < len(text) else "the end"
    raise FieldError(where, "valid JSON", f"{excerpt} at character {at + 1} ({problem})") from None


def _check_depth(value: Any, where: str) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        inner = chain.from_iterable(parent.values() if isinstance(parent, dict) else parent for parent in level)
        level = [child for child in inner if isinstance(child, dict | list)]
        if not level:
            return
    _too_deep(where)


def _too_deep(where: str) -> NoReturn:
    raise FieldError(where, f"JSON nested at most {MAX_DEPTH} deep", "deeper nesting") from None


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = data[error.start : error.end].hex(" ")
        raise FieldError("text", "UTF-8", f"the byte {shown} at position {error.start + 1}") from None


# --- fields ---------------------------------------------------------------------------------------------------------

_NAMES = {str: "a string", list: "a list", dict: "an object", bool: "true or false", int: "a whole number"}


def expect(value: Any, kind: type[T], where: str) -> T:
    """`value`, if it is of this kind (`str`, `list`, `dict`, `bool`, `int`); else FieldError."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise FieldError(where, _NAMES[kind], shown(value))
    return value


def member(record: Mapping[str, Any], key: str, kind: type[T], where: str = "") -> T:
    """`record[key]`, which must be there and of this kind; `where` is the field that `record` stands in."""
    place = f"{where}.{key}" if where else key
    if key not in record:
        raise FieldError(place, _NAMES[kind], "no such field")
    return expect(record[key], kind, place)


@overload
def optional(record: Mapping[str, Any], key: str, default: dict[str, Any], where: str = "") -> dict[str, Any]: ...
@overload
def optional(record: Mapping[str, Any], key: str, default: list[Any], where: str = "") -> list[Any]: ...
@overload
def optional(record: Mapping[str, Any], key: str, default: T, where: str = "") -> T: ...
def optional(record: Mapping[str, Any], key: str, default: Any, where: str = "") -> Any:
    """`record[key]`, of the kind that `default` is; `default` where it is absent or null."""
    if record.get(key) is None:
        return default
    return expect(record[key], type(default), f"{where}.{key}" if where else key)


def expect_id(record: Mapping[str, Any]) -> str:
    """`record["id"]`: a string, or a whole number as one."""
    value = record.get("id")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else member(record, "id", str)


def expect_choice(value: Any, choices: Iterable[Word], where: str) -> Word:
    """`value`, if it is one of these words."""
    choices = tuple(choices)
    for choice in choices:
        if value == choice:
            return choice
    raise FieldError(where, f"one of {', '.join(choices)}", shown(value))


def expect_tools(value: Any, where: str, notes: Counter[str]) -> tuple[Tool, ...]:
    """Tools as `{type: function, function: {name, description, parameters}}` or bare; a list, or its text in JSON."""
    entries = parse_json(value, where) if isinstance(value, str) else value
    tools = tuple(_tool(entry, f"{where}[{i}]") for i, entry in enumerate(expect(entries, list, where)))
    notes.update(f"tools: `{word}` of a parameter is not in the stub" for tool in tools for word in not_rendered(tool))
    return tools


def _tool(entry: Any, where: str) -> Tool:
    entry = expect(entry, dict, where)
    if "function" in entry:
        entry, where = member(entry, "function", dict, where), f"{where}.function"
    parameters = optional(entry, "parameters", {}, where)
    for key, schema in optional(parameters, "properties", {}, f"{where}.parameters").items():
        schema = expect(schema, dict, f"{where}.parameters.properties.{key}")
        optional(schema, "description", "", f"{where}.parameters.properties.{key}")
    for i, key in enumerate(optional(parameters, "required", [], f"{where}.parameters")):
        expect(key, str, f"{where}.parameters.required[{i}]")
    name = member(entry, "name", str, where)
    if not name.strip():
        raise FieldError(f"{where}.name", "a tool's name", shown(name))
    return Tool(name, optional(entry, "description", "", where), parameters)


def rest(record: Mapping[str, Any], *known: str) -> dict[str, Any]:
    """The fields of a record besides those a reader knows: kept as the trajectory's `meta`."""
    return {key: value for key, value in record.items() if key not in known}


_FLAGS = ("is_error", "isError", "error")
_EXIT_CODES = ("exit_code", "exitCode", "returncode", "return_code")
_STATUS = {
    **dict.fromkeys(("error", "failed", "failure"), True),
    **dict.fromkeys(("success", "ok", "succeeded"), False),
}
"""LangChain's `status`. That an answer is `completed` (OpenAI's Responses) does not say whether the call failed."""


def outcome(message: Mapping[str, Any]) -> tuple[bool | None, str | None]:
    """Whether a tool's message says outright that the call failed, and by which field; (None, None) if it says nothing.

    Read are `is_error` (Anthropic), `isError` (MCP) and `error` where they are true or false, `status: error` or
    `success`, and an exit code.
    """
    for key in _FLAGS:
        if isinstance(message.get(key), bool):
            return message[key], key
    for key in _EXIT_CODES:
        if isinstance(code := message.get(key), int) and not isinstance(code, bool):
            return code != 0, key
    status = message.get("status")
    if isinstance(status, str) and status.lower() in _STATUS:
        return _STATUS[status.lower()], "status"
    return None, None


def note_rest(message: Mapping[str, Any], notes: Counter[str], *known: str) -> None:
    """Count a message's fields that hold something and are not kept."""
    notes.update(f"messages: `{key}` not kept" for key, value in rest(message, *known).items() if value)


def shown(value: Any) -> str:
    """A JSON value as an error shows it."""
    return json.dumps(value, ensure_ascii=False)
