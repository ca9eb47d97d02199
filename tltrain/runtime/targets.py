"""Extension points: the function that a choice of a group names, the keys that it reads, and how it is called.

A choice names a built-in function by `name`, or any function by `_target_: module.attribute`, where the module is a
file beside the user's configuration (`own_code`) or part of an installed package. A function declares its keys in one
of three ways:

- its first parameter is annotated with a dataclass: it is called with the node of the configuration;
- it is a class: it is constructed with the keys in its signature; the object is called if the class is a dataclass or
  the extension point needs a function;
- otherwise its parameters are the keys, and it is called with them by name.

Values that the program provides (`config.DOORS`) are passed to functions with a parameter of that name.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import omegaconf
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tltrain import config
from tltrain.config import FileBenchmark, FileData
from tltrain.config.keys import Key
from tltrain.errors import TltrainError, shorten, suggestion
from tltrain.runtime import own_code
from tltrain.runtime.resolver import resolve

TARGET = "_target_"
UNNAMED = {"reward": "table", "weighting": "pkt"}
"""Group -> the function of a choice without a name."""
PROVIDED = frozenset(name for names in config.DOORS.values() for name in names)
"""Parameters that are not keys, of all extension points."""


def named(node: DictConfig, table: Mapping[str, Callable], group: str) -> Callable:
    """Return the function that a node names.

    Args:
        table: our functions, by the node's `name`.

    Raises:
        TltrainError: there is no such function.
    """
    target = node.get(TARGET)
    if target is None:
        name = str(node.get("name") or UNNAMED.get(group))
        if name not in table:
            raise TltrainError(f"{group}.name: expected one of {', '.join(table)}, found {name}")
        return table[name]
    return _found(str(target), f"{group}.{TARGET}={target}")


def _found(target: str, where: str) -> Callable:
    module, _, attribute = target.rpartition(".")
    if not module:
        raise TltrainError(f"{where}: expected package.module.attribute, found no module: FILE.{target} for FILE.py")
    own_code.find(own_code.of_run())
    try:
        found = resolve(f"{module}:{attribute}")
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):  # another module, which this one imports
            raise TltrainError(f"{where}: the module cannot be imported: {told(error)}") from error
        looked = ", ".join(own_code.found())
        hint = (
            f" (looked in {looked} and the installed packages)" if looked else "; --config-dir FOLDER finds its files"
        )
        raise TltrainError(f"{where}: expected package.module.attribute, found: {error}{hint}") from error
    except AttributeError as error:
        if (loaded := sys.modules.get(module)) is None:
            raise TltrainError(f"{where}: {told(error)}") from error
        near = suggestion(attribute, [name for name in vars(loaded) if not name.startswith("_")])
        file = getattr(loaded, "__file__", None) or "a package without a file"
        raise TltrainError(f"{where}: {file} has no {attribute}{near}") from error
    except Exception as error:  # the user's module may raise anything while it is imported
        raise TltrainError(f"{where}: the module cannot be imported: {told(error)}") from error
    if not callable(found):
        raise TltrainError(f"{where}: expected a function or a class, found {type(found).__name__}")
    return found


def file_of(node: Mapping[str, Any], group: str) -> Path | None:
    """Return the file of the function that a node names by `_target_`; its content determines what the function does.

    Raises:
        TltrainError: there is no such function.
    """
    if node.get(TARGET) is None:
        return None
    function = inspect.unwrap(named(OmegaConf.create({TARGET: node[TARGET]}), {}, group))
    try:
        file = inspect.getsourcefile(function)
    except TypeError:  # it is built into Python
        return None
    return None if file is None else Path(file)


def call(node: DictConfig, table: Mapping[str, Callable], group: str, **provided: Any) -> Any:
    """Return the result of the function that a node names (see `named`) for the node's settings.

    Args:
        provided: values that the program provides (`config.DOORS`).

    Raises:
        TltrainError: there is no such function, or a key without a default is not set.
    """
    function = named(node, table, group)
    if settings_of(function) is not None:
        return function(node, **_wanted(function, provided))
    values = values_of(node, function, group)
    if isinstance(function, type) and is_dataclass(function):
        made: Any = function(**values)
        return made(**_wanted(made, provided))
    return function(**values, **_wanted(function, provided))


def made(node: DictConfig, function: Callable, group: str) -> Any:
    """Return the object that a class constructs from its keys, or that a function returns for them.

    Raises:
        TltrainError: a key without a default is not set.
    """
    return function(node) if settings_of(function) is not None else function(**values_of(node, function, group))


def given(function: Callable, **provided: Any) -> Any:
    """Call a function with those of the values for which it has a parameter, and return its result."""
    return function(**_wanted(function, provided))


def bound(node: DictConfig, function: Callable, group: str) -> Callable[..., Any]:
    """Return a function with its keys bound, for repeated calls with the values that the program provides, by name.

    Raises:
        TltrainError: a key without a default is not set, or a class refuses its keys.
    """
    first: tuple[Any, ...] = ()
    values: dict[str, Any] = {}
    if isinstance(function, type):
        with explained(f"{group}.{TARGET}={node.get(TARGET)}"):
            kind, function = function, made(node, function, group)
        if not callable(function):
            raise TltrainError(
                f"{group}.{TARGET}={node.get(TARGET)}: expected a function, or a class whose objects are called; "
                f"{kind.__name__} has no method __call__"
            )
    elif settings_of(function) is not None:
        first = (node,)
    else:
        values = values_of(node, function, group)
    wanted = frozenset(_parameters(function))

    def called(**provided: Any) -> Any:
        return function(*first, **values, **{name: value for name, value in provided.items() if name in wanted})

    return called


def values_of(node: DictConfig, function: Callable, group: str) -> dict[str, Any]:
    """Return the values of a function's keys as plain values; raise TltrainError if one is not set."""
    check_given(node, function, group)
    given = {name: node[name] for name in own_keys(function, group)}
    return {
        name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for name, value in given.items()
    }


