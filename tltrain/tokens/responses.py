"""Read the answers of a chat template with a response template of transformers.

The parser divides an answer into thought, calls and words. It stops at the first call that it cannot read, silently
skips parts of other calls, and keeps only one piece of the words. So it runs once for the pieces, with calls as text,
and again for each call alone; what it cannot read is an attempt with a reason.

Some response templates do not cover everything that their models write (`_mended`): harmony's calls with the recipient
after the channel, and its words before a call; several calls of Llama; names with a hyphen; LFM2's calls without
arguments.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tltrain.formats.native import UNREAD, Answer, Attempt, attempt_of, unread, unread_mark
from tltrain.formats.pythonic import read_list
from tltrain.trajectory import Tool

LONGEST_REASON = 160
"""Most characters of a library's reason that are kept."""
_THOUGHTS = ("reasoning_content", "thinking")
PROBE = "Qxz words."
"""Text that no template writes by itself."""
_REST = "rest"
"""The field for text that belongs to no other field."""


class _Piece(NamedTuple):
    """A part of an answer: its field, and the start and end of its text."""

    field: str
    start: int
    end: int


def read_response(
    text: str, prompt: str, response: Mapping[str, Any], tools: Sequence[Tool], special: Sequence[str]
) -> Answer:
    """Read an answer's text with a response template of transformers; unreadable calls keep their reason.

    Args:
        special: special tokens, which are removed from the answer's words, thought and unreadable calls.
    """
    mended = _mended(response)
    try:
        pieces, plain = _pieces(text, prompt, mended)
    except Exception as error:  # the parser may raise anything on untrusted text
        return Answer(text=_words(text, special), problem=f"the answer cannot be read: {_reason(error)}")
    attempts: list[Attempt] = []
    more: list[str] = []  # words at the end of a call's text
    done = 0
    for piece in pieces:
        if piece.field == "tool_calls":
            found, behind = _calls(text, done, piece, prompt, mended, tools)
            attempts += found
            more += behind
            done = piece.end
    rest = _words(re.sub(r"<\|start\|>\w*", "", str(plain.get(_REST) or "")), special)
    if re.search(r"\bto=|<\|message\|>", rest):
        attempts.append(Attempt(None, "a message addressed to no tool cannot be read", rest))
        rest = ""
    thought = _words(next((str(plain[name]) for name in _THOUGHTS if plain.get(name)), ""), special)
    beside = "\n".join(filter(None, (str(plain.get("content") or "").strip(), rest.strip(), *more)))
    words, problem = _words(beside, special), ""
    if not attempts:
        problem = "nothing follows the thought" if thought and not words else unread(beside.strip(), tools)
    elif unread_mark(beside, tools):
        attempts.append(Attempt(None, UNREAD, words))
    read = tuple(replace(attempt, raw=_words(attempt.raw, special)) for attempt in attempts)
    return Answer(thought, words, read, problem)


def _pieces(text: str, prompt: str, response: Mapping[str, Any]) -> tuple[list[_Piece], dict[str, Any]]:
    """Return the parts of an answer in order, calls as text, and for each field the content of all its parts."""
    from transformers.utils.chat_parsing import ResponseParser
    from transformers.utils.chat_parsing.response_templates import load_response_template

    template = load_response_template(_as_text(response))
    parser = ResponseParser(template, prefix=prompt)
    events = parser.feed(text)
    message, last = parser.finalize()
    pieces: list[_Piece] = []
    at = 0
    for event in (*events, *last):
        if event["type"] == "region_open":
            opened = template.fields[event["field"]].open_re
            if opened is not None and (mark := opened.search(text, at)):
                at = mark.end()
            pieces.append(_Piece(event["field"], at, at))
        elif event["type"] == "region_chunk":
            if not text.startswith(event["text"], at):  # after the mark that closed the previous part
                at = text.index(event["text"], at)
            at += len(event["text"])
            if pieces:
                pieces[-1] = pieces[-1]._replace(end=at)
    return pieces, message


