"""Errors a user can cause. Each is one line; `__main__` prints it and exits with status 1."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 900
"""Characters of an error line. A longer one quotes a value of a file, and nobody would find the remedy behind it."""


class TltrainError(Exception):
    """A mistake in the command line, the configuration, a file or the machine: one line that says what to do.

    Args:
        line: what went wrong and the remedy. It may quote values of any length with line breaks: those are replaced by
            spaces, and of a line over `LONGEST` characters the middle is left out.
    """

    def __init__(self, line: str) -> None:
        super().__init__(_without_middle(" ".join(filter(None, line.splitlines()))))


class NotPassed(Exception):
    """A run that ended well and whose verdict is no: its own exit status tells scripts so.

    Args:
        line: the verdict in one line. status: the exit status.
    """

    def __init__(self, line: str, status: int) -> None:
        self.status = status
        super().__init__(line)


class FieldError(TltrainError):
    """One field of one record is not what its format says.

    Raised by the parser of a single record, which knows neither file nor position;
    `tltrain.data.reading` adds both and turns it into a `RecordError`.

    Args:
        field: where in the record, e.g. `conversations[3].content`.
        expected: what the format asks for there.
        found: what stands there (shortened before it is shown).
        remedy: what to do, where it is more than what is expected.
    """

    def __init__(self, field: str, expected: str, found: object, remedy: str = "") -> None:
        self.field, self.expected, self.found, self.remedy = field, expected, found, remedy
        shown = found if isinstance(found, str) else repr(found)
        # A field's name may come from the data too, and so may what is expected.
        line = f"{shorten(field, 160)}: expected {shorten(expected, 300)}, found {shorten(shown)}"
        super().__init__(f"{line}; {remedy}" if remedy else line)


class RecordError(TltrainError):
    """A `FieldError` with its file and record number (1-based); `following` says what is wrong in the records after."""

    def __init__(self, path: object, record: int, error: FieldError, following: str = "") -> None:
        self.path, self.record, self.error = path, record, error
        super().__init__(f"{path}, record {record}: {error}{following}")


def _without_middle(line: str) -> str:
    """The beginning and the end of a long line. Words stay whole: a part of a secret would not be masked later."""
    if len(line) <= LONGEST:
        return line
    first, last = line[: LONGEST * 2 // 3], line[-(LONGEST // 3 - 3) :]
    if " " in first:
        first = first.rpartition(" ")[0]
    if " " in last:
        last = last.partition(" ")[2]
    return f"{first} … {last}"


def shorten(text: str, limit: int = 80) -> str:
    """`text` on one line, cut to `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def suggestion(word: str, choices: Iterable[object]) -> str:
    """`; did you mean ...?` where one of `choices` is near `word`."""
    near = difflib.get_close_matches(word, [str(choice) for choice in choices], n=1)
    return f"; did you mean {near[0]}?" if near else ""
