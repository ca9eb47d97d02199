"""Read the tools on offer in every form that files use.

A tool is `{"type": "function", "function": {...}}` or the inner object, and either may be JSON text; Gemini's
`functionDeclarations` is a list of tools. Its parameters are in `parameters`, `input_schema` (Anthropic),
`inputSchema` (MCP), `parametersJsonSchema` or `arguments`, as

- a JSON schema with `properties`;
- a flat object, parameter -> schema (xLAM): Python's type names are replaced, and a parameter with a default or an
  `optional` type is optional;
- a list of `{"name": ..., "type": ...}`, or two lists, `required_parameters` and `optional_parameters` (ToolBench).

Local references (`$ref`) are replaced by what they name. Arrow writes null for each keyword that another tool of the
file has, so null counts as absent. Parameters in any other form are an error, never a tool without parameters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tltrain.data.arguments import read_value
from tltrain.data.reading import expect, member, optional, parse_json, shown
from tltrain.errors import FieldError
from tltrain.formats.stubs import not_rendered
from tltrain.trajectory import Tool

PARAMETERS = ("parameters", "input_schema", "inputSchema", "parametersJsonSchema", "arguments")
"""Fields that may contain a tool's parameters; the first that is not null counts."""
DECLARATIONS = ("functionDeclarations", "function_declarations")
MAX_NODES = 20_000
"""Maximum number of values in a tool's schema after references are replaced, as each may expand many times over."""

_WITHOUT_CONTENT = {"type", "required", "description", "title", "additionalProperties", "strict", "$schema", "$defs"}
_WITHOUT_CONTENT |= {"definitions", "$id", "$comment", "default", "examples"}
"""Schema keywords that describe no parameter if there are no `properties`."""
_COMBINED = ("anyOf", "oneOf", "allOf", "patternProperties", "$ref")
_PYTHON_TYPES = {
    **dict.fromkeys(("str", "string"), "string"),
    **dict.fromkeys(("int", "integer"), "integer"),
    **dict.fromkeys(("float", "double", "number"), "number"),
    **dict.fromkeys(("bool", "boolean"), "boolean"),
    **dict.fromkeys(("list", "tuple", "set", "array"), "array"),
    **dict.fromkeys(("dict", "object"), "object"),
}
_OPTIONAL = re.compile(r",\s*optional\b.*|^optional\[(.*)\]$", re.IGNORECASE | re.DOTALL)


def offered_tools(value: Any, where: str, notes: Counter[str]) -> tuple[Tool, ...]:
    """Parse a list of tools or its JSON text. Raises FieldError.

    A tool that is listed twice is offered once. Two tools of the same name with different parameters are kept and
    counted, as nobody can tell which of them a call means.
    """
    if isinstance(value, str):
        value = read_value(value, where, notes) if value.strip() else []
    if isinstance(value, dict):
        value = [value]
    tools: list[Tool] = []
    for entry, place in _entries(expect(value, list, where), where):
        tool = _tool(entry, place, notes)
        if tool in tools:
            notes["tools: the same tool twice, offered once"] += 1
            continue
        if any(other.name == tool.name for other in tools):
            notes["tools: two of one name with different descriptions or parameters"] += 1
        tools.append(tool)
    notes.update(f"tools: `{word}` of a parameter is not in the stub" for tool in tools for word in not_rendered(tool))
    return tuple(tools)


def _entries(values: list[Any], where: str) -> Iterator[tuple[Any, str]]:
    """Yield each tool's object, without the wrappers around it, and its field."""
    for i, entry in enumerate(values):
        place = f"{where}[{i}]"
        entry = expect(parse_json(entry, place) if isinstance(entry, str) else entry, dict, place)
        declared = next((key for key in DECLARATIONS if entry.get(key) is not None), None)
        if declared is not None:
            yield from _entries(member(entry, declared, list, place), f"{place}.{declared}")
        elif entry.get("function") is not None:
            place = f"{place}.function"
            inner = entry["function"]
            yield expect(parse_json(inner, place) if isinstance(inner, str) else inner, dict, place), place
        else:
            yield entry, place


def _tool(entry: dict[str, Any], where: str, notes: Counter[str]) -> Tool:
    name = member(entry, "name", str, where)
    if not name.strip():
        raise FieldError(f"{where}.name", "a tool's name", shown(name))
    return Tool(name, optional(entry, "description", "", where), _parameters(entry, where, notes))


def _parameters(entry: dict[str, Any], where: str, notes: Counter[str]) -> dict[str, Any]:
    lists = [key for key in ("required_parameters", "optional_parameters") if entry.get(key) is not None]
    key = next((key for key in PARAMETERS if entry.get(key) is not None), None)
    if key is None and lists:
        properties: dict[str, Any] = {}
        required: list[str] = []
        for each in lists:
            listed, needed = _listed(member(entry, each, list, where), f"{where}.{each}")
            properties |= listed
            required += needed if each == "optional_parameters" else list(listed)
        return {"type": "object", "properties": properties, "required": required}
    if key is None:
        return {}
    value, where = entry[key], f"{where}.{key}"
    if isinstance(value, str):
        value = parse_json(value, where) if value.strip() else {}
    if isinstance(value, list):
        if not value:
            return {}
        properties, required = _listed(value, where)
        return {"type": "object", "properties": properties, "required": required}
    return _schema(expect(value, dict, where), where, notes)


