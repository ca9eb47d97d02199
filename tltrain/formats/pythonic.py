"""A list of calls in Python's syntax, `[name(key='value'), name()]`, as LFM2's template writes it.

The template writes strings between single quotes without escaping them. Each value is read as such a string if
possible, otherwise as a Python or JSON literal (`calls.read_value`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tltrain.formats.calls import CallSyntaxError, read_value
from tltrain.formats.native import Attempt
from tltrain.trajectory import Call

_NAME = re.compile(r"\s*([\w.-]+)\(\s*")
_KEY = re.compile(r"([\w.-]+)\s*=\s*")
_PLAIN = re.compile(r"'([^']*)'(?=\s*[,)])")
_BETWEEN = re.compile(r"\s*,\s*")
_CLOSED = re.compile(r"\s*\)\s*")
_NEXT = re.compile(r"\)\s*,(?=\s*[\w.-]+\()")
"""Where the next call may begin after one that cannot be read."""


def read_list(text: str) -> Iterator[Attempt]:
    """Yield the calls of a list; unreadable text is one attempt, up to where the next call begins."""
    body = text.strip()
    if not body.startswith("["):
        yield Attempt(None, "the calls are no list", text)
        return
    at = 1
    while True:
        start = at
        try:
            call, at = _call(body, at)
            if body[at : at + 1] not in (",", "]") or (body[at] == "]" and at + 1 < len(body)):
                what = f"expected a comma or the end of the list at character {at + 1}"
                raise CallSyntaxError("the list of calls is not closed" if at >= len(body) else what)
        except CallSyntaxError as error:
            following = _NEXT.search(body, at)
            end = following.end() if following else len(body)
            yield Attempt(None, f"the call cannot be read: {_brief(error)}", body[start:end])
            if not following:
                return
            at = end
            continue
        yield Attempt(call)
        if body[at] == "]":
            return
        at += 1


def _call(text: str, at: int) -> tuple[Call, int]:
    """Return the call that begins at `at`, and the index of the next character after it that is not white space."""
    if not (name := _NAME.match(text, at)):
        raise CallSyntaxError(f"expected the name of a tool at character {at + 1}")
    at = name.end()
    arguments = {}
    while not (closed := _CLOSED.match(text, at)):
        if not (key := _KEY.match(text, at)):
            raise CallSyntaxError(f"expected a parameter's name at character {at + 1}")
        at = key.end()
        if plain := _PLAIN.match(text, at):
            arguments[key[1]], at = plain[1], plain.end()
        else:
            arguments[key[1]], at = read_value(text, at)
        between = _BETWEEN.match(text, at)
        if not between and not _CLOSED.match(text, at):
            raise CallSyntaxError(f"expected a comma or the end of the call at character {at + 1}")
        at = between.end() if between else at
    return Call(name[1], arguments), closed.end()


def _brief(error: CallSyntaxError) -> str:
    return str(error).removeprefix("not a call: ").replace("(", "[").replace(")", "]")
