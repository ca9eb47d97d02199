"""The documented functions of a user's Python file, as tools."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections import Counter
from pathlib import Path
from types import FunctionType

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
    found = functions(file.resolve())
    tools = tuple(documented(file, name, function) for name, function in found.items() if not name.startswith("_"))
    if not tools:
        raise TltrainError(f"{file}: expected documented functions, found no function whose name begins without _")
    return tools


def functions(file: Path) -> dict[str, FunctionType]:
    """Import a file and return the functions that it defines, in their order.

    Raises:
        TltrainError: the file cannot be imported.
    """
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
        if isinstance(value, FunctionType) and value.__module__ == module.__name__
    }


def documented(file: Path, name: str, function: FunctionType) -> Tool:
    """Return the documentation of a function.

    Raises:
        TltrainError: the function is not documented, lacks a type hint, or cannot be called by a model.
    """
    from transformers.utils import get_json_schema  # here, since `--help` needs no transformers
    from transformers.utils.chat_template_utils import DocstringParsingException, TypeHintParsingException

    where = f"{file}: {name}"
    if name == FINISH:
        raise TltrainError(f"{where}: ends the conversation and is always on offer: give the function another name")
    if inspect.iscoroutinefunction(function):
        raise TltrainError(f"{where}: expected a function, found a coroutine (async def)")
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
    try:
        (tool,) = expect_tools([schema], name, Counter())
    except FieldError as error:
        raise TltrainError(f"{file}: {error}") from None
    return tool
