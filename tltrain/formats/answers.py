"""Read a tool's answer as structure: JSON, or as much as can be read of similar text. Nothing is ever evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_TOKEN = re.compile(
    r"""(?P<string>"[^"\\]*(?:\\.[^"\\]*)*"?|'[^'\\]*(?:\\.[^'\\]*)*'?)"""
    r"""|(?P<mark>[{}\[\](),:])|(?P<word>[^\s"'{}\[\](),:]+)""",
    re.DOTALL,
)
_ESCAPE = re.compile(r'\\(.)|"', re.DOTALL)
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_NESTING = 64  # the deepest nesting that is repaired
_CLOSERS = {"{": "}", "[": "]", "(": "]"}


def read_structure(text: str) -> tuple[Any, bool]:
    """Return the value that a text spells, and whether the whole text is JSON.

    If it is not JSON, return what can be read: Python literals, the value at the beginning of a longer text, the
    complete members of a value that is cut off. The value is None if nothing can be read.
    """
    try:
        return json.loads(text, strict=False), True
    except (ValueError, RecursionError):
        pass
    for candidate in _repaired(text):
        try:
            return json.loads(candidate, strict=False), False
        except (ValueError, RecursionError):
            continue
    return None, False


def _repaired(text: str) -> Iterator[str]:
    """Yield JSON for the value that a text begins with: closed where it breaks off, then without its last member.

    Python's words, quotes and tuples are translated to JSON token by token, so nothing is evaluated (and nothing can
    overflow a parser's stack).
    """
    parts: list[str] = []
    open_marks: list[str] = []
    last_member: tuple[int, list[str]] | None = None
    for token in _TOKEN.finditer(text):
        mark = token["mark"]
        if mark is None:
            parts.append(_json_string(token["string"]) if token["string"] else _json_word(token["word"]))
        elif mark in _CLOSERS:
            open_marks.append(_CLOSERS[mark])
            parts.append("{" if mark == "{" else "[")
            if len(open_marks) > _NESTING:
                return
        elif not open_marks:  # it begins with a mark that can only follow a value
            return
        elif mark in "}])":
            open_marks.pop()
            parts.append("}" if mark == "}" else "]")
        else:
            if mark == ",":
                last_member = len(parts), open_marks[:]
            elif parts[-1] not in "[{" and not parts[-1].startswith('"'):
                parts[-1] = json.dumps(parts[-1])  # JSON's keys are strings, Python's may be numbers
            parts.append(mark)
        if not open_marks:  # the value is complete; what follows is not part of it
            break
    yield "".join(parts + open_marks[::-1])
    if last_member:
        end, marks = last_member
        yield "".join(parts[:end] + marks[::-1])


def _json_word(word: str) -> str:
    """Return a bare word as JSON: Python's constants translated, numbers unchanged, anything else as a string."""
    return _WORDS.get(word) or (word if re.fullmatch(r"-?[0-9][0-9.eE+-]*", word) else json.dumps(word))


def _json_string(token: str) -> str:
    """Return a string in single or double quotes, closed or cut off, with JSON's quotes and escapes."""
    content = token[1:-1] if len(token) > 1 and token[-1] == token[0] else token[1:]
    return '"' + _ESCAPE.sub(_json_escape, content) + '"'


def _json_escape(escape: re.Match[str]) -> str:
    character = escape[1]
    if character is None:
        return '\\"'
    if character == "x":  # \x41
        return "\\u00"
    return f"\\{character}" if character in '"\\/bfnrtu' else json.dumps(character)[1:-1]
