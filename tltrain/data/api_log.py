"""Requests to a model's API with their responses, as proxies and batch jobs log them: the response is learned.

    {"request": {"messages": [...], "tools": [...]}, "response": {"choices": [{"message": {...}}]}}

The API is chat completions, OpenAI's Responses, Anthropic's Messages or Gemini. Request and response may each be inside
a `body`, as in batch files. Assistant messages in the request are history: each was the response to an earlier request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from tltrain.data import anthropic, gemini, openai, responses
from tltrain.data.json_text import parse_json
from tltrain.data.reading import expect, shown
from tltrain.errors import FieldError
from tltrain.trajectory import Trajectory

REQUESTS = ("request", "body")
_WRAPPERS = ("body", "json", "payload")


class Api(NamedTuple):
    """How requests to an API are recognised and joined with their responses.

    Attributes:
        key: the request's field with the messages.
        answer: maps the response to the messages that it adds.
        parse: reads a record made of the request's fields with all messages.
    """

    key: str
    answer: Callable[[dict[str, Any], Counter[str]], list[Any]]
    parse: Callable[[Any, int, Counter[str]], Iterable[Trajectory]]


def _first(response: dict[str, Any], key: str, notes: Counter[str]) -> dict[str, Any]:
    several = response.get(key)
    if not isinstance(several, list) or not several:
        raise FieldError(f"response.{key}", "a list with an answer", shown(several))
    if len(several) > 1:
        notes["records: answers of a response behind its first, left out"] += len(several) - 1
    return expect(several[0], dict, f"response.{key}[0]")


def _choice(response: dict[str, Any], notes: Counter[str]) -> list[Any]:
    return [expect(_first(response, "choices", notes).get("message"), dict, "response.choices[0].message")]


def _candidate(response: dict[str, Any], notes: Counter[str]) -> list[Any]:
    content = expect(_first(response, "candidates", notes).get("content"), dict, "response.candidates[0].content")
    return [{"role": "model", **content}]


def _content(response: dict[str, Any], notes: Counter[str]) -> list[Any]:
    return [{"role": "assistant", "content": response.get("content")}]


def _output(response: dict[str, Any], notes: Counter[str]) -> list[Any]:
    return expect(response.get("output"), list, "response.output")


APIS = {
    "choices": Api("messages", _choice, openai.parse),
    "candidates": Api("contents", _candidate, gemini.parse),
    "content": Api("messages", _content, anthropic.parse),
    "output": Api("input", _output, responses.parse),
}
"""APIs by the field of the response that has the answer."""


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    key = next((key for key in REQUESTS if isinstance(record.get(key), dict | str)), None)
    try:
        request = _unwrapped(record.get(key), str(key)) if key is not None and "response" in record else {}
    except FieldError:
        return ""
    return f"it has `{key}` with messages and `response`" if {"messages", "contents", "input"} & request.keys() else ""


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record; an error response has none and is counted. Raises FieldError."""
    record = expect(record, dict, "record")
    key = next((key for key in REQUESTS if record.get(key) is not None), REQUESTS[0])
    request = _unwrapped(record.get(key), key)
    stated = record.get("response")
    response = {} if stated is None else _unwrapped(stated, "response")
    if not response or response.get("error") or record.get("error"):
        notes["records: without a response, or with an error as the response, left out"] += 1
        return
    field = next((field for field in APIS if field in response), None)
    if field is None:
        raise FieldError("response", f"one of the fields {', '.join(APIS)}", shown(sorted(response)))
    api = APIS[field]
    asked = request.get(api.key)
    asked = [{"role": "user", "content": asked}] if isinstance(asked, str) else expect(asked, list, f"{key}.{api.key}")
    history = [{**each, "weight": 0} if isinstance(each, dict) and _is_said(each) else each for each in asked]
    named = next((record[name] for name in ("id", "custom_id") if isinstance(record.get(name), str)), None)
    joined = {**request, api.key: [*history, *api.answer(response, notes)], "id": named}
    try:
        yield from api.parse(joined, number, notes)
    except FieldError as error:
        where = f"{key} with its response, {error.field}"
        raise FieldError(where, error.expected, error.found, error.remedy) from None


def _is_said(message: dict[str, Any]) -> bool:
    """Return whether the model wrote this message or item of the Responses API."""
    return message.get("role") in ("assistant", "model") or message.get("type") == "function_call"


def _unwrapped(value: Any, where: str) -> dict[str, Any]:
    """Return a request or response, either of which may be JSON text, without its wrapper."""
    for _ in range(2):
        value = expect(parse_json(value, where) if isinstance(value, str) else value, dict, where)
        inner = next((key for key in _WRAPPERS if isinstance(value.get(key), dict | str)), None)
        if inner is None:
            break
        value, where = value[inner], f"{where}.{inner}"
    return expect(parse_json(value, where) if isinstance(value, str) else value, dict, where)
