'''Tools as Python function stubs, as the paper's models read documentation (released `mae.py`).

    Function:
    def search(query: string, limit: integer = None):
        """
        Searches the archive.

        Args:
        query (string): What to look for.
        limit (integer): How many results.
        """

Required parameters come first, in the order of the schema's `required`; the others follow in the order of its
`properties`. Stubs are joined by a blank line. If every parameter has a `type` string and a `description`, the text is
identical to the released code's. Schemas that the released code cannot write are written as follows:

- no `type`: the types of `anyOf` / `oneOf`, else `any`; a list of types is joined by ` | `;
- no `description`: nothing after the colon;
- a name in `required` that `properties` lacks: a parameter of type `any`.

This form omits other keywords of a parameter (`enum`, `default`, `items`, ...). `not_rendered` names them, so that the
readers of data can count what the model will not see; `full_stubs` writes them.
'''

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tltrain.errors import TltrainError
from tltrain.trajectory import Tool

ANY_TYPE = "any"
"""The type of a parameter whose schema states none."""


Describe = Callable[[Mapping[str, Any]], str]
"""A function from a parameter's schema to the text after its type."""
SHOWN = ("type", "description", "anyOf", "oneOf")
"""The keywords of a schema that the stub shows."""


def description_of(schema: Mapping[str, Any]) -> str:
    """Return the description alone, as in the paper."""
    return schema.get("description") or ""


def render_tools(tools: Sequence[Tool], describe: Describe = description_of) -> str:
    """Return the stubs of `tools`, joined by a blank line."""
    return "\n\n".join(render_tool(tool, describe) for tool in tools)


def render_tool(tool: Tool, describe: Describe = description_of) -> str:
    """Return one tool as a stub."""
    parameters = [*tool.required, *(name for name in tool.properties if name not in tool.required)]
    types = {name: type_of(_schema(tool, name)) for name in parameters}
    signature = ", ".join(
        f"{name}: {types[name]}" + ("" if name in tool.required else " = None") for name in parameters
    )
    lines = (f"\n    {name} ({types[name]}): {describe(_schema(tool, name))}" for name in parameters)
    return (
        f'Function:\ndef {tool.name}({signature}):\n    """\n    {tool.description}\n\n    Args:'
        + "".join(lines)
        + '\n    """'
    )


def not_rendered(tool: Tool) -> set[str]:
    """Return the keywords of the parameters' schemas, and of their choices, that the stub omits, such as `enum`."""
    return {keyword for name in tool.properties for keyword in _keywords(_schema(tool, name))} - {*SHOWN}


def _keywords(schema: Mapping[str, Any]) -> Iterator[str]:
    pending: list[Any] = [schema]
    while pending:
        each = pending.pop()
        if isinstance(each, Mapping):
            yield from each
            pending += [choice for key in ("anyOf", "oneOf") for choice in _list(each.get(key))]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _schema(tool: Tool, name: str) -> Mapping[str, Any]:
    return tool.properties.get(name) or {}


def type_of(schema: Mapping[str, Any]) -> str:
    """Return the type as the stub writes it."""
    declared = schema.get("type")
    if isinstance(declared, str):
        return declared
    if isinstance(declared, Sequence) and declared:
        return " | ".join(map(str, declared))
    choices = schema.get("anyOf") or schema.get("oneOf")
    choices = choices if isinstance(choices, Sequence) else ()
    types = dict.fromkeys(type_of(choice) for choice in choices if isinstance(choice, Mapping))
    return " | ".join(types) or ANY_TYPE


# --- reading --------------------------------------------------------------------------------------------------------

_START = re.compile(r"Function:\s*\ndef ")
_BETWEEN = re.compile(r'\n    """[ \t]*\n\s*(?=Function:\s*\ndef )')
_END = re.compile(r'\n[ \t]*"""\Z')
_HEAD = re.compile(r'Function:\s*\ndef ([^(\n]+)\(([^\n]*)\):[ \t]*\n    """[ \t]*(?:\n(?:    )?|\Z)')
_ARGS = "\n\n    Args:"
_PYTHON_TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
}


