"""Stream the JSON values of a file: the items of a list, concatenated objects, or JSON lines.

One value is in memory at a time, and no value may be longer than `MAX_BYTES`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from os import PathLike
from typing import Any, BinaryIO

from tltrain.data.containers import TOO_LONG
from tltrain.data.json_text import bad_json, check, decode, parse_json, raw_json, skip_space
from tltrain.errors import FieldError, RecordError, TltrainError, shorten
from tltrain.runtime.json_files import MAX_BYTES

SPLITS = ("train", "training", "test", "testing", "valid", "validation", "val", "dev", "eval")
WRAPPERS = ("data", "records", "rows", "examples", "items", "instances", "samples", *SPLITS)
"""Fields under which an object may have a file's records as a list."""
Problem = Callable[[int, FieldError], None]
"""Takes a record's number and error, and may raise the error."""

_CHUNK = 1 << 20
_NEAR_END = 64
_WRAPPER = re.compile(rf'\s*\{{\s*"({"|".join(WRAPPERS)})"\s*:\s*(?=\[\s*\{{(?!\s*"(?:role|from|type)"))')


def numbered_values(path: str | PathLike[str], file: BinaryIO, problem: Problem) -> Iterator[tuple[int, Any]]:
    """Yield the records of a file of JSON with their numbers from 1.

    Raises:
        TltrainError: the file is not UTF-8.
        RecordError: the end of a record cannot be found. All other errors go to `problem`.
    """
    lines = _lines(file)
    head = [next(lines, b""), next(lines, b"")]
    first, second = (line.strip() for line in head)
    if first.startswith(b"["):
        if not (first.endswith(b"]") and second.startswith(b"[")):
            yield from _stream(path, _Text(_rejoined(head, file)), problem, listed=True)
            return
    elif first.startswith(b"{") and (
        _is_followed(first) or (_is_cut(first) and not (second.startswith(b"{") and _parses(second)))
    ):
        yield from _stream(path, _Text(_rejoined(head, file)), problem, listed=False)
        return
    elif not second and (wrapped := _wrapped(path, first)) is not None:
        yield from enumerate(wrapped, 1)
        return
    for number, line in enumerate(chain(filter(bytes.strip, head), lines), 1):
        try:
            if len(line) > MAX_BYTES:
                raise FieldError("line", TOO_LONG, "a longer line")
            value = parse_json(decode(line.rstrip()), "line")
        except FieldError as error:
            problem(number, error)
            if len(line) > MAX_BYTES:
                raise RecordError(path, number, error) from None
            continue
        yield number, value


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the non-blank lines without the byte order mark; a line that is too long is cut."""
    start = True
    while line := file.readline(MAX_BYTES + 1):
        if start:
            line, start = line.removeprefix(b"\xef\xbb\xbf"), False
        if line.strip():
            yield line


def _rejoined(head: list[bytes], file: BinaryIO) -> Iterator[bytes]:
    """Yield the whole file in chunks; `head` has already been read."""
    yield b"".join(head)
    size = _CHUNK
    while chunk := file.read(size):
        yield chunk


def _is_cut(line: bytes) -> bool:
    """Return whether a line begins a value that continues on the next line."""
    if len(line) > MAX_BYTES or line.endswith((b"{", b"[", b",", b":")):
        return True
    try:
        parse_json(decode(line), "line")
    except FieldError as error:
        return str(error.found).startswith("the end at character")
    return False


def _is_followed(line: bytes) -> bool:
    """Return whether a line contains an object and the beginning of another."""
    try:
        text = decode(line)
        _, end, _ = raw_json(text, 0, "line")
    except FieldError:
        return False
    return text[end:].lstrip(" \t,").startswith("{")


def _parses(line: bytes) -> bool:
    """Return whether a line is a complete JSON value."""
    try:
        parse_json(decode(line), "line")
    except FieldError:
        return False
    return True


def _wrapped(path: str | PathLike[str], line: bytes) -> list[Any] | None:
    """Return the list under one of `WRAPPERS` in an object on a line of its own.

    Raises:
        TltrainError: the object has several such lists.
    """
    if not line.startswith(b"{"):
        return None
    try:
        value = parse_json(decode(line), "line")
    except FieldError:
        return None
    try:
        return records_within(value)
    except FieldError as error:
        raise TltrainError(f"{path}: {error}") from None


def records_within(value: Any) -> list[Any] | None:
    """Return the records that an object has as a list under one of `WRAPPERS`; None if the object is itself a record.

    Raises:
        FieldError: it has several such lists, such as splits.
    """
    lists = [key for key, inner in value.items() if _holds_objects(inner)] if isinstance(value, dict) else []
    named = [key for key in lists if key in WRAPPERS and not _is_message(value[key][0])]
    if not named or (len(lists) > len(named) and not set(named) & set(SPLITS)):
        return None
    _check_alone(lists)
    return value[named[0]]


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _is_message(item: dict[str, Any]) -> bool:
    """Return whether an object is a message of a conversation, so a list of them is not a list of records."""
    return "role" in item or "from" in item or item.get("type") in ("message", "function_call", "reasoning")


def _check_alone(lists: list[str]) -> None:
    """Raise a FieldError if an object has more than one list of objects: only one can be the records."""
    if len(lists) > 1:
        key = shorten(lists[0], 20)
        remedy = f"write the one to read as a file of its own (jq -c '.{key}[]' FILE > {key}.jsonl)"
        raise FieldError("file", "one list of records", f"those of {', '.join(map(shorten, lists))}", remedy)


class _Text:
    """Text that is decoded on demand and dropped once it has been read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.text, self.at, self.ended = "", 0, False
        self._bytes = b""

    def more(self) -> bool:
        """At least double the text that is buffered; return False at the end of the file."""
        wanted = max(_CHUNK, len(self.text) - self.at)
        read: list[bytes] = [self._bytes]
        count = 0
        while count < wanted and (chunk := next(self.chunks, None)) is not None:
            read.append(chunk)
            count += len(chunk)
        self.ended = count < wanted
        data = b"".join(read)
        cut = len(data) if self.ended else _whole_characters(data)
        self._bytes = data[cut:]
        self.text = self.text[self.at :] + decode(data[:cut])
        self.at = 0
        return bool(count)

    def skip_space(self) -> str:
        """Go to the next non-space character and return it; an empty string at the end."""
        while True:
            self.at = skip_space(self.text, self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended or not self.more():
                return ""

    def value(self, where: str) -> tuple[Any, str, str | None]:
        """Return the JSON value at this position, its text, and a key that it has twice.

        Raises:
            FieldError: this is not JSON; the position is then unknown.
        """
        while True:
            self.at = skip_space(self.text, self.at)
            try:
                value, end, repeated = raw_json(self.text, self.at, where)
            except FieldError as error:
                if self.ended or not self._is_cut(error):
                    raise
            else:
                if end < len(self.text) or self.ended:
                    text = self.text[self.at : end]
                    self.at = end
                    return value, text, repeated
            if len(self.text) - self.at > MAX_BYTES:
                raise FieldError(where, TOO_LONG, "a longer one")
            self.more()

    def _is_cut(self, error: FieldError) -> bool:
        """Return whether a value fails to parse only because the rest has not been read yet."""
        try:
            json.JSONDecoder().raw_decode(self.text, self.at)
        except json.JSONDecodeError as found:
            return found.pos >= len(self.text) - _NEAR_END or found.msg.startswith("Unterminated string")
        except (RecursionError, ValueError):
            return False
        return False


def _whole_characters(data: bytes) -> int:
    """Return how many of the bytes form complete UTF-8 characters."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:  # the first byte of a character
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if back < length else len(data)
        if byte < 0x80:
            break
    return len(data)


def _stream(path: str | PathLike[str], text: _Text, problem: Problem, listed: bool) -> Iterator[tuple[int, Any]]:
    """Yield the items of a list, or concatenated objects; a single object may wrap a list of them."""
    number = 1
    try:
        try:
            text.more()
            wrapper = None if listed else _WRAPPER.match(text.text)
            if listed or wrapper is not None:
                text.at = text.text.index("[", wrapper.end() if wrapper else 0) + 1
                for number, value in _items(text, problem):
                    yield number, value
                if wrapper is not None:
                    _rest_of_wrapper(text, wrapper[1])
                if text.skip_space():
                    bad_json("end of the list", text.text, text.at, "text after the list")
                return
            while text.skip_space():
                value, *written = text.value("value")
                wrapped = records_within(value) if number == 1 and not text.skip_space() else None
                if wrapped is not None:
                    yield from enumerate(wrapped, 1)
                    return
                if _passes(value, written, "value", number, problem):
                    yield number, value
                number += 1
                if text.skip_space() == ",":  # objects of a list without its brackets
                    text.at += 1
        except _ItemError as error:
            number = error.number
            raise error.error from None
    except FieldError as error:
        if error.field in ("text", "file"):
            raise TltrainError(f"{path}: {error}") from None
        raise RecordError(path, number, error) from None


class _ItemError(Exception):
    def __init__(self, number: int, error: FieldError) -> None:
        self.number, self.error = number, error


def _items(text: _Text, problem: Problem) -> Iterator[tuple[int, Any]]:
    number = 1
    try:
        more = text.skip_space() != "]"
        while more:
            value, *written = text.value("item")
            if _passes(value, written, "item", number, problem):
                yield number, value
            more = text.skip_space() == ","
            if more:
                number, text.at = number + 1, text.at + 1
        if text.skip_space() != "]":
            bad_json("item", text.text, text.at, "expected `,` or `]` after it")
        text.at += 1
    except FieldError as error:
        raise _ItemError(number, error) from None


def _rest_of_wrapper(text: _Text, name: str) -> None:
    """Read what follows the list `name` in the object that wraps it.

    Raises:
        FieldError: it contains another list of objects.
    """
    while text.skip_space() == ",":
        text.at += 1
        text.skip_space()
        key, *_ = text.value("wrapper")
        if text.skip_space() != ":":
            bad_json("wrapper", text.text, text.at, "expected `:`")
        text.at += 1
        text.skip_space()
        value, *_ = text.value("wrapper")
        if _holds_objects(value):
            _check_alone([name, str(key)])
    if text.skip_space() != "}":
        bad_json("wrapper", text.text, text.at, "expected `,` or `}` after the list")
    text.at += 1


def _passes(value: Any, written: list[Any], where: str, number: int, problem: Problem) -> bool:
    text, repeated = written
    try:
        check(value, text, where, repeated)
    except FieldError as error:
        problem(number, error)
        return False
    return True