def _calls(
    text: str, done: int, piece: _Piece, prompt: str, response: Mapping[str, Any], tools: Sequence[Tool]
) -> tuple[list[Attempt], list[str]]:
    """Return the calls in a part of an answer, and the words at its end.

    Args:
        done: where the previous call ends.
    """
    field, raw = response["fields"]["tool_calls"], text[piece.start : piece.end]
    if field.get("content") == "text":
        return [_offered(attempt, tools) for attempt in read_list(raw)], []
    if not raw.strip():
        return [Attempt(None, "the call is empty", raw)], []
    if field.get("content") == "json" and _OBJECT in field.get("open_pattern", ""):
        return _objects(text[done : piece.start], raw, field["open_pattern"], tools)
    try:
        entries = _parsed(text[done : piece.end], "" if done else prompt, response, tools)
        if not field.get("transform_each"):  # otherwise one text contains all calls
            entries = entries[-1:]
        found = [attempt_of(entry, tools, raw) for entry in entries] or [Attempt(None, "it is empty", raw)]
        return [_complete(attempt, raw, field) for attempt in found], []
    except Exception as error:  # the parser may raise anything on untrusted text
        return [Attempt(None, f"the call cannot be read: {_reason(error)}", raw)], []


def _parsed(text: str, prompt: str, response: Mapping[str, Any], tools: Sequence[Tool]) -> list[Any]:
    """Return the calls in a text. If the format writes no types, values get the types of the tools' documentation."""
    from transformers.utils.chat_parsing import parse_response

    from tltrain.formats.chat_completions import api_names, tool_json

    untyped = response["fields"]["tool_calls"].get("content") == "xml-inline"
    offered = [tool_json(tool, api_names(tools)) for tool in tools] if untyped else None
    return parse_response(text, dict(response), prefix=prompt, tools=offered).get("tool_calls") or []


def _objects(before: str, raw: str, pattern: str, tools: Sequence[Tool]) -> tuple[list[Attempt], list[str]]:
    """Read JSON objects one after another, `{"name": ..., "parameters": {...}}`, as Llama writes several calls.

    Args:
        before: the text before, which ends with the name of the first call.
        raw: the text from the first call's arguments on.
    """
    opened = list(re.finditer(pattern, before))[-1]
    attempts: list[Attempt] = []
    while True:
        try:
            arguments, end = json.JSONDecoder().raw_decode(raw.lstrip())
        except (ValueError, RecursionError) as error:
            return [*attempts, Attempt(None, f"the call cannot be read: {_reason(error)}", raw)], []
        rest = raw.lstrip()[end:].strip()
        if rest and not rest.startswith("}"):
            return [*attempts, Attempt(None, f"a part of the call cannot be read: {shown(rest)}", raw)], []
        attempts.append(attempt_of({"name": opened["name"], "arguments": arguments}, tools, raw))
        rest = re.sub(r"<\|\w+\|>", "", rest[1:]).strip()
        following = re.match(r"[\s;,]*" + pattern, rest)
        if following is None:
            if rest and not re.match(r"\w", rest):
                attempts[-1] = Attempt(None, f"a part of the call cannot be read: {shown(rest)}", raw)
                rest = ""
            return attempts, [rest] if rest else []
        opened, raw = following, rest[following.end() :]


def _offered(attempt: Attempt, tools: Sequence[Tool]) -> Attempt:
    """Return the attempt with the tool's own name."""
    if attempt.call is None:
        return attempt
    return attempt_of({"name": attempt.call.name, "arguments": dict(attempt.call.arguments)}, tools)


