"""Read a call's arguments as files write them, and compare them with the tool that is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tltrain.data.json_text import ONCE
from tltrain.data.reading import expect, parse_json, shown
from tltrain.errors import FieldError
from tltrain.formats.calls import CallSyntaxError, call_end, read_call
from tltrain.trajectory import Call, Tool

PREFIX = "functions."
"""The prefix that OpenAI's models write before a tool's name."""


ARGUMENTS = ("arguments", "parameters", "input", "args", "kwargs")
"""Fields that may contain a call's arguments; the first that is not null counts."""
_BESIDE = {"name", "id", "call_id", "tool_call_id", "type", "index", "status", "caller", "cache_control"}
_BESIDE |= {"description", "thought", "reasoning", "namespace", "extra_content", "created_by"}
"""Fields of a call that are not its arguments."""


def read_arguments(value: Any, where: str, notes: Counter[str]) -> dict[str, Any]:
    """Return the arguments from an object or its JSON text, which may be encoded twice or written as a Python dict.

    If a model wrote a key twice, the last value counts, as in most JSON readers.

    Null, empty text and the empty list, which PHP writes for an empty object, mean no arguments. Raises FieldError.
    """
    if isinstance(value, str):
        value = _of_text(value, where, notes)
    if isinstance(value, str):
        notes["calls: arguments that are the text of a JSON text"] += 1
        value = parse_json(value, where) if value.strip() else {}
    if value == []:
        notes["calls: arguments written as an empty list"] += 1
        return {}
    return expect({} if value is None else value, dict, where)


def _of_text(text: str, where: str, notes: Counter[str]) -> Any:
    if not text.strip():
        return {}
    try:
        return parse_json(text, where)
    except FieldError as error:
        if error.expected == ONCE:
            notes["calls: a key twice in the arguments, of which the last counts"] += 1
            return parse_json(text, where, once=False)
        if not text.lstrip().startswith("{") or (found := _python_dict(text)) is None:
            raise
    notes["calls: arguments written as a Python dict"] += 1
    return found


def _python_dict(text: str) -> dict[str, Any] | None:
    value = python_value(text)
    return value if isinstance(value, dict) else None


def python_value(text: str) -> Any:
    """Return a value written in Python literals, which are parsed and not evaluated; None if it is anything else."""
    written = f"f(a={text.strip()})"
    try:
        call = read_call(written)
    except CallSyntaxError:
        return None
    whole = call_end(written) == len(written) and len(call.arguments) == 1 and not call.positional
    return call.arguments.get("a") if whole else None


def read_value(text: str, where: str, notes: Counter[str]) -> Any:
    """Parse JSON text, or a list or dict as Python prints it (which is counted). Raises FieldError."""
    try:
        return parse_json(text, where)
    except FieldError as error:
        found = python_value(text) if text.lstrip()[:1] in ("[", "{") and error.expected != ONCE else None
        if not isinstance(found, list | dict):
            raise
    notes[f"{where.partition('[')[0]}: read from Python's notation"] += 1
    return found


def checked(call: Call, tools: Mapping[str, Tool], notes: Counter[str]) -> Call:
    """Return the call under the name of an offered tool, without the nulls that Arrow fills in; count other deviations.

    A null is left out if the tool has no such parameter, or if the parameter is optional and its type excludes null.
    Calls of other tools, unknown arguments, and required ones that are missing or null are only counted: a log may
    contain a call that its tool refused, and MAE needs to see it.
    """
    name = offered_name(call.name, tools)
    if name != call.name:
        left_out = "spaces around the tool's name" if name == call.name.strip() else f"the prefix `{PREFIX}`"
        notes[f"calls: {left_out} left out"] += 1
    tool = tools.get(name)
    if tool is None:
        notes["calls: of tools that are not on offer"] += 1
        return Call(name, call.arguments)
    arguments = _without_filled(call.arguments, tool.parameters)
    if arguments != call.arguments:
        notes["calls: null arguments left out, neither required nor of a type that includes null"] += 1
    if not tool.parameters.get("additionalProperties") and not arguments.keys() <= {*tool.properties, *tool.required}:
        notes["calls: with arguments that the tool does not have"] += 1
    if not arguments.keys() >= set(tool.required):
        notes["calls: without an argument that is required"] += 1
    null = [tool.properties.get(key) for key in tool.required if arguments.get(key, "") is None]
    if any(isinstance(own, dict) and not _nullable(own) for own in null):
        notes["calls: null for a required argument whose type excludes null"] += 1
    return Call(name, arguments)


def offered_name(name: str, tools: Mapping[str, Any]) -> str:
    """Return the name, without surrounding spaces and the prefix `functions.` if a tool has only that name."""
    bare = name.strip().removeprefix(PREFIX)
    return bare if name not in tools and bare in tools else name


def _without_filled(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object without its filled nulls, at any depth for which the schema names `properties`."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return dict(arguments)
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    kept = {}
    for name, value in arguments.items():
        own = properties.get(name)
        if value is None and name not in required and not (isinstance(own, dict) and _nullable(own)):
            continue
        kept[name] = _filled_inside(value, own) if isinstance(own, dict) else value
    return kept


def _filled_inside(value: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return _without_filled(value, schema)
    items = schema.get("items")
    if isinstance(value, list) and isinstance(items, dict):
        return [_filled_inside(inner, items) for inner in value]
    return value


def _nullable(schema: Mapping[str, Any]) -> bool:
    """Return whether a parameter's schema admits null, as a schema without a type does."""
    if schema.get("nullable") is True:
        return True
    enum = schema.get("enum")
    if isinstance(enum, list):
        return None in enum
    declared = schema.get("type")
    if isinstance(declared, str):
        return declared in ("null", "any", "None", "NoneType")
    if isinstance(declared, list):
        return "null" in declared
    choices = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(choices, list):
        return any(isinstance(choice, dict) and _nullable(choice) for choice in choices)
    return True


def read_named_call(entry: Any, where: str, notes: Counter[str]) -> Call:
    """Parse `{"name": ..., "arguments": ...}`; the field of the arguments may have another name (`ARGUMENTS`).

    Raises:
        FieldError: this is not a call, or it has none of these fields but others that may be the arguments.
    """
    entry = expect(entry, dict, where)
    name = expect(entry.get("name"), str, f"{where}.name") if "name" in entry else None
    if name is None:
        raise FieldError(f"{where}.name", "a string", "no such field")
    if not name.strip():
        raise FieldError(f"{where}.name", "a tool's name", shown(name))
    key = next((key for key in ARGUMENTS if entry.get(key) is not None), ARGUMENTS[0])
    if not any(key in entry for key in ARGUMENTS):
        others = [other for other, value in entry.items() if other not in _BESIDE and value is not None]
        if others:
            raise FieldError(f"{where}.arguments", "an object", f"no such field, but {', '.join(others)}")
    return Call(name, read_arguments(entry.get(key), f"{where}.{key}", notes))
