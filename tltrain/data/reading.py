"""Read files of records, and check the type of each field. Each reader defines what its fields mean.

`containers` and `json_stream` define which files can be read. Records are streamed. A malformed record ends the run
with a one-line error (`FILE, record N: FIELD: expected ..., found ...`); with `on_error="skip"` it is counted and
listed in a `ReadReport`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, TypeVar, overload

from tltrain.config import OnError
from tltrain.data.containers import check_file as check_file
from tltrain.data.containers import files_of as files_of
from tltrain.data.containers import is_table, plain, table_rows
from tltrain.data.containers import open_file as open_file
from tltrain.data.json_stream import numbered_values
from tltrain.data.json_text import MAX_DEPTH as MAX_DEPTH
from tltrain.data.json_text import decode
from tltrain.data.json_text import parse_json as parse_json
from tltrain.data.json_text import parse_json_at as parse_json_at
from tltrain.errors import FieldError, RecordError, TltrainError
from tltrain.formats.stubs import not_rendered
from tltrain.trajectory import Tool

T = TypeVar("T")
Word = TypeVar("Word", bound=str)
Parse = Callable[[Any, int, Counter[str]], Iterable[T]]
"""Maps `(record, number, notes)` to the record's items and counts in `notes` what it leaves out. Raises FieldError."""


PLACES = 10
"""Maximum number of records that a `ReadReport` names for a note."""


@dataclass
class ReadReport:
    """The outcome of reading a file.

    Attributes:
        read: number of records read.
        skipped: the one-line error of each record that could not be read.
        notes: how often something was left out of a record or changed in it, by a line that describes it.
        places: the first records with each note, by the note.
        remedy: what a user can do about a malformed record, for its error message.
    """

    read: int = 0
    skipped: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    remedy: str = ""

    def note(self, notes: Counter[str], file: object, number: int) -> None:
        """Count a record's notes, and keep the first records with each."""
        self.notes.update(notes)
        for note in notes:
            places = self.places.setdefault(note, [])
            if len(places) < PLACES:
                places.append(f"{file}, record {number}")

    def problem(self, error: RecordError, on_error: OnError | str) -> None:
        """Raise `error` (`on_error=stop`) or add it to `skipped`."""
        if on_error == "stop":
            raise error
        self.skipped.append(str(error))


def read_file(
    path: Any, parse: Parse[T], on_error: OnError | str = OnError.stop, report: ReadReport | None = None
) -> Iterator[T]:
    """Yield the items that `parse` returns for each record, in order; records are numbered across several files.

    Args:
        path: a file, a folder of shards, or a list of files (`containers.files_of`).

    Raises:
        TltrainError: a file cannot be read, or there are no records.
        RecordError: a record is malformed and `on_error` is `stop`.
    """
    report = ReadReport() if report is None else report
    before = 0
    for file in files_of(path):
        failures = _Failures(file, on_error, report)
        for number, record in failures.watch(_records(file, failures.add)):
            notes: Counter[str] = Counter()
            try:
                parsed = list(parse(record, before + number, notes))
            except FieldError as error:
                failures.add(number, error)
                continue
            if failures.first is None:
                report.read += 1
                report.note(notes, file, number)
                yield from parsed
        failures.end()
        before += failures.last
    if not before and not report.skipped:
        raise TltrainError(f"{path}: expected records (a JSON list, or JSON lines), found none")


MOST_COUNTED = 10_000
"""Maximum number of records that are read after a malformed one to count how many more are malformed."""


