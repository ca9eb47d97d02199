"""A call as text, `name(k=value, k=value)`: written for training, and read back from any text of a model.

The reader evaluates nothing. It is not Python's parser, because tools have names such as `preferred-routes_get` and
parameters names such as `from` or `:edoc`. It reads the text once, left to right, in linear time:

    call      = name "(" [ item { "," item } [ "," ] ] ")"      the text after the ")" is ignored
    name      = everything before the first "("
    item      = parameter "=" value | value                     a value alone is positional: counted, not stored
    parameter = no "=", "(", ")" or ",", and no quote, "[" or "{" at its start; then any number of "=" word
    value     = a Python or JSON literal that JSON can represent

White space around each part is ignored. Anything else raises `CallSyntaxError`. ("=" word: RoTBench has a tool with a
parameter named `return_err_outputpersistent=False`; since no value is followed by "=", this is unambiguous.)
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
"""Deepest nesting of lists and dicts that is read; no intended call is deeper, and the limit bounds the recursion."""

MAX_DIGITS = 1000
"""Longest number that is read: `int` takes quadratic time and refuses more than 4,300 digits."""


UNREADABLE = "(not a call) "
"""Prefix of the line that replaces an unreadable call, or one that the TL format cannot express; the reason follows."""


class CallSyntaxError(TltrainError):
    """The text is not a call; the message says what is wrong and at which character (counted from 1)."""


class UnclosedStringError(CallSyntaxError):
    """The text ends inside a string, so the whole rest belongs to an argument."""


def read_call(text: str) -> Call:
    """Return the call that `text` begins with.

    Literals are those of Python and of JSON: single, double and triple quotes with the escapes of both languages and
    raw line breaks, integers, floats, `True`/`true`, `None`/`null`, lists, tuples (become lists), dicts (keys that are
    not strings are written as `json.dumps` would). If a parameter or key is repeated, the last one counts. The result
    can always be written as JSON in UTF-8: it contains no NaN, no infinity and no lone surrogate.

    Raises:
        CallSyntaxError: the text does not begin with a call. No text raises any other exception.
    """
    return _scan(text)[0]


def read_calls(text: str) -> list[Call]:
    """Return all calls at the beginning of `text`: one after another, or `[f(...), g(...)]` as BFCL asks for.

    White space, commas and semicolons may separate calls. The name of any call but the first contains no space and no
    quote, so that words after a call, or the next role of a conversation, are not taken for a call. Never raises.
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
    """Return the calls at the beginning of `text` (`read_calls`); unreadable calls among them are returned as text.

    A call marked with `UNREADABLE` ends at the end of its line, and calls may follow. Any other broken call takes the
    whole rest, since nothing marks its end; so does a text that does not begin with a call. Never raises.
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
    """Return the literal that starts at `at`, and the index just after it; raise CallSyntaxError as `read_call`."""
    value, end = _value(text, at, 0)
    if surrogate := _SURROGATE.search(text, at, end):
        _fail("a lone surrogate", surrogate.start())
    return value, end


def call_end(text: str) -> int | None:
    """Return the index just after the `)` of the call that `text` begins with; None until the call is complete."""
    try:
        return _scan(text)[1]
    except CallSyntaxError:
        return None


def has_trailing_text(text: str) -> bool:
    """Return whether the call that `text` begins with is followed by text other than white space."""
    end = call_end(text)
    return end is not None and bool(text[end:].strip())


def render_call(call: Call) -> str:
    """Return `name(k=value, k=value)`, each value by `json.dumps(ensure_ascii=False)`: the paper's format.

    `read_call` returns the same call if the values are JSON (any Unicode text; finite numbers of at most `MAX_DIGITS`
    digits; nesting up to `MAX_DEPTH`) and the names are valid: not empty, no white space at either end, no `(` in the
    tool's name, and parameters' names as in the grammar above.
    """
    arguments = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
    return f"{call.name}({', '.join(arguments)})"


_LONGEST_REASON = 300
"""Most characters that are read of a reason after `UNREADABLE`; it may quote a long text of a model."""
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
    """Return the index of the first character from `at` on that is not white space."""
    return _end(_SPACE, text, at)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Return the index just after the match of `pattern` at `at`; `at` itself if there is no match."""
    found = pattern.match(text, at)
    return found.end() if found else at


def _scan(text: str, start: int = 0) -> tuple[Call, int]:
    """Return the call that begins at `start`, and the index just after it."""
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
    """Return the index of the next item after a comma, or of the `closing` bracket; raise if neither is at `at`."""
    at = _skip(text, at)
    if text.startswith(",", at):
        return _skip(text, at + 1)
    if not text.startswith(closing, at):
        _fail(f"expected `,` or `{closing}`", at)
    return at


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    """Return the literal that starts at `at`, and the index just after it."""
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
    except ValueError:  # such as 007 or 1__0, which are numbers in neither language
        _fail("not a number", at)
    if isinstance(number, float) and math.isinf(number):  # isinf raises on a large int
        _fail("a number too large for JSON", at)
    return number, found.end()


def _string(text: str, at: int, raw: bool = False) -> tuple[str, int]:
    """Read a string; as in Python, adjacent strings are joined."""
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
                return _SIMPLE_ESCAPES.get(other, escape[0])  # Python keeps the backslash of an unknown escape
        except (ValueError, OverflowError, KeyError):
            _fail("a broken escape", start + escape.start())
        if _SURROGATE.match(char):
            _fail("a lone surrogate", start + escape.start())
        return char

    return _ESCAPE.sub(character, body)


def _sequence(text: str, at: int, depth: int) -> tuple[Any, int]:
    """Read a list, or a tuple as a list; a single value in parentheses without a comma is that value, as in Python."""
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
