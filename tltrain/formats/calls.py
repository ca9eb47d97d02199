"""A call as text, `name(k=value, k=value)`: written for training, read back from whatever a model said.

The reader is not Python's parser, because tools are named `preferred-routes_get` and parameters `from` or `:edoc`, and
it evaluates nothing. It goes over the text once, left to right, in linear time:

    call      = name "(" [ item { "," item } [ "," ] ] ")"      what follows the ")" is not looked at
    name      = everything before the first "("
    item      = parameter "=" value | value                     a value alone is positional: counted, not kept
    parameter = no "=", "(", ")" or ",", and no quote, "[" or "{" at its start; then any number of "=" word
    value     = a Python or JSON literal that JSON can hold

Space around each part is free. Anything else raises `CallSyntaxError`. ("=" word: RoTBench has a tool with a parameter
named `return_err_outputpersistent=False`; since no value is followed by "=", that can be told from a value.)
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from typing import Any, NoReturn

from tltrain.errors import TltrainError
from tltrain.trajectory import Call

MAX_DEPTH = 100
"""Lists and dicts nested deeper than this are no call anybody meant; the limit keeps recursion bounded."""

MAX_DIGITS = 1000
"""Longest number read: `int` takes quadratic time, and refuses from 4,300 digits on."""


UNREADABLE = "(not a call) "
"""Begins a call that has no place in the TL format, or that could not be read in another, and the reason."""


class CallSyntaxError(TltrainError):
    """Text that is no call: what is wrong, and at which character (counted from 1)."""


class UnclosedStringError(CallSyntaxError):
    """The text breaks off inside a string: all that follows is an argument's."""


def read_call(text: str) -> Call:
    """The call that `text` begins with.

    Literals are those of Python and of JSON: single, double and triple quotes with the escapes of both languages and
    raw line breaks, integers, floats, `True`/`true`, `None`/`null`, lists, tuples (become lists), dicts (keys that are
    not strings are written as `json.dumps` would). Of a repeated parameter or key the last counts. What is returned
    can always be written as JSON in UTF-8: there is no NaN, no infinity and no lone surrogate in it.

    Raises:
        CallSyntaxError: the text cannot be read so; never another exception, whatever the text.
    """
    return _scan(text)[0]


def read_calls(text: str) -> list[Call]:
    """All calls that `text` begins with: one after another, or `[f(...), g(...)]` as the Berkeley benchmark asks for.

    Between two calls may stand space, commas and semicolons. A later call's name holds no space and no quote, so that
    words which follow a call, or the next role of a conversation, are not taken for another. Never raises.
    """
    at = _end(_LIST_OPENS, text, 0)
    calls: list[Call] = []
    while not calls or _NEXT_CALL.match(text, at):
        try:
            call, end = _scan(text, at)
        except CallSyntaxError:
            break
        calls.append(call)
        at = _end(_BETWEEN_CALLS, text, end)
    return calls


def split_calls(text: str) -> list[Call | str]:
    """All calls that `text` begins with (`read_calls`), and as text what stands in place of a call and cannot be read.

    What is marked by `UNREADABLE` ends with its line, and calls may follow. Any other broken call takes all that
    follows, since nothing says where it ends. A text that begins with no call is one such part. Never raises.
    """
    at = _end(_LIST_OPENS, text, 0)
    parts: list[Call | str] = []
    while not parts or text.startswith(UNREADABLE, at) or _NEXT_CALL.match(text, at):
        try:
            part, end = _scan(text, at)
            parts.append(part)
        except CallSyntaxError:
            line = text.find("\n", at) if text.startswith(UNREADABLE, at) else -1
            end = len(text) if line < 0 else line
            parts.append(text[at if parts else 0 : end])
        at = _end(_BETWEEN_CALLS, text, end)
    return parts


def read_value(text: str, at: int) -> tuple[Any, int]:
    """The literal that starts at `at`, and the index just after it. Raises CallSyntaxError as `read_call` does."""
    value, end = _value(text, at, 0)
    if surrogate := _SURROGATE.search(text, at, end):
        _fail("a lone surrogate", surrogate.start())
    return value, end