def check_given(node: DictConfig, function: Callable, group: str) -> None:
    """Raise a TltrainError if a key without a default is not set."""
    for name in [] if settings_of(function) is not None else own_keys(function, group):
        if OmegaConf.is_missing(node, name):
            provided = ", ".join(config.DOORS.get(group.partition(".")[0], ()))
            besides = f" (provided without a key: {provided})" if node.get(TARGET) is not None else ""
            who = f"{group}={node.get('name') or node.get(TARGET)}"
            raise TltrainError(f"{group}.{name}: {who} needs this key: give {group}.{name}=VALUE{besides}")


def own_keys(function: Callable, group: str = "") -> list[str]:
    """Return the parameters of a function that are keys."""
    provided = config.DOORS.get(group.partition(".")[0], PROVIDED)
    return [name for name in _parameters(function) if name not in provided]


class explained:
    """Turn an exception of a user's code in the block into a one-line TltrainError with its file and line.

    Args:
        where: the key that names the code, or the record passed to it.
    """

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, TltrainError | OSError):
            raise TltrainError(f"{self.where}: {told(error)}") from error


def told(error: BaseException) -> str:
    """Return an exception of a user's code in one line, with its innermost place outside this package and libraries."""
    said = f"{type(error).__name__}: {shorten(str(error), 300)}".removesuffix(": ")
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    ours = str(Path(__file__).parents[1])
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    frames = [frame for frame in frames if not frame.filename.startswith("<")]
    theirs = [frame for frame in frames if any(frame.filename.startswith(place) for place in own_code.found())]
    last = (theirs or frames)[-1:]
    return f"{said} ({Path(last[0].filename).name}, line {last[0].lineno})" if last else said


