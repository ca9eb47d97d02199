"""Judge a tool's answer as text: by its beginning, its last line, or as a whole; never by words in its middle."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tltrain.formats.error_rule import Pattern, Rule

_MESSAGE_LENGTH = 1000  # a longer text is not an error message as a whole, although it may begin like one
_MESSAGE_LINES = 8
_LINE_LENGTH = 500
_LINES = 60  # how many lines at either end are examined

_ESCAPES = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")  # colours of a terminal
_DECORATION = re.compile(r"\A[\s*_>❌❗‼⚠️🚫⛔✗✘✖×🔴🛑💥]+")  # bold type, quote marks of e-mails, and symbols
_URL_LINE = re.compile(r"\s*<?(?:https?://|www\.)\S+>?\s*$", re.IGNORECASE)
_LIST_LINE = re.compile(r"(?:\[\d{1,3}\]|\d{1,3}[.)]|[-•–])\s|[^\s:]{1,100}:\d{1,7}:(?![\d\s])")  # also grep's
_LOG_LINE = re.compile(r"[\[(<]?(?:\d{4}-\d\d-\d\d|\d\d:\d\d(?::\d\d)?\b|[A-Z][a-z]{2} [ \d]\d \d\d:)")
_TRACEBACK = "Traceback (most recent call last)"


def text_kind(text: str, rule: Rule) -> str | None:
    """Return the kind of error a text is; None if it is not an error."""
    text = _cleaned(text)
    if not text:
        return None
    lines = _lines(text)
    failed = _exit_status(lines, rule)
    if failed is False:
        return None
    kind = _traceback_kind(lines, rule) or _first_line_kind(text, lines, rule) or _other_lines_kind(lines, rule)
    return kind or ("exit_code" if failed else None)


def _cleaned(text: str) -> str:
    """Return the text without a terminal's colours, and without symbols and bold type before its first word."""
    text = _ESCAPES.sub("", text) if "\x1b" in text else text
    return _DECORATION.sub("", text).strip()


def _lines(text: str) -> list[str]:
    """Return the lines that are not blank; from a long text only those at either end."""
    if len(text) > 2 * _LINES * _LINE_LENGTH:
        text = text[: _LINES * _LINE_LENGTH] + "\n" + text[-_LINES * _LINE_LENGTH :]
    lines = [line.rstrip()[:_LINE_LENGTH] for line in text.splitlines() if line.strip()]
    return lines if len(lines) <= 2 * _LINES else lines[:_LINES] + lines[-_LINES:]


def _exit_status(lines: list[str], rule: Rule) -> bool | None:
    """Return whether one of the first or last three lines has a nonzero exit status; None if no line has a status."""
    if rule.exit_status is None:
        return None
    for line in dict.fromkeys([*lines[:3], *lines[:-4:-1]]):
        if found := rule.exit_status.match(line.strip()):
            return int(next(filter(None, found.groups()))) != 0
    return None


def _first_line_kind(text: str, lines: list[str], rule: Rule) -> str | None:
    if len(lines) > 1 and (_URL_LINE.match(lines[1]) or _LIST_LINE.match(lines[0])):  # the results of a search
        return None
    first = lines[0]
    short = len(text) <= _MESSAGE_LENGTH and len(lines) <= _MESSAGE_LINES
    short = short and not (rule.explains and rule.explains.match(first))
    for message in _peeled(text[:_MESSAGE_LENGTH], rule):
        line = message.partition("\n")[0].rstrip().rstrip(".!。！।").rstrip()
        ascii_only = line.isascii()
        for pattern in rule.patterns:
            if pattern.starts and pattern.starts.match(message):
                return pattern.kind
            if short and pattern.whole and (pattern.latin or not ascii_only) and pattern.whole.fullmatch(line):
                return pattern.kind
    return None


def _peeled(message: str, rule: Rule) -> list[str]:
    """Return the message without its prefixes ("Error: TypeError: ..."), then with one prefix more each time."""
    messages = [message]
    while len(messages) < 4 and rule.prefixes and (prefix := rule.prefixes.match(messages[0])):
        messages.insert(0, message := message[prefix.end() :])
    return messages


def _other_lines_kind(lines: list[str], rule: Rule) -> str | None:
    """Judge by the last line or any other: the output of a command, or a stack trace of another language."""
    if sum(map(bool, map(_LOG_LINE.match, lines))) > 1:  # a log that was asked for
        return None
    for pattern in rule.patterns:
        if len(lines) > 1 and pattern.ends and pattern.ends.match(lines[-1]):
            return pattern.kind
        if pattern.lines and any(map(pattern.lines.match, lines)):
            return pattern.kind
    return None


def _traceback_kind(lines: list[str], rule: Rule) -> str | None:
    """Judge a Python traceback at the end of the text by its last line, which says what happened."""
    begins = next((n for n in reversed(range(len(lines))) if lines[n].startswith(_TRACEBACK)), None)
    if begins is None:
        return None
    told = [line for line in lines[begins + 1 :] if not line.startswith((" ", "\t"))]
    if len(told) > 8:  # the trace is an example in a longer text
        return None
    kinds = (_message_kind(message, rule) for line in told for message in _peeled(line, rule))
    return next(filter(None, kinds), "python_exception")


def _message_kind(message: str, rule: Rule) -> str | None:
    found: Iterator[Pattern] = (
        pattern
        for pattern in rule.patterns
        if (pattern.starts and pattern.starts.match(message)) or (pattern.whole and pattern.whole.fullmatch(message))
    )
    return next((pattern.kind for pattern in found), None)
