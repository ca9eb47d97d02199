"""Read calls, thoughts and tools' answers in a message's text, as Hermes, Qwen and others write them.

    <think>I look it up.</think>
    <tool_call>
    {"name": "search", "arguments": {"query": "love"}}
    </tool_call>

Qwen3-Coder writes `<tool_call><function=search><parameter=query>love</parameter></function></tool_call>`. An answer is
`<tool_response>...</tool_response>` in a message of the user or the tool.
Mistral writes `[TOOL_CALLS]`, and Llama `<|python_tag|>`, before JSON that ends the text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NamedTuple

from tltrain.data.arguments import read_named_call
from tltrain.data.reading import parse_json, parse_json_at
from tltrain.errors import FieldError
from tltrain.formats.preamble import thought_end
from tltrain.trajectory import Call

_CALL = re.compile(r"<(tool_call|function_call)>(.*?)(?:</\1>|\Z)", re.DOTALL)
_MARKED = re.compile(
    r"(?:\[TOOL_CALLS\]|<\|python_tag\|>)\s*([\[{].*[\]}])\s*(?:</s>|<\|e(?:om|ot)_id\|>)?\s*\Z", re.DOTALL
)
"""Mistral's and Llama's mark, and the JSON after it up to the end."""
_RESPONSE = re.compile(r"<(tool_response|function_response)>(.*?)(?:</\1>|\Z)", re.DOTALL)
_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*?)</function>\s*", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_TAG = re.compile(r"^\s*<[^>]{1,30}>|<[^>]{1,30}>\s*$|^\s*\[THINK\]|\[/THINK\]\s*$")
_OPENED = re.compile(r"<think>|\[THINK\]")
_CLOSED = re.compile(r"(?<!`)</think>|\[/THINK\]")
LOOKS_LIKE_CALL = re.compile(
    r"<(?:tool_call|function_?call)>|\[TOOL_CALLS\]|<\|python_tag\|>|<\|tool_call"
    r'|\A\s*(?:```\w*\s*)?\[?\s*\{\s*"name"\s*:\s*"[^"\n]+"\s*,\s*"(?:arguments|parameters)"\s*:\s*[{"]'
)
"""Marks of calls, and JSON that begins a text and names a tool and its arguments."""


_TOOLS = re.compile(r"<tools>(.*?)</tools>", re.DOTALL)
_QWEN = re.compile(r"\n*# Tools\n\nYou (?:may call one or more functions|have access to the following functions)")
_HERMES = "function calling AI model"


def split_tools(text: str, where: str, notes: Counter[str]) -> tuple[str, list[Any] | None]:
    """Return a system message without the tools in its text, and the tools from its `<tools>` tags; None without tags.

    The text around them in Hermes and Qwen, on how to write a call, is left out too: the model's format has its own.

    Raises:
        FieldError: the text between the tags cannot be read.
    """
    found = _TOOLS.search(text)
    if found is None:
        return text, None
    body = found[1].strip()
    tools: list[Any] = []
    at = 0
    while at < len(body):
        value, at = parse_json_at(body, at, f"{where}.<tools>")
        tools += value if isinstance(value, list) else [value]
        at += len(body[at:]) - len(body[at:].lstrip(" \t\r\n,"))
    notes["system messages: tools in the text, and how to call them, left out"] += 1
    if qwen := _QWEN.search(text):
        return text[: qwen.start()].strip(), tools
    return "" if _HERMES in text else _TOOLS.sub("", text).strip(), tools


class Response(NamedTuple):
    """A tool's answer: its text, and the id and name of the call that it answers, if stated."""

    text: str
    call_id: str = ""
    name: str = ""


def split_thought(text: str, notes: Counter[str]) -> tuple[str, str]:
    """Return the thought at the beginning of a message's text and what follows.

    A thought without an end extends to the first call in the text, or to the text's end: an answer that was cut inside
    its thought says nothing else. A thought whose opening mark was written by the prompt's template ends at the first
    closing mark.
    """
    end = thought_end(text)
    if end is None:
        notes["messages: a thought without an end, read up to the call or the end of the text"] += 1
        call = _CALL.search(text)
        end = call.start() if call else len(text)
    elif not end and (closed := _CLOSED.search(text)) and not _OPENED.search(text[: closed.start()]):
        notes["messages: a thought without a beginning, read from the beginning of the text"] += 1
        end = closed.end()
    words = text[end:].lstrip() if end else text
    if _OPENED.search(words) and _CLOSED.search(words):
        notes["messages: a thought behind the first words, kept as text"] += 1
    return _TAG.sub("", text[:end]).strip(), words


def split_calls(text: str, where: str, notes: Counter[str]) -> tuple[str, list[Call]]:
    """Return the words of a message and the calls in its text; text that cannot be read as calls stays unchanged."""
    calls: list[Call] = []
    try:
        if marked := _MARKED.search(text):
            return text[: marked.start()].strip(), _calls(marked[1], where, notes)
        if "<tool_call>" not in text and "<function_call>" not in text:
            return text, []
        for found in _CALL.finditer(text):
            calls += _calls(found[2], where, notes)
    except FieldError:
        return text, []
    return _CALL.sub("", text).strip(), calls


def _calls(body: str, where: str, notes: Counter[str]) -> list[Call]:
    function = _FUNCTION.fullmatch(body)
    if function is not None:
        values = {name.strip(): _value(value) for name, value in _PARAMETER.findall(function[2])}
        return [Call(function[1].strip(), values)]
    try:
        value = parse_json(body, where)
    except FieldError:
        value = _loose(body, where, notes)
    return [read_named_call(entry, where, notes) for entry in (value if isinstance(value, list) else [value])]


def _loose(body: str, where: str, notes: Counter[str]) -> Any:
    """Parse a call written as a Python dict, as in the Hermes data sets."""
    from tltrain.data.arguments import read_arguments

    return read_arguments(body, where, notes)


def _value(text: str) -> Any:
    """Return a parameter's value: from JSON if it is an object, a list, a number or a constant, otherwise the text."""
    if re.fullmatch(r"\s*(?:[\[{].*[\]}]|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)\s*", text, re.DOTALL):
        try:
            return parse_json(text, "")
        except FieldError:
            return text
    return text


def responses(text: str) -> list[Response]:
    """Return the answers in a message that consists only of answers; an empty list for any other text."""
    if not text.lstrip().startswith(("<tool_response>", "<function_response>")) or _RESPONSE.sub("", text).strip():
        return []
    return [_response(found[2].strip()) for found in _RESPONSE.finditer(text)]


def _response(text: str) -> Response:
    """Parse an answer; `{"name": ..., "content": ...}` names its call."""
    try:
        value = parse_json(text, "")
    except FieldError:
        return Response(text)
    if not isinstance(value, dict) or not {"name", "content"} <= value.keys() <= {"name", "content", "tool_call_id"}:
        return Response(text)
    content = value["content"]
    content = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    call_id, name = value.get("tool_call_id"), value["name"]
    return Response(content, call_id if isinstance(call_id, str) else "", name if isinstance(name, str) else "")
