"""The documented functions of a user's Python file, as tools.

A tool is a public name of the file for a function that the file defines, or for a method of an object of its own
(`look_up = Shop().look_up`), decorated or not.
"""

from __future__ import annotations

import enum
import importlib.util
import inspect
import sys
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tltrain.data.reading import expect_tools
from tltrain.errors import FieldError, TltrainError
from tltrain.runtime import own_code, targets
from tltrain.trajectory import FINISH, Tool


def documented_tools(file: Path) -> tuple[Tool, ...]:
    """Return the documented functions of a Python file as tools, without those whose names begin with `_`.

    The file is imported here to read its documentation; its functions only run in a `Sandbox`.

    Raises:
        TltrainError: the file cannot be imported, has no such function, or has one that is not documented.
    """
    if not file.stem.isidentifier():
        raise TltrainError(f"{file}: expected a Python file with the name of a module, such as my_tools.py")
    return offered(file, functions(file.resolve()))


def offered(file: Path, functions: Mapping[str, Callable[..., Any]]) -> tuple[Tool, ...]:
    """Return the public ones among a file's functions as tools.

    Raises:
        TltrainError: there is none, or one is not documented.
    """
    tools = tuple(documented(file, name, function) for name, function in functions.items() if not name.startswith("_"))
    if not tools:
        raise TltrainError(
            f"{file}: expected documented functions, found no function whose name begins without _; a method is a tool "
            "if the file gives it a name, such as switch = Lamp().switch"
        )
    return tools


def functions(file: Path) -> dict[str, Callable[..., Any]]:
    """Import a file and return the functions and methods that it defines by their names in it, in their order.

    Raises:
        TltrainError: the file cannot be imported, or would not be found where tools run.
    """
    if file.stem in sys.stdlib_module_names:
        raise TltrainError(f"{file}: this is the name of a module of Python's standard library, found first: rename it")
    name = f"tools_of_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # of a Python file
    module = importlib.util.module_from_spec(spec)
    own_code.find([file.parent])  # for imports from its own folder
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise TltrainError(f"{file}: cannot be imported: {targets.told(error)}") from error
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isroutine(value) and getattr(value, "__module__", None) == module.__name__
    }


def documented(file: Path, name: str, function: Callable[..., Any]) -> Tool:
    """Return the documentation of a function, under its name in the file.

    Raises:
        TltrainError: the function is not documented, lacks a type hint, or cannot be called by a model.
    """
    from transformers.utils import get_json_schema  # here, since `--help` needs no transformers
    from transformers.utils.chat_template_utils import DocstringParsingException, TypeHintParsingException

    where = f"{file}: {name}"
    if name == FINISH:
        raise TltrainError(f"{where}: ends the conversation and is always on offer: give the function another name")
    if inspect.iscoroutinefunction(function):
        raise TltrainError(
            f"{where}: expected a function, found a coroutine (async def); a function can return "
            f"asyncio.run(_{name}(...))"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TltrainError(f"{where}: expected a function that returns its result, found a generator (yield)")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TltrainError(f"{where}: its parameter {parameter} has to be one that is given by name")
    try:
        schema = get_json_schema(function)
    except (DocstringParsingException, TypeHintParsingException, NameError, TypeError, ValueError) as error:
        raise TltrainError(
            f"{where}: expected a docstring with a line for each parameter under Args:, and type hints ({error}); "
            "a function whose name begins with _ is not a tool"
        ) from error
    for argument, hint in typing.get_type_hints(function).items():
        for kind in _enums(hint) if argument != "return" else ():
            values = ", ".join(repr(member.value) for member in kind)
            raise TltrainError(
                f"{where}: its parameter {argument} is an Enum, and tools are called with plain values, not its "
                f"members: write typing.Literal[{values}]"
            )
    schema["function"]["name"] = name
    try:
        (tool,) = expect_tools([schema], name, Counter())
    except FieldError as error:
        raise TltrainError(f"{file}: {error}") from None
    return tool


def _enums(hint: Any) -> Iterator[type[enum.Enum]]:
    """Yield the Enum classes in a type hint."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        yield hint
    for part in typing.get_args(hint):
        yield from _enums(part)