def _listed(entries: list[Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """Return the properties and the required names of a list of `{"name": ..., "type": ...}`."""
    flat = {}
    for i, entry in enumerate(entries):
        name = member(expect(entry, dict, f"{where}[{i}]"), "name", str, f"{where}[{i}]")
        flat[name] = {key: value for key, value in entry.items() if key != "name"}
    return _flat(flat, where)


def _schema(schema: dict[str, Any], where: str, notes: Counter[str]) -> dict[str, Any]:
    """Return a schema with `properties`, without nulls and with its references replaced."""
    kept = _without_nulls(schema)
    if (dropped := len(_nulls(schema))) > 0:
        notes["tools: null keywords of schemas left out"] += dropped
    resolved = _References(kept, where).resolve(kept, ())
    for keyword in ("$defs", "definitions"):
        resolved.pop(keyword, None)
    if isinstance(parts := resolved.get("allOf"), list) and "properties" not in resolved:
        resolved = _merged(resolved, parts, where)
    if "properties" not in resolved:
        if not any(key in resolved for key in _COMBINED):
            if resolved.keys() <= _WITHOUT_CONTENT and not (resolved.get("required") or _is_flat(resolved)):
                return resolved
            if _is_flat(resolved):
                properties, required = _flat(resolved, where)
                return {"type": "object", "properties": properties, "required": required}
        raise FieldError(where, "a JSON schema with `properties`, or parameter names with their schemas", shown(schema))
    for name, each in optional(resolved, "properties", {}, where).items():
        place = f"{where}.properties.{name}"
        each = expect({} if each is True else each, dict, place)
        optional(each, "description", "", place)
        resolved["properties"][name] = each
    return resolved | _required(resolved, where)


def _required(schema: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the list `required`; JSON schema draft 3 writes `required: true` in each parameter instead."""
    if "required" in schema and not isinstance(schema["required"], bool):
        for i, name in enumerate(optional(schema, "required", [], where)):
            expect(name, str, f"{where}.required[{i}]")
        return {}
    marked = [name for name, each in schema["properties"].items() if each.get("required") is True]
    if not marked and "required" not in schema:
        return {}
    return {"required": marked}


def _merged(schema: dict[str, Any], parts: list[Any], where: str) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for i, part in enumerate(parts):
        part = expect(part, dict, f"{where}.allOf[{i}]")
        properties |= optional(part, "properties", {}, f"{where}.allOf[{i}]")
        required += optional(part, "required", [], f"{where}.allOf[{i}]")
    if not properties:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("allOf", "required")}
    return {**rest, "properties": properties, "required": [*required, *(schema.get("required") or [])]}


def _is_flat(schema: Mapping[str, Any]) -> bool:
    """Return whether each key is a parameter's name and each value its schema."""
    words = {"type", "description", "default", "enum"}
    return bool(schema) and all(isinstance(value, dict) and words & value.keys() for value in schema.values())


def _flat(parameters: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """Return the properties and the required names of parameters that are not under `properties`."""
    properties: dict[str, Any] = {}
    required = []
    for name, schema in parameters.items():
        schema = dict(expect(schema, dict, f"{where}.{name}"))
        needed = schema.pop("required", None)
        declared = schema.get("type")
        if isinstance(declared, str):
            inner = _OPTIONAL.sub(lambda match: match[1] or "", declared.strip())
            is_optional = inner != declared.strip()
            word = re.split(r"[\[<(]", inner, maxsplit=1)[0].strip().lower()
            schema["type"] = _PYTHON_TYPES.get(word, inner.strip())
        else:
            is_optional = False
        if needed is True or (needed is None and not is_optional and "default" not in schema):
            required.append(name)
        properties[name] = schema
    return properties, required


_LITERAL = ("enum", "examples", "const")
"""Keywords whose values are data, so null means null."""


_UPPER = {word.upper(): word for word in ("string", "number", "integer", "boolean", "array", "object", "null")}
"""Gemini's type names."""


def _without_nulls(value: Any) -> Any:
    """Return the schema without null keywords, and with JSON schema's type names."""
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    kept = {key: inner for key, inner in value.items() if inner is not None or key == "const"}
    kept = {key: inner if key in _LITERAL else _without_nulls(inner) for key, inner in kept.items()}
    if isinstance(kept.get("type"), str):
        kept["type"] = _UPPER.get(kept["type"], kept["type"])
    return kept


def _nulls(value: Any) -> list[str]:
    """Return the names of the null keywords at any depth."""
    if isinstance(value, dict):
        own = [key for key, inner in value.items() if inner is None and key not in ("const", "default")]
        return own + [name for key, inner in value.items() if key not in _LITERAL for name in _nulls(inner)]
    return [name for inner in value for name in _nulls(inner)] if isinstance(value, list) else []


class _References:
    """Replaces `$ref: "#/..."` by what it names in `root`; a recursive one becomes `{}`, which admits any type."""

    def __init__(self, root: dict[str, Any], where: str) -> None:
        self.root, self.where, self.nodes = root, where, 0

    def resolve(self, value: Any, inside: tuple[str, ...]) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise FieldError(self.where, f"a schema of at most {MAX_NODES:,} values", "more, with its references")
        if isinstance(value, list):
            return [self.resolve(inner, inside) for inner in value]
        if not isinstance(value, dict):
            return value
        name = value.get("$ref")
        if isinstance(name, str):
            beside = {key: inner for key, inner in value.items() if key != "$ref"}
            named = {} if name in inside else self.resolve(self._named(name), (*inside, name))
            return {**named, **self.resolve(beside, inside)}
        return {
            key: inner if key in _LITERAL else self.resolve(inner, inside)
            for key, inner in value.items()
            if inside or key not in ("$defs", "definitions")
        }

    def _named(self, name: str) -> dict[str, Any]:
        place: Any = self.root
        for step in name.removeprefix("#").strip("/").split("/") if name.startswith("#") else [""]:
            step = step.replace("~1", "/").replace("~0", "~")
            place = place.get(step) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise FieldError(f"{self.where}.$ref", "a reference to a schema in this tool (#/$defs/NAME)", shown(name))
        return place
