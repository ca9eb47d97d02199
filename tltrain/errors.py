"""Errors a user can cause. Each is one line; `__main__` prints it and exits with status 1."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 900
"""Maximum number of characters in an error line. A longer one quotes a value from a file and would hide the remedy."""


class TltrainError(Exception):
    """A mistake in the command line, the configuration, a file or the machine: one line that says what to do.

    Args:
        line: what went wrong and the remedy. It may quote long values with line breaks: line breaks become spaces, and
            a line over `LONGEST` characters loses its middle.
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


class Diverged(TltrainError):
    """A loss, a gradient or a probability is not finite, so that training cannot go on.

    Args:
        line: which one, where, and the remedy.
    """

    SAYS = "training diverged: "
    """What every such line begins with: a script that runs trainings tells them from other failures by it."""

    def __init__(self, line: str) -> None:
        super().__init__(self.SAYS + line)


class FieldError(TltrainError):
    """A field of a record does not have the value that its format prescribes.

    Raised by the parser of a single record, which knows neither file nor position;
    `tltrain.data.reading` adds both and turns it into a `RecordError`.

    Args:
        field: where in the record, e.g. `conversations[3].content`.
        expected: what the format requires there.
        found: the value found there (shortened in the message).
        remedy: what to do, if `expected` does not say it.
    """

    def __init__(self, field: str, expected: str, found: object, remedy: str = "") -> None:
        self.field, self.expected, self.found, self.remedy = field, expected, found, remedy
        shown = found if isinstance(found, str) else repr(found)
        # The field's name and the expectation may come from the data too.
        line = f"{shorten(field, 160)}: expected {shorten(expected, 300)}, found {shorten(shown)}"
        super().__init__(f"{line}; {remedy}" if remedy else line)


class RecordError(TltrainError):
    """A `FieldError` with its file and record number (1-based); `following` says what is wrong in later records."""

    def __init__(self, path: object, record: int, error: FieldError, following: str = "") -> None:
        self.path, self.record, self.error = path, record, error
        super().__init__(f"{path}, record {record}: {error}{following}")


def _without_middle(line: str) -> str:
    """Return the beginning and the end of a long line. Words stay whole: part of a secret would not be masked later."""
    if len(line) <= LONGEST:
        return line
    first, last = line[: LONGEST * 2 // 3], line[-(LONGEST // 3 - 3) :]
    if " " in first:
        first = first.rpartition(" ")[0]
    if " " in last:
        last = last.partition(" ")[2]
    return f"{first} … {last}"


def shorten(text: str, limit: int = 80) -> str:
    """Return `text` on one line, cut to `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def suggestion(word: str, choices: Iterable[object]) -> str:
    """Return `; did you mean ...?` if one of `choices` is close to `word`, else an empty string."""
    near = difflib.get_close_matches(word, [str(choice) for choice in choices], n=1)
    return f"; did you mean {near[0]}?" if near else ""
