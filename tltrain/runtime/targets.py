"""The function that a choice of a group names, and the keys that it reads.

A choice names a function of ours by `name`, or one of anybody's by `_target_: package.module.attribute`. It states its
keys in one of three ways, and is called accordingly:

- its first parameter is annotated with a dataclass: it is called with the node of the configuration;
- it is a dataclass: one is made of the node, and the object is called;
- else its parameters are the keys, and it is called with them by name.

What the program provides besides (`PROVIDED`) reaches those that have a parameter of that name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import omegaconf
from omegaconf import DictConfig, OmegaConf

from tltrain.config.keys import Key
from tltrain.errors import TltrainError
from tltrain.runtime.resolver import resolve

TARGET = "_target_"
PROVIDED = ("cfg", "seed", "report", "folder")
"""Parameters that are no keys: the whole configuration, its seed, what a reader counts in (`ReadReport`), and the run's
folder."""


def named(node: DictConfig, table: Mapping[str, Callable], group: str) -> Callable:
    """The function that a node names.

    Args:
        table: our functions, by the node's `name`.

    Raises:
        TltrainError: there is no such function.
    """
    target = node.get(TARGET)
    if target is None:
        if node.name not in table:
            raise TltrainError(f"{group}.name: expected one of {', '.join(table)}, found {node.name}")
        return table[node.name]
    module, _, attribute = str(target).rpartition(".")
    try:
        found = resolve(f"{module}:{attribute}")
    except (ImportError, AttributeError, ValueError) as error:
        raise TltrainError(f"{group}.{TARGET}={target}: expected package.module.attribute, found: {error}") from error
    if not callable(found):
        raise TltrainError(f"{group}.{TARGET}={target}: expected a function or a class, found {type(found).__name__}")
    return found


def file_of(node: Mapping[str, Any], group: str) -> Path | None:
    """The file of the function that a node names by `_target_`; its content decides what the function does.

    Raises:
        TltrainError: there is no such function.
    """
    if node.get(TARGET) is None:
        return None
    file = inspect.getsourcefile(inspect.unwrap(named(OmegaConf.create({TARGET: node[TARGET]}), {}, group)))
    return None if file is None else Path(file)


def call(node: DictConfig, table: Mapping[str, Callable], group: str, **provided: Any) -> Any:
    """What the function that a node names (see `named`) gives for the node's settings.

    Args:
        provided: what the program provides, of `PROVIDED`.

    Raises:
        TltrainError: there is no such function, or a key without a default is not set.
    """
    function = named(node, table, group)
    if settings_of(function) is not None:
        return function(node, **_wanted(function, provided))
    keys = [name for name in _parameters(function) if name not in PROVIDED]
    for name in keys:
        if OmegaConf.is_missing(node, name):
            raise TltrainError(f"{group}.{name}: {group}={node.name} needs this key: give {group}.{name}=VALUE")
    given = {name: node[name] for name in keys}
    values = {
        name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for name, value in given.items()
    }
    if isinstance(function, type) and is_dataclass(function):
        made: Any = function(**values)
        return made(**_wanted(made, provided))
    return function(**values, **_wanted(function, provided))


@cache
def schema_of(function: Callable, common: type) -> type:
    """The dataclass of the keys that are read: those of the function, and those of `common`, which its caller reads."""
    own: Any = function if is_dataclass(function) else settings_of(function)
    if own is not None and issubclass(own, common):
        return own
    if own is not None:
        hints = get_type_hints(own)
        stated = [
            (each.name, hints[each.name], _field(each.default, each.default_factory, each.metadata))
            for each in fields(own)
        ]
    else:
        stated = [
            (each.name, Any if each.annotation is each.empty else each.annotation, _field(each.default))
            for each in _parameters(function).values()
            if each.name not in PROVIDED
        ]
    return make_dataclass(function.__name__, stated, bases=(common,))


def settings_of(function: Callable) -> type | None:
    """The dataclass that annotates the function's first parameter, if one does."""
    if is_dataclass(function):
        return None
    first = next(iter(_parameters(function).values()), None)
    stated: Any = None if first is None else first.annotation
    return stated if isinstance(stated, type) and is_dataclass(stated) else None


def _parameters(function: Callable) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function, eval_str=True).parameters


def _wanted(function: Callable, provided: Mapping[str, Any]) -> dict[str, Any]:
    names = inspect.signature(function).parameters
    return {name: value for name, value in provided.items() if name in names}


def _field(default: Any, factory: Any = MISSING, metadata: Mapping[str, Any] | None = None) -> Any:
    """A field with a default, which one that follows those of another dataclass must have, and with a `Key`."""
    carried = {"key": Key("")} | dict(metadata or {})
    if isinstance(default, list | dict):
        factory = default.copy
    if factory is not MISSING:
        return field(default_factory=factory, metadata=carried)
    none = default is MISSING or default is inspect.Parameter.empty
    return field(default=omegaconf.MISSING if none else default, metadata=carried)