def call_end(text: str) -> int | None:
    """Index just after the `)` that closes the call `text` begins with; None while there is no complete call."""
    try:
        return _scan(text)[1]
    except CallSyntaxError:
        return None


def render_call(call: Call) -> str:
    """`name(k=value, k=value)`, each value by `json.dumps(ensure_ascii=False)`: the paper's format.

    `read_call` gives the same call back whatever the values, if they are JSON (any Unicode text; finite numbers of at
    most `MAX_DIGITS` digits; nesting to `MAX_DEPTH`), and whatever the names, if they are neither empty nor begin or
    end with space, the tool's has no `(`, and the parameters' are as said at the top of this file.
    """
    arguments = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
    return f"{call.name}({', '.join(arguments)})"


_LONGEST_REASON = 300
"""Most characters of a reason behind `UNREADABLE`, which a model may have made long."""
_SPACE = re.compile(r"\s*")
_LIST_OPENS = re.compile(r"\s*(?:\[(?=[^\s\[\](){}'\",=]+\())?")
_BETWEEN_CALLS = re.compile(r"[\s,;]*")
_NEXT_CALL = re.compile(r"[^\s\[\](){}'\",;=]+\(")
_PARAMETER = re.compile(r"[^=(),]*+=(?:\s*+\w++\s*+=)*+")
_WORD = re.compile(r"[^\W\d]\w*")
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(
    r"[+-]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]+)?|[0-9][0-9_]*[eE][+-]?[0-9_]+)"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONSTANTS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}

# From an opening quote to the one that closes it; possessive, so that an unclosed string fails in linear time.
_STRINGS = {
    quote: re.compile(pattern.replace("Q", quote[0]), re.DOTALL)
    for one in "'\""
    for quote, pattern in (
        (one, r"Q([^Q\\]*+(?:\\.[^Q\\]*+)*+)Q"),
        (one * 3, r"QQQ([^Q\\]*+(?:(?:\\.|Q(?!QQ))[^Q\\]*+)*+)QQQ"),
    )
}
# The first alternative is a surrogate pair, JSON's way of writing a character above U+FFFF.
_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2}))|([0-7]{1,3})|N\{([^{}]{1,100})\}|(\r?\n|.))",
    re.DOTALL,
)
_SIMPLE_ESCAPES = {
    **{char: char for char in "\\'\"/"},
    **dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True)),
    **{"\n": "", "\r\n": ""},  # Python's line continuation
}


def _fail(problem: str, position: int, kind: type[CallSyntaxError] = CallSyntaxError) -> NoReturn:
    raise kind(f"not a call: {problem} at character {position + 1}")


def _skip(text: str, at: int) -> int:
    """The position of the first character from `at` on that is not space."""
    return _end(_SPACE, text, at)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """The position just after what `pattern` matches at `at`; `at` itself where it matches nothing."""
    found = pattern.match(text, at)
    return found.end() if found else at


def _scan(text: str, start: int = 0) -> tuple[Call, int]:
    """The call that begins at `start`, and the index just after it."""
    if text.startswith(UNREADABLE, start):
        raise CallSyntaxError(f"not a call: {text[start + len(UNREADABLE) :][:_LONGEST_REASON]}")
    opening = text.find("(", start)
    if opening < 0:
        _fail("no `(`", len(text))
    name = text[start:opening].strip()
    if not name:
        _fail("no name before `(`", opening)
    arguments: dict[str, Any] = {}
    positional = 0
    at = _skip(text, opening + 1)
    while text[at : at + 1] != ")":
        parameter = None if text[at : at + 1] in ("'", '"', "[", "{") else _PARAMETER.match(text, at)
        value, after = _value(text, _skip(text, parameter.end()) if parameter else at, 0)
        if parameter:
            key = parameter[0][:-1].strip()
            if not key:
                _fail("no name before `=`", at)
            arguments[key] = value
        else:
            positional += 1
        at = _separator(text, after, ")")
    surrogate = _SURROGATE.search(text, start, at)
    if surrogate:
        _fail("a lone surrogate", surrogate.start())
    return Call(name, arguments, positional), at + 1