@dataclass
class _Failures:
    """The malformed records of a file: listed, or the first one raised with a count of those after it."""

    path: str
    on_error: OnError | str
    report: ReadReport
    first: tuple[int, FieldError] | None = None
    alike: int = 0
    others: int = 0
    last: int = 0

    def add(self, number: int, error: FieldError) -> None:
        self.last = max(self.last, number)
        if self.on_error != "stop":
            self.report.skipped.append(str(RecordError(self.path, number, error)))
        elif self.first is None:
            self.first = number, error
        elif _kind(error) == _kind(self.first[1]):
            self.alike += 1
        else:
            self.others += 1

    def watch(self, items: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        """Yield the records; after the first malformed one, only as many as are counted."""
        try:
            for number, record in items:
                if self.first is not None and number - self.first[0] > MOST_COUNTED:
                    return
                self.last = number
                yield number, record
        except TltrainError:  # nothing after this position can be read
            if self.first is None:
                raise

    def end(self) -> None:
        """Raise the first malformed record's error, if there is one."""
        if self.first is None:
            return
        number, error = self.first
        said = ""
        if (after := self.last - number) > 0:
            alike = f"{self.alike:,} of {after:,} fail alike"
            said = f"; of the records after it {alike}" + (f", {self.others:,} otherwise" if self.others else "")
        hopeless = error.remedy or (said and self.alike == after)  # the whole file differs from what was expected
        remedy = f"; {self.report.remedy}" if self.report.remedy and not hopeless else ""
        raise RecordError(self.path, number, error, said + remedy)


def _kind(error: FieldError) -> tuple[str, str]:
    """Return what similar errors share: the field without its numbers and names, and what was expected."""
    return re.sub(r"\[\d+\]|(?<=properties\.)[^.]+", "", error.field), error.expected


def _records(path: str | PathLike[str], problem: Callable[[int, FieldError], None]) -> Iterator[tuple[int, Any]]:
    with open_file(path) as file:
        if not is_table(file.peek(6)):
            yield from numbered_values(path, file, problem)
            return
    for number, row in enumerate(table_rows(path), 1):
        try:
            record = plain(row, "row")
        except FieldError as error:
            problem(number, error)
            continue
        yield number, record


def records(
    path: str | PathLike[str], on_error: OnError | str = OnError.stop, report: ReadReport | None = None
) -> Iterator[tuple[int, Any]]:
    """Yield the records of a file with their numbers from 1; blank lines are not counted.

    The file is JSON lines, a JSON list, one object or several concatenated ones, an object that contains the list
    (`json_stream.WRAPPERS`), or a Parquet or Arrow table, and may be compressed (`containers`).

    Raises:
        TltrainError: the file does not exist, or is none of these.
        RecordError: a record is not valid JSON. Outside JSON lines it cannot be skipped, as its end is unknown.
    """
    report = ReadReport() if report is None else report

    def problem(number: int, error: FieldError) -> None:
        report.problem(RecordError(path, number, error), on_error)

    return _records(path, problem)


def read_json(path: str | PathLike[str]) -> Any:
    """Return the single JSON value in a file. Raises TltrainError."""
    with open_file(path) as file:
        data = file.read()
    try:
        return parse_json(decode(data.removeprefix(b"\xef\xbb\xbf")), "content")
    except FieldError as error:
        raise TltrainError(f"{path}: {error}") from None


# --- fields ---------------------------------------------------------------------------------------------------------

_NAMES = {str: "a string", list: "a list", dict: "an object", bool: "true or false", int: "a whole number"}


def expect(value: Any, kind: type[T], where: str) -> T:
    """Return `value` if it is of type `kind` (`str`, `list`, `dict`, `bool` or `int`), else raise FieldError."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise FieldError(where, _NAMES[kind], shown(value))
    return value


def member(record: Mapping[str, Any], key: str, kind: type[T], where: str = "") -> T:
    """Return `record[key]`, which must exist and be of type `kind`; `where` is the field name of `record` itself."""
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
    """Return `record[key]`, which must have the type of `default`; return `default` if it is absent or null."""
    if record.get(key) is None:
        return default
    return expect(record[key], type(default), f"{where}.{key}" if where else key)


def expect_id(record: Mapping[str, Any]) -> str:
    """Return `record["id"]` as a string; it may be a whole number."""
    value = record.get("id")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else member(record, "id", str)


def expect_choice(value: Any, choices: Iterable[Word], where: str) -> Word:
    """Return `value` if it is one of `choices`, else raise FieldError."""
    choices = tuple(choices)
    for choice in choices:
        if value == choice:
            return choice
    raise FieldError(where, f"one of {', '.join(choices)}", shown(value))


def expect_tools(value: Any, where: str, notes: Counter[str]) -> tuple[Tool, ...]:
    """Parse a list of tools or its JSON text; a tool is `{type: function, function: {...}}` or the inner object."""
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
    """Return the fields of a record that its reader does not know, which become the trajectory's `meta`."""
    return {key: value for key, value in record.items() if key not in known}


_FLAGS = ("is_error", "isError", "error")
_EXIT_CODES = ("exit_code", "exitCode", "returncode", "return_code")
_STATUS = {
    **dict.fromkeys(("error", "failed", "failure"), True),
    **dict.fromkeys(("success", "ok", "succeeded"), False),
}
"""LangChain's `status`. `completed` (OpenAI's Responses API) does not state whether the call failed."""


def outcome(message: Mapping[str, Any]) -> tuple[bool | None, str | None]:
    """Return whether a tool's message states that the call failed, and in which field; (None, None) if it does not.

    The fields are `is_error` (Anthropic), `isError` (MCP) and `error` if boolean, `status: error` or `success`, and an
    exit code.
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


def texts_of(text: str, count: int) -> list[str]:
    """Return the items of a JSON list of `count` answers, each as text; otherwise the text as a single answer."""
    try:
        value = parse_json(text, "")
    except FieldError:
        return [text]
    if not isinstance(value, list) or len(value) != count:
        return [text]
    return [item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in value]


def note_rest(message: Mapping[str, Any], notes: Counter[str], *known: str) -> None:
    """Count the non-empty fields of a message that are not kept."""
    notes.update(f"messages: `{key}` not kept" for key, value in rest(message, *known).items() if value)


def shown(value: Any) -> str:
    """Format a JSON value for an error message."""
    return json.dumps(value, ensure_ascii=False)
