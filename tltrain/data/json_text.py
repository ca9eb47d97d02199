"""Parse JSON text into values. Whatever the text is, the only error is a FieldError."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import chain
from typing import Any, NoReturn

from tltrain.errors import FieldError, shorten

MAX_DEPTH = 100
"""The deepest nesting of JSON accepted; it keeps every recursion over a record far from Python's limit."""

ONCE = "each key of an object once"
"""The expectation, for errors, if an object has a key twice: nobody can tell which value is meant."""


def parse_json(text: str, where: str, once: bool = True) -> Any:
    """Parse `text` as a single JSON value.

    Args:
        once: refuse an object that has a key twice; otherwise the last value counts.

    Raises:
        FieldError: it is not JSON, has more than one value, NaN, an infinity, a repeated key or a lone surrogate, or
            is nested deeper than `MAX_DEPTH`. No other exception is raised.
    """
    value, end, repeated = raw_json(text, 0, where)
    check(value, text[:end], where, repeated if once else None)
    end = skip_space(text, end)
    if end < len(text):
        bad_json(where, text, end, "text after the value")
    return value


def parse_json_at(text: str, at: int, where: str) -> tuple[Any, int]:
    """Return the JSON value that starts at `at` (after white space) and where it ends. Raises as `parse_json` does."""
    value, end, repeated = raw_json(text, at, where)
    check(value, text[at:end], where, repeated)
    return value, end


def raw_json(text: str, at: int, where: str) -> tuple[Any, int, str | None]:
    """Parse as `parse_json_at` does, without the checks beyond JSON's syntax.

    Returns:
        The value, where it ends, and a key that one of its objects has twice (None if there is none).
    """
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            repeated.append(next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1))
        return made

    decoder = json.JSONDecoder(object_pairs_hook=unique, parse_float=_finite, parse_constant=_no_constant)
    try:
        value, end = decoder.raw_decode(text, skip_space(text, at))
        return value, end, repeated[0] if repeated else None
    except json.JSONDecodeError as error:
        bad_json(where, text, error.pos, error.msg)
    except RecursionError:
        _too_deep(where)
    except ValueError as error:  # an infinite number or NaN
        raise FieldError(where, "valid JSON", str(error)) from None


def check(value: Any, text: str, where: str, repeated: str | None = None) -> None:
    """Raise FieldError for a repeated key, lone surrogates and deep nesting.

    The value is traversed only if its text could have one of the last two.
    """
    if repeated is not None:
        raise FieldError(where, ONCE, f"{shorten(repeated)} twice")
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


_SPACE = re.compile(r"[ \t\n\r]*")


def skip_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def bad_json(where: str, text: str, at: int, problem: str) -> NoReturn:
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


def decode(data: bytes) -> str:
    """Return UTF-8 as text. Raises FieldError with the command that converts another encoding."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = data[error.start : error.end].hex(" ")
        found = f"the byte {shown} at position {error.start + 1}"
        raise FieldError("text", "UTF-8", found, _recoding(data, error.start)) from None


_WORD_BEFORE, _WORD_AFTER = re.compile(r"[^\s\"{}\[\]:,]*$"), re.compile(r"[^\s\"{}\[\]:,]*")


def _recoding(data: bytes, at: int) -> str:
    """Return how to convert a text that is not UTF-8 at a byte, with that word in Windows-1252, the likeliest encoding.

    The user decides whether the word is right: detectors often take such short texts for another encoding of the same
    family, and a wrong conversion would change letters silently.
    """
    before, after = (part.decode("cp1252", "replace") for part in (data[max(at - 20, 0) : at], data[at : at + 20]))
    command = "iconv -f {} -t UTF-8 FILE > NEW"
    if after.startswith("\ufffd"):  # no such character there
        return f"{command.format('ENCODING')} converts it from its own encoding"
    word = _WORD_BEFORE.findall(before)[0] + (after[0] + _WORD_AFTER.findall(after[1:])[0])
    return (
        f"if {shorten(word)} is a word of it, {command.format('WINDOWS-1252')} converts it; "
        "otherwise put its own encoding there"
    )
