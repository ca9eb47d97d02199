"""Write a conversation as OpenAI chat completions with native tools; write the returned calls as TL-format text.

The counterpart of `tltrain.data.openai`, which reads such conversations.

An API refuses some things that the TL format allows, so they are changed: tool names consist of letters, digits, `_`
and `-` (`math.gcd` is offered as `math_gcd`, as in BFCL, and translated back); a call without an answer gets an empty
answer; a tool's answer to words that were not a call becomes a user message. Calls get new ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tltrain.formats.answers import read_structure
from tltrain.formats.calls import UNREADABLE, CallSyntaxError, read_call, render_call
from tltrain.trajectory import Call, Message, Sample, Tool, actions


def request(sample: Sample) -> dict[str, Any]:
    """Return `messages` and `tools` of a request for the sample's next call."""
    names = api_names(sample.tools)
    written: dict[str, Any] = {"messages": _messages(sample, names)}
    if sample.tools:  # an empty list is refused
        written["tools"] = [tool_json(tool, names) for tool in sample.tools]
    return written


def api_names(tools: Sequence[Tool]) -> dict[str, str]:
    """Map each tool's name to a unique name that an API allows: at most 64 letters, digits, `_` and `-`."""
    names: dict[str, str] = {}
    for name in dict.fromkeys(tool.name for tool in tools):
        wanted, number = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64] or "_", 1
        free = wanted
        while free in names.values():
            number += 1
            free = f"{wanted[:60]}_{number}"
        names[name] = free
    return names


def tool_json(tool: Tool, names: Mapping[str, str]) -> dict[str, Any]:
    """Return a tool as the API writes it, under its API name (`api_names`)."""
    parameters = {"type": "object", "properties": {}, **tool.parameters}
    function = {"name": names[tool.name], "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _messages(sample: Sample, names: Mapping[str, str]) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = []
    if sample.instructions:
        written.append({"role": "system", "content": sample.instructions})
    answers = answers_of(sample.messages)
    answering = {answer for answered in answers.values() for answer in answered}
    for number, message in enumerate(sample.messages):
        if message.calls:
            written.append(_calling(message, number, names))
            for k, answer in enumerate(answers[number]):
                text = "" if answer is None else sample.messages[answer].text
                written.append({"role": "tool", "tool_call_id": call_id(number, k), "content": text})
        elif number not in answering:
            role = "user" if message.role == "tool" else message.role
            written.append({"role": role, "content": message.text})
    return written


def answers_of(messages: Sequence[Message]) -> dict[int, list[int | None]]:
    """Map the position of each message with calls to the positions of its calls' answers."""
    answers: dict[int, list[int | None]] = {}
    for action in actions(messages):
        if action.call is not None:
            answers.setdefault(action.at, []).append(action.answer)
    return answers


def _calling(message: Message, number: int, names: Mapping[str, str]) -> dict[str, Any]:
    calls = [
        {"id": call_id(number, k), "type": "function", "function": _function(made.call, names)}
        for k, made in enumerate(message.calls)
    ]
    content = "\n".join(filter(None, (message.thought, message.text)))
    return {"role": "assistant", "content": content or None, "tool_calls": calls}


def _function(call: Call, names: Mapping[str, str]) -> dict[str, str]:
    return {
        "name": names.get(call.name, call.name),
        "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
    }


def call_id(number: int, call: int) -> str:
    """Return a call's id, made of its message's number and its own: nine alphanumerics, as Mistral's templates need."""
    return f"call{number:05d}" if call == 0 else f"c{call:03d}{number:05d}"


def answer_text(message: Any, tools: Sequence[Tool]) -> str:
    """Return an assistant's message as TL-format text: its calls, one per line, or its words. The call may also be in
    `function_call`, the API's field before `tool_calls`.

    Raises:
        ValueError: it is not an assistant's message.
    """
    if not isinstance(message, dict):
        raise ValueError(f"expected a message, found {str(message)[:80]!r}")
    calls, content = calls_of(message), message.get("content")
    if calls:
        originals = {api: name for name, api in api_names(tools).items()}
        return "\n".join(call_text(call, originals) for call in calls)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"expected `content` to be text, found {str(content)[:80]!r}")
    return (content or "").strip()


def calls_of(message: Mapping[str, Any]) -> list[Any]:
    """The calls of an assistant's message as the server wrote them."""
    calls, legacy = message.get("tool_calls"), message.get("function_call")
    if isinstance(calls, list) and calls:
        return calls
    return [{"type": "function", "function": legacy}] if isinstance(legacy, dict) else []


_CALL_MARKS = re.compile(
    r"<\|?tool_calls?(?:_begin|_start)?\|?>|\bcall:[\w.-]+\{|<function_?calls?>|<function=|<invoke name="
    r"|<\|python_tag\|>|\[TOOL_CALLS\]|<\uff5ctool\u2581calls?\u2581begin\uff5c>"
)
"""How Hermes, Qwen, Llama, Mistral, DeepSeek and other models write calls that a server should have parsed."""
_JSON_CALL = re.compile(r"\s*+(?:```(?:json)?+\s*+)?+\[?+\s*+\{")  # possessive: linear in white space


def unparsed_call(message: Mapping[str, Any], tools: Sequence[Tool]) -> bool:
    """Return whether the text of a message without calls has a model's call markup, or JSON with a tool's name."""
    content = message.get("content")
    if calls_of(message) or not tools or not isinstance(content, str):
        return False
    if _CALL_MARKS.search(content):
        return True
    if not _JSON_CALL.match(content):
        return False
    value, _ = read_structure(content[content.index("[") if content.lstrip().startswith("[") else content.index("{") :])
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, dict) and isinstance(first.get("function"), dict):
        first = first["function"]
    named = first.get("name", first.get("function")) if isinstance(first, dict) else None
    return isinstance(named, str) and named in {*api_names(tools).values(), *(tool.name for tool in tools)}


def call_text(entry: Any, originals: Mapping[str, str]) -> str:
    """Return an entry of `tool_calls` as a call's text; one that would not read back unchanged is marked unreadable."""
    try:
        function = entry["function"]
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            arguments = json.loads(arguments) if arguments.strip() else None
        call = Call(originals.get(function["name"], function["name"]), {} if arguments is None else arguments)
        text = render_call(call)
        if read_call(text) == call:
            return text
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, CallSyntaxError):
        pass
    return UNREADABLE + json.dumps(entry, ensure_ascii=False)
