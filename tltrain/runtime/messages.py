"""JSON messages between the processes of a run; unlike reading a pickle, reading them runs no code.

Plain values are written as JSON. An object with one key that begins with `$` encodes any other kind of value: a path, a
dataclass of this package by its name and fields, a part of the configuration with its schemas.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from tltrain.errors import TltrainError
from tltrain.runtime.resolver import resolve
from tltrain.trajectory import ANY


def encode(value: Any) -> bytes:
    """Encode a value as JSON.

    Raises:
        TltrainError: it contains a value of a type that has no encoding.
    """
    return json.dumps(_to_json(value), separators=(",", ":")).encode("ascii")


def decode(text: bytes) -> Any:
    """Decode what `encode` returned. Raise ValueError for any other text."""
    try:
        return _from_json(json.loads(text))
    except (KeyError, TypeError, AttributeError, ImportError, RecursionError) as error:
        raise ValueError(f"not a message: {error}") from error


def _to_json(value: Any) -> Any:
    if isinstance(value, Enum):
        return {"$enum": [_name(type(value)), value.name]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, DictConfig | ListConfig):
        return {"$config": _config_to_json(value)}
    if value is ANY:
        return {"$any": None}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if type(value) is tuple:
        return {"$tuple": [_to_json(item) for item in value]}
    if isinstance(value, Path):
        return {"$path": str(value)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _to_json(item) for key, item in value.items()}
        return {"$items": [[_to_json(key), _to_json(item)] for key, item in value.items()]}
    if _is_ours(type(value)):
        own = {each.name: _to_json(getattr(value, each.name)) for each in fields(value) if each.init}
        return {"$dataclass": [_name(type(value)), own]}
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TltrainError(f"processes cannot exchange a value of the type {kind}: use text, numbers or lists")


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag: str
    content: Any
    tag, content = next(iter(value.items()), ("", None))
    if not tag.startswith("$"):
        return {key: _from_json(item) for key, item in value.items()}
    match tag:
        case "$any":
            return ANY
        case "$tuple":
            return tuple(_from_json(item) for item in content)
        case "$path":
            return Path(content)
        case "$items":
            return {_from_json(key): _from_json(item) for key, item in content}
        case "$enum":
            kind = _type(content[0])
            if not issubclass(kind, Enum):
                raise ValueError(f"{content[0]} is not an enumeration")
            return kind[content[1]]
        case "$dataclass":
            kind = _type(content[0])
            if not _is_ours(kind):
                raise ValueError(f"{content[0]} is not a dataclass of this package")
            return kind(**{name: _from_json(item) for name, item in content[1].items()})
        case "$config":
            return _config_from_json(content)
    raise ValueError(f"unknown kind of value {tag}")


# --- types by name ---------------------------------------------------------------------------------------------------


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _type(name: str) -> type:
    module, _, path = name.partition(":")
    outer, *inner = path.split(".")  # a class may be nested in another
    found = reduce(getattr, inner, resolve(f"{module}:{outer}"))
    if not isinstance(found, type):
        raise ValueError(f"{name} is not a type")
    return found


def _is_ours(kind: type) -> bool:
    return is_dataclass(kind) and kind.__module__.partition(".")[0] == "tltrain"


# --- configurations --------------------------------------------------------------------------------------------------


def _config_to_json(node: DictConfig | ListConfig) -> dict[str, Any]:
    """Return unresolved values, and by position the schemas of nodes and the changes of `struct` and `readonly`."""
    schemas: list[Any] = []
    flags: list[Any] = []
    before = {(): (False, False)}
    for place, part in _nodes(node):
        own = bool(OmegaConf.is_struct(part)), bool(OmegaConf.is_readonly(part))
        if own != before.get(place[:-1], (False, False)) or not place:
            flags.append([place, *own])
        before[place] = own
        if (schema := _schema(part)) is not None:
            schemas.append([place, _name(schema)])
    return {"values": _to_json(OmegaConf.to_container(node, resolve=False)), "schemas": schemas, "flags": flags}


def _config_from_json(content: Mapping[str, Any]) -> DictConfig | ListConfig:
    schemas = {tuple(place): _type(name) for place, name in content["schemas"]}
    node = _built(_from_json(content["values"]), (), schemas)
    for _, part in _nodes(node):
        OmegaConf.set_struct(part, None)
    for place, struct, readonly in content["flags"]:
        part = reduce(getitem, place, node)
        OmegaConf.set_struct(part, struct)
        OmegaConf.set_readonly(part, readonly)
    return node


def _built(values: Any, place: tuple[Any, ...], schemas: Mapping[tuple[Any, ...], type]) -> Any:
    if isinstance(values, list):
        return OmegaConf.create([_built(item, (*place, i), schemas) for i, item in enumerate(values)])
    if not isinstance(values, dict):
        return values
    node = OmegaConf.structured(schemas[place]) if place in schemas else OmegaConf.create({})
    OmegaConf.set_struct(node, False)
    for key in [key for key in node if key not in values]:
        del node[key]
    for key, item in values.items():
        node[key] = _built(item, (*place, key), schemas)
    content = node.__dict__["_content"]  # restore the order of keys, which a schema changes and omegaconf cannot
    for key in values:
        content[key] = content.pop(key)
    return node


def _nodes(node: DictConfig | ListConfig, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield each mapping and list with its position, outer ones first."""
    yield place, node
    keys: Iterable[Any] = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            inner = node[key]
            if isinstance(inner, DictConfig | ListConfig):
                yield from _nodes(inner, (*place, key))


def _schema(node: DictConfig | ListConfig) -> type | None:
    """Return the schema of a node; if it was made at run time (`runtime.targets`) and has no name, its base class."""
    kind = OmegaConf.get_type(node)
    if not is_dataclass(kind):
        return None
    return next((one for one in kind.__mro__ if is_dataclass(one) and _has_name(one)), None)


def _has_name(kind: type) -> bool:
    try:
        return _type(_name(kind)) is kind
    except (ImportError, AttributeError, ValueError):
        return False