def _mended(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response template, completed with the parts of its model's format that it lacks."""
    mended = copy.deepcopy(dict(response))
    fields = mended["fields"]
    calls = fields.get("tool_calls")
    pattern = str(calls.get("open_pattern", "")) if calls else ""
    if "to=functions" in pattern:  # harmony: models write the recipient before or after the channel
        calls["open_pattern"] = _HARMONY
        calls["close_pattern"] = r"<\|(?:call|end)\|>\s*"
        fields["content"].pop("open", None)
        fields["content"] |= {
            "open_pattern": r"<\|channel\|>(?:final|commentary)<\|message\|>",
            "close_pattern": r"<\|(?:return|end|call)\|>\s*",
        }
        fields[_REST] = {"content": "text"}
    elif "tool_call_start" in pattern:
        fields["tool_calls"] = {
            "open": "<|tool_call_start|>",
            "close_pattern": r"<\|tool_call_end\|>\s*",
            "repeats": True,
            "content": "text",
        }
    elif pattern.startswith(_OBJECT):  # models write a mark before a call that the template lacks
        calls["open_pattern"] = rf"(?:<\|python_tag\|>)?{pattern}"
    elif r"(?P<name>\w+)" in pattern:
        calls["open_pattern"] = pattern.replace(r"(?P<name>\w+)", r"(?P<name>[\w.-]+)")
    return mended


_OBJECT = r'\{"name"'
"""The beginning of the pattern for a call that is a JSON object without marks around it."""

_HARMONY = (
    r"(?:<\|channel\|>(?:commentary|analysis)\s+to=functions\.(?P<name>[\w.-]+)"
    r"|to=functions\.(?P<name>[\w.-]+)\s*<\|channel\|>(?:commentary|analysis))"
    r"\s*(?:<\|constrain\|>)?\s*(?:json)?\s*<\|message\|>"
)
"""The header of a call: ` to=functions.f<|channel|>commentary json<|message|>`, or the channel first."""


def _as_text(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response template with calls as text, so that a broken call does not stop it, and with all words."""
    changed = copy.deepcopy(dict(response))
    for name, field in changed["fields"].items():
        if name == "tool_calls":
            field |= {"content": "text", "content_args": {"strip": False}, "transform": {"raw": "{content}"}}
            field["repeats"] = True
            field.pop("transform_each", None)
        elif field.get("content", "text") == "text" and "transform" not in field:
            field |= {"repeats": True, "join": field.get("join", "\n")}
    return changed


def _complete(attempt: Attempt, raw: str, field: Mapping[str, Any]) -> Attempt:
    """Return the attempt, or a failed one if the parser silently skipped a part of the call."""
    if attempt.call is None or field.get("content") != "xml-inline":
        return attempt
    left = re.sub(field["content_args"]["tag_pattern"], "", raw, flags=re.DOTALL).replace("</function>", "")
    if re.search(r"\w", left):
        return Attempt(None, f"a part of the call cannot be read: {shown(left.strip())}", raw)
    return attempt


def _words(text: str, special: Sequence[str]) -> str:
    """Return an answer's words without special tokens, which a template may refuse in a history."""
    special = list(filter(None, special))
    while any(token in text for token in special):  # removing one may form another
        for token in special:
            text = text.replace(token, "")
    return text.strip()


def _reason(error: Exception) -> str:
    """Return the last line of an error, which says what is wrong without quoting the model."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = next((line for line in lines if line.startswith("Error: ")), lines[-1] if lines else type(error).__name__)
    return line.removeprefix("Error: ").replace("(", "[").replace(")", "]")[:LONGEST_REASON]


def shown(text: str) -> str:
    """Return the beginning of a text, quoted, for a message."""
    return repr(text[:60])


def thought_span(text: str, prompt: str, response: Mapping[str, Any]) -> tuple[int, int]:
    """Return the character range of an answer's thought, with its marks, according to a response template.

    Only a thought before the first call counts, since an argument may contain the same marks. An unclosed thought
    extends to the end of the answer.
    """
    from transformers.utils.chat_parsing import parse_response

    name = next((name for name in _THOUGHTS if name in response["fields"]), "")
    if not name:
        return 0, 0
    field = response["fields"][name]
    begun = str(parse_response(PROBE, dict(response), prefix=prompt).get(name) or "")
    at = start = 0
    if not begun.endswith(PROBE):  # the prompt does not open the thought
        opened = _mark(field, "open").search(text)
        calls = response["fields"].get("tool_calls")
        called = _mark(calls, "open").search(text) if calls else None
        if opened is None or (called is not None and called.start() < opened.start()):
            return 0, 0
        start, at = opened.span()
    closed = _mark(field, "close").search(text, at)
    return start, closed.end() if closed else len(text)


def _mark(field: Mapping[str, Any], name: str) -> re.Pattern[str]:
    """Return the pattern that opens or closes a field of a response template."""
    return re.compile(field[f"{name}_pattern"] if f"{name}_pattern" in field else re.escape(field[name]))