def _separator(text: str, at: int, closing: str) -> int:
    """Past a comma to what comes next, or to the `closing` bracket, which must stand here if no comma does."""
    at = _skip(text, at)
    if text.startswith(",", at):
        return _skip(text, at + 1)
    if not text.startswith(closing, at):
        _fail(f"expected `,` or `{closing}`", at)
    return at


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    """The literal that starts at `at`, and the index just after it."""
    first = text[at : at + 1]
    if first in ("'", '"'):
        return _string(text, at)
    if first in ("[", "(", "{"):
        if depth == MAX_DEPTH:
            _fail(f"nesting deeper than {MAX_DEPTH}", at)
        return _dict(text, at, depth + 1) if first == "{" else _sequence(text, at, depth + 1)
    if word := _WORD.match(text, at):
        if word[0] in _CONSTANTS:
            return _CONSTANTS[word[0]], word.end()
        if word[0] in ("u", "U", "r", "R") and text[word.end() : word.end() + 1] in ("'", '"'):
            return _string(text, word.end(), raw=word[0] in "rR")
        _fail("a bare word where a value was expected", at)
    return _number(text, at)


def _number(text: str, at: int) -> tuple[int | float, int]:
    found = _FLOAT.match(text, at) or _INTEGER.match(text, at)
    if not found:
        _fail("expected a value", at)
    if found.end() - at > MAX_DIGITS:
        _fail(f"a number of more than {MAX_DIGITS} digits", at)
    try:
        number = float(found[0]) if found.re is _FLOAT else int(found[0], 0)
    except ValueError:  # such as 007 or 1__0, in neither language a number
        _fail("not a number", at)
    if isinstance(number, float) and math.isinf(number):  # of a large int it cannot be asked
        _fail("a number too large for JSON", at)
    return number, found.end()


def _string(text: str, at: int, raw: bool = False) -> tuple[str, int]:
    """A string; like Python, one written in several pieces side by side."""
    pieces = []
    while text[at : at + 1] in ("'", '"'):
        quote = text[at]
        found = _STRINGS[quote * 3 if text.startswith(quote * 3, at) else quote].match(text, at)
        if not found:
            _fail("an unclosed string opened", at, UnclosedStringError)
        pieces.append(found[1] if raw or "\\" not in found[1] else _unescape(found[1], found.start(1)))
        raw, after = False, found.end()
        at = _skip(text, after)
    return "".join(pieces), after


def _unescape(body: str, start: int) -> str:
    def character(escape: re.Match[str]) -> str:
        high, low, u4, u8, x2, octal, named, other = escape.groups()
        if high:
            return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF))
        try:
            if code := u4 or u8 or x2:
                char = chr(int(code, 16))
            elif octal:
                char = chr(int(octal, 8))
            elif named:
                char = unicodedata.lookup(named)
            elif other in "uUxN":
                raise ValueError(other)
            else:
                return _SIMPLE_ESCAPES.get(other, escape[0])  # Python keeps the backslash of one it does not know
        except (ValueError, OverflowError, KeyError):
            _fail("a broken escape", start + escape.start())
        if _SURROGATE.match(char):
            _fail("a lone surrogate", start + escape.start())
        return char

    return _ESCAPE.sub(character, body)


def _sequence(text: str, at: int, depth: int) -> tuple[Any, int]:
    """A list, or a tuple as a list; one value in round brackets without a comma is that value, as in Python."""
    closing = "]" if text[at] == "[" else ")"
    items: list[Any] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] != closing:
        value, after = _value(text, at, depth)
        items.append(value)
        at = _separator(text, after, closing)
    bare = closing == ")" and len(items) == 1 and text[_skip(text, after)] == ")"
    return items[0] if bare else items, at + 1


def _dict(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    items: dict[str, Any] = {}
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        key, colon = _value(text, at, depth)
        if isinstance(key, list | dict):
            _fail("a list or dict as a key", at)
        colon = _skip(text, colon)
        if not text.startswith(":", colon):
            _fail("expected `:`", colon)
        value, after = _value(text, _skip(text, colon + 1), depth)
        items[key if isinstance(key, str) else json.dumps(key)] = value
        at = _separator(text, after, "}")
    return items, at + 1
