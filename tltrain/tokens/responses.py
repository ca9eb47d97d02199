"""Answers of a chat template, read by a response template of transformers.

The parser says what is a thought, what a call and what words. It ends at the first call that it cannot read, goes over
parts of others in silence, and keeps one piece of the words. So it is run once for the pieces, with calls as text, and
again for each call alone; what it cannot read is an attempt with its reason.

Some response templates do not know all that their models write (`_mended`): harmony's calls with the recipient behind
the channel, and its words before a call; several calls of Llama; names with a hyphen; LFM2's calls without arguments.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tltrain.formats.native import UNREAD, Answer, Attempt, attempt_of, unread, unread_mark
from tltrain.formats.pythonic import read_list
from tltrain.trajectory import Tool

_LONGEST_REASON = 160
_THOUGHTS = ("reasoning_content", "thinking")
_REST = "rest"
"""The field of what stands in no other."""


class _Piece(NamedTuple):
    """A part of an answer: its field, and from where to where it stands in the text."""

    field: str
    start: int
    end: int


def read_response(
    text: str, prompt: str, response: Mapping[str, Any], tools: Sequence[Tool], special: Sequence[str]
) -> Answer:
    """An answer's text, read by a response template of transformers; calls that cannot be read keep their reason.

    Args:
        special: special tokens, which are left out of the answer's words.
    """
    mended = _mended(response)
    try:
        pieces, plain = _pieces(text, prompt, mended)
    except Exception as error:  # whatever a parser makes of a stranger's text
        return Answer(text=_words(text, special), problem=f"the answer cannot be read: {_reason(error)}")
    attempts: list[Attempt] = []
    more: list[str] = []  # words that a call's text ends in
    done = 0
    for piece in pieces:
        if piece.field == "tool_calls":
            found, behind = _calls(text, done, piece, prompt, mended, tools)
            attempts += found
            more += behind
            done = piece.end
    rest = _words(re.sub(r"<\|start\|>\w*", "", str(plain.get(_REST) or "")), special)
    if re.search(r"\bto=|<\|message\|>", rest):
        attempts.append(Attempt(None, "a message that is to no tool cannot be read", rest))
        rest = ""
    thought = next((str(plain[name]) for name in _THOUGHTS if plain.get(name)), "")
    said = "\n".join(filter(None, (str(plain.get("content") or "").strip(), rest.strip(), *more)))
    words, problem = _words(said, special), ""
    if not attempts:
        problem = "nothing stands behind the thought" if thought and not words else unread(said.strip(), tools)
    elif unread_mark(said, tools):
        attempts.append(Attempt(None, UNREAD, words))
    return Answer(thought, words, tuple(attempts), problem)


def _pieces(text: str, prompt: str, response: Mapping[str, Any]) -> tuple[list[_Piece], dict[str, Any]]:
    """The parts of an answer in order, calls as text, and for each field what stands in all its parts."""
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
            if not text.startswith(event["text"], at):  # behind the mark that closed the part before
                at = text.index(event["text"], at)
            at += len(event["text"])
            if pieces:
                pieces[-1] = pieces[-1]._replace(end=at)
    return pieces, message


def _calls(
    text: str, done: int, piece: _Piece, prompt: str, response: Mapping[str, Any], tools: Sequence[Tool]
) -> tuple[list[Attempt], list[str]]:
    """The calls that a part of an answer makes, and the words that it ends in.

    Args:
        done: where the call before it ends.
    """
    field, raw = response["fields"]["tool_calls"], text[piece.start : piece.end]
    if field.get("content") == "text":
        return [_offered(attempt, tools) for attempt in read_list(raw)], []
    if not raw.strip():
        return [Attempt(None, "the call is empty", raw)], []
    if field.get("content") == "json" and _OBJECT in field.get("open_pattern", ""):
        return _objects(text[done : piece.start], raw, field["open_pattern"], tools)
    try:
        found = _parsed(text[done : piece.end], "" if done else prompt, response, tools)
        return [
            _complete(attempt_of(found[-1], tools, raw) if found else Attempt(None, "it is empty", raw), raw, field)
        ], []
    except Exception as error:  # whatever a parser makes of a stranger's text
        return [Attempt(None, f"the call cannot be read: {_reason(error)}", raw)], []


def _parsed(text: str, prompt: str, response: Mapping[str, Any], tools: Sequence[Tool]) -> list[Any]:
    """The calls in a text. Values of a format that writes no types get those of the tools' documentation."""
    from transformers.utils.chat_parsing import parse_response

    from tltrain.formats.chat_completions import api_names, tool_json

    untyped = response["fields"]["tool_calls"].get("content") == "xml-inline"
    offered = [tool_json(tool, api_names(tools)) for tool in tools] if untyped else None
    return parse_response(text, dict(response), prefix=prompt, tools=offered).get("tool_calls") or []