def read_system(text: str) -> tuple[str, tuple[Tool, ...]]:
    """Split a system message into the instructions before the first stub (often none) and the tools.

    Raises:
        TltrainError: a stub cannot be read.
    """
    start = _START.search(text)
    if start is None:
        return text.strip(), ()
    return text[: start.start()].strip(), read_tools(text[start.start() :])


def read_tools(text: str) -> tuple[Tool, ...]:
    """Read tools that `render_tools` wrote, or that a person wrote like the example in the released code's README.

    That example has `slip_id:str` in the signature but `string` in the line under `Args:`, which counts; it indents
    these lines further, omits an empty `Args:` and ends in blank lines. Names may contain anything except line breaks,
    white space at either end and, in a tool's name, `(`. Parameters without `= None` are `required`, properties keep
    the order of the text, and `any` becomes a schema without a type.

    Raises:
        TltrainError: the text is not a sequence of stubs, or a parameter of a signature has no line under `Args:`.
    """
    text = _END.sub("", text.strip())
    return tuple(map(_read_stub, _BETWEEN.split(text))) if text else ()


def _read_stub(stub: str) -> Tool:
    """Read one tool from a stub without its last line of quotes."""
    head = _HEAD.match(stub)
    if head is None:
        shown = " ".join(stub[:60].split())
        raise TltrainError(f'tool documentation: expected `Function:`, `def name(...):` and `"""`, found `{shown}`')
    name = head[1].strip()
    description, parameters = _split_body(name, head[2], stub[head.end() :])
    return Tool(
        name,
        description,
        {
            "type": "object",
            "properties": {parameter: schema for parameter, schema, _ in parameters},
            "required": list(dict.fromkeys(parameter for parameter, _, required in parameters if required)),
        },
    )


_Parameter = tuple[str, dict[str, Any], bool]
"""Name, schema, whether required."""


def _split_body(name: str, signature: str, body: str) -> tuple[str, list[_Parameter]]:
    """Split a docstring into its description and its parameters.

    The description may contain `Args:` too; the last `Args:` with a line for every parameter counts.
    """
    if not signature.strip():
        return body.removesuffix(_ARGS), []
    at = len(body)
    while (at := body.rfind(_ARGS, 0, at)) >= 0:
        parameters = _read_parameters(signature, body[at + len(_ARGS) :])
        if parameters is not None:
            return body[:at], parameters
    raise TltrainError(
        f"tool documentation: `{name}({signature})`: expected under `Args:` a line `name (type): ...` for each "
        "parameter, in the signature's order"
    )


def _read_parameters(signature: str, block: str) -> list[_Parameter] | None:
    """Return the parameters of `signature`, described by the lines of `block`; None if the two do not match.

    A line belongs to the previous description unless it begins as the signature's next parameter must. So names may
    contain a signature's punctuation, as RoTBench's `code:` and `return_err_outputpersistent=False` do.
    """
    parameters: list[_Parameter] = []
    at = 0
    for line in block.removeprefix("\n").split("\n"):
        found = _read_parameter(signature, at, line.lstrip(" "))
        if found is not None:
            parameter, at = found
            parameters.append(parameter)
        elif parameters:
            parameters[-1][1]["description"] += f"\n{line}"
        else:
            return None
    return parameters if at == len(signature) else None


def _read_parameter(signature: str, at: int, line: str) -> tuple[_Parameter, int] | None:
    """Read `line` as `name (type): description` of the parameter at `at` in the signature; also return its end."""
    for opening in re.finditer(r" \(", line):
        name = line[: opening.start()]
        if not signature.startswith(f"{name}:", at):
            continue
        for closing in re.compile(r"\):(?: |$)").finditer(line, opening.end()):
            type_ = line[opening.end() : closing.start()]
            written = "|".join(map(re.escape, (type_, _PYTHON_TYPES.get(type_, type_))))
            piece = re.compile(rf" ?(?:{written})( ?= ?None)?(?:, ?|$)").match(signature, at + len(name) + 1)
            if piece:
                schema = {**_type_schema(type_), "description": line[closing.end() :]}
                return (name, schema, piece[1] is None), piece.end()
    return None


def _type_schema(type_: str) -> dict[str, Any]:
    if type_ == ANY_TYPE:
        return {}
    return {"type": type_.split(" | ") if " | " in type_ else type_}