@cache
def schema_of(function: Callable, common: type, provided: Collection[str] = PROVIDED) -> type:
    """Return the dataclass of the keys that are read: the function's, and those of `common`, which its caller reads.

    Raises:
        TltrainError: the function has an annotation that is not a type of a configuration.
    """
    if "record" in called_with(function):  # the file is opened for it
        common = next((each for each in (FileData, FileBenchmark) if issubclass(each, common)), common)
    own: Any = function if is_dataclass(function) else settings_of(function)
    if own is not None and issubclass(own, common):
        return own
    if own is not None:
        hints = get_type_hints(own)
        stated = [
            _field(each.name, hints[each.name], each.default, each.default_factory, each.metadata)
            for each in fields(own)
        ]
    else:
        stated = [
            _field(each.name, Any if each.annotation is each.empty else each.annotation, each.default)
            for each in _parameters(function).values()
            if each.name not in provided
        ]
    if not stated:
        return common
    theirs = {name for name, *_ in stated}
    schema = make_dataclass(function.__name__, stated, bases=(common,))
    for name in theirs:
        try:
            OmegaConf.structured(make_dataclass("Key", [each for each in stated if each[0] == name]))
        except OmegaConfBaseException as error:
            raise TltrainError(
                f"{function.__module__}.{function.__name__}: a configuration does not support the type of its "
                f"parameter {name} ({str(error).splitlines()[0]}): use bool, int, float, str, Path, Enum, Literal, or "
                "list[...] or dict[str, ...] of these; without an annotation it takes any value"
            ) from error
    return schema


def called_with(function: Callable) -> Collection[str]:
    """Return the parameters with which a function is called; for a class, those of its objects."""
    if not isinstance(function, type):
        return _parameters(function)
    method = next((vars(kind)["__call__"] for kind in function.__mro__ if "__call__" in vars(kind)), None)
    return () if method is None else _parameters(method)


def settings_of(function: Callable) -> type | None:
    """Return the dataclass that annotates the function's first parameter, if one does."""
    if is_dataclass(function):
        return None
    first = next(iter(_parameters(function).values()), None)
    stated: Any = None if first is None or first.name in PROVIDED else first.annotation
    return stated if isinstance(stated, type) and is_dataclass(stated) else None


def _parameters(function: Callable) -> Mapping[str, inspect.Parameter]:
    """Return the named parameters of a function.

    Raises:
        TltrainError: its signature cannot be read, or an annotation refers to an undefined name.
    """
    where = getattr(function, "__qualname__", type(function).__name__)
    try:
        found = _evaluated(function)
    except (NameError, AttributeError, TypeError, ValueError, SyntaxError) as error:
        raise TltrainError(f"{getattr(function, '__module__', '')}.{where}: its signature: {error}") from error
    for name, each in found.items():
        if each.kind is each.POSITIONAL_ONLY:
            raise TltrainError(f"{function.__module__}.{where}: its parameter {name} must accept a value by name")
    return {name: each for name, each in found.items() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}


def _evaluated(function: Callable) -> Mapping[str, inspect.Parameter]:
    """Return the parameters with annotations as types; those of `PROVIDED` may be from modules that are not loaded."""
    try:
        return inspect.signature(function, eval_str=True).parameters
    except NameError:
        names = vars(sys.modules[function.__module__])
        found = {}
        for name, each in inspect.signature(function).parameters.items():
            if name in PROVIDED:
                each = each.replace(annotation=each.empty)
            elif isinstance(each.annotation, str):
                each = each.replace(annotation=eval(each.annotation, names))  # the user's own code
            found[name] = each
        return found


def _wanted(function: Callable, provided: Mapping[str, Any]) -> dict[str, Any]:
    names = _parameters(function)
    return {name: value for name, value in provided.items() if name in names}


def _field(
    name: str, hint: Any, default: Any, factory: Any = MISSING, metadata: Mapping[str, Any] | None = None
) -> tuple[str, Any, Any]:
    """Return a field with a `Key` and a default, which a field must have after those of another dataclass."""
    carried = {"key": Key("")} | dict(metadata or {})
    if get_origin(hint) is Literal:
        hint, carried["key"] = Any, Key(carried["key"].meaning, among=get_args(hint))
    if isinstance(default, list | dict):
        factory = default.copy
    if factory is not MISSING:
        return name, hint, field(default_factory=factory, metadata=carried)
    none = default is MISSING or default is inspect.Parameter.empty
    return name, hint, field(default=omegaconf.MISSING if none else default, metadata=carried)