def _objects(before: str, raw: str, pattern: str, tools: Sequence[Tool]) -> tuple[list[Attempt], list[str]]:
    """Read JSON objects one behind another, `{"name": ..., "parameters": {...}}`, as Llama writes several calls.

    Args:
        before: what stands before, which ends in the name of the first. raw: from its arguments on.
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
            return [*attempts, Attempt(None, f"a part of the call cannot be read: {_shown(rest)}", raw)], []
        attempts.append(attempt_of({"name": opened["name"], "arguments": arguments}, tools, raw))
        rest = re.sub(r"<\|\w+\|>", "", rest[1:]).strip()
        following = re.match(r"[\s;,]*" + pattern, rest)
        if following is None:
            if rest and not re.match(r"\w", rest):
                attempts[-1] = Attempt(None, f"a part of the call cannot be read: {_shown(rest)}", raw)
                rest = ""
            return attempts, [rest] if rest else []
        opened, raw = following, rest[following.end() :]


def _offered(attempt: Attempt, tools: Sequence[Tool]) -> Attempt:
    """The attempt with the tool's own name."""
    if attempt.call is None:
        return attempt
    return attempt_of({"name": attempt.call.name, "arguments": dict(attempt.call.arguments)}, tools)


def _mended(response: Mapping[str, Any]) -> dict[str, Any]:
    """The response template with what it lacks of its own model's format."""
    mended = copy.deepcopy(dict(response))
    fields = mended["fields"]
    calls = fields.get("tool_calls")
    pattern = str(calls.get("open_pattern", "")) if calls else ""
    if "to=functions" in pattern:  # harmony: models write the recipient before or behind the channel
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
    elif pattern.startswith(_OBJECT):  # a mark that models write before a call, and the template does not
        calls["open_pattern"] = rf"(?:<\|python_tag\|>)?{pattern}"
    elif r"(?P<name>\w+)" in pattern:
        calls["open_pattern"] = pattern.replace(r"(?P<name>\w+)", r"(?P<name>[\w.-]+)")
    return mended


_OBJECT = r'\{"name"'
"""What begins the pattern of a call that is a JSON object without marks around it."""

_HARMONY = (
    r"(?:<\|channel\|>(?:commentary|analysis)\s+to=functions\.(?P<name>[\w.-]+)"
    r"|to=functions\.(?P<name>[\w.-]+)\s*<\|channel\|>(?:commentary|analysis))"
    r"\s*(?:<\|constrain\|>)?\s*(?:json)?\s*<\|message\|>"
)
"""The header of a call: ` to=functions.f<|channel|>commentary json<|message|>`, or the channel first."""


def _as_text(response: Mapping[str, Any]) -> dict[str, Any]:
    """The response template with calls as text, so that a broken one does not end the reading, and all words kept."""
    changed = copy.deepcopy(dict(response))
    for name, field in changed["fields"].items():
        if name == "tool_calls":
            field |= {"content": "text", "content_args": {"strip": False}, "transform": {"raw": "{content}"}}
            field.pop("transform_each", None)
        elif field.get("content", "text") == "text" and "transform" not in field:
            field |= {"repeats": True, "join": field.get("join", "\n")}
    return changed


def _complete(attempt: Attempt, raw: str, field: Mapping[str, Any]) -> Attempt:
    """The attempt, or a failed one where the parser went over a part of the call in silence."""
    if attempt.call is None or field.get("content") != "xml-inline":
        return attempt
    left = re.sub(field["content_args"]["tag_pattern"], "", raw, flags=re.DOTALL).replace("</function>", "")
    if re.search(r"\w", left):
        return Attempt(None, f"a part of the call cannot be read: {_shown(left.strip())}", raw)
    return attempt


def _words(text: str, special: Sequence[str]) -> str:
    """What an answer says without special tokens."""
    for token in special:
        text = text.replace(token, "")
    return text.strip()


def _reason(error: Exception) -> str:
    """The last line of an error, which says what is wrong and not what the model wrote."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = next((line for line in lines if line.startswith("Error: ")), lines[-1] if lines else type(error).__name__)
    return line.removeprefix("Error: ").replace("(", "[").replace(")", "]")[:_LONGEST_REASON]


def _shown(text: str) -> str:
    return repr(text[:60])
