"""What a domain is made of: tools that run, tasks that need them, and a state they share.

A tool is a typed Python function; its documentation is read off the function, so the two cannot diverge:

    @shop.tool
    def get_order_status(shop: Connection, /, order_id: str) -> dict:
        '''Tell where an order is now.

        order_id: id such as O-4821
        '''

A positional-only first parameter receives the domain's state and is no part of the documentation. The rest of the
docstring's lines describe one parameter each; a parameter with a default is optional.

A task is a generator that plays a perfect assistant. It yields first the values its queries may mention (receiving
the set of those that the chosen wording does mention), then each golden call (receiving what the tool really
answered), and returns the final answer, which is short and states what the answers said:

    @shop.task("What is the status of order {order_id}?", "[Where is|How is] order {order_id}?")
    def order_status(shop, rng):
        order_id = a_random_order(shop, rng)
        yield {"order_id": order_id}
        answer = yield call(get_order_status, order_id=order_id)
        return f"Order {order_id} is {answer['status']}."
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import date
from random import Random
from typing import Any

from tltrain.trajectory import Call, Tool

Plan = Generator[Any, Any, str]
"""What a task's function returns; see the module's docstring for what it yields."""

_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


class Failure(Exception):
    """A tool's own refusal ("no order with id O-1"), written in the shape its domain gives to errors."""


@dataclass(frozen=True)
class Vague:
    """A task's queries when the user leaves out a detail, what to ask then, and what the user replies.

    All three are templates like the task's queries; `reply` names the detail that `query` lacks.
    """

    query: str
    question: str
    reply: str


@dataclass(frozen=True)
class Task:
    """One thing users ask of a domain: the wordings of the query and the golden plan."""

    domain: Domain
    plan: Callable[[Any, Random], Plan]
    queries: tuple[str, ...]
    vague: Vague | None

    @property
    def name(self) -> str:
        """The name of the plan's function, unique within its domain."""
        return self.plan.__name__


@dataclass(frozen=True)
class ToolFunction:
    """A tool that runs: the function, its documentation, and the domain whose state it is given."""

    domain: Domain
    function: Callable[..., Any]
    tool: Tool
    stateful: bool


def no_state(rng: Random, today: date) -> None:
    """The state of a domain that keeps none."""


@dataclass(eq=False)
class Domain:
    """Tools about one thing.

    Args:
        name: what the domain is called in results.
        failure: writes a `Failure`'s message the way this domain's services do.
        setup: makes the state of a fresh conversation, from a random source and the conversation's "today".
    """

    name: str
    failure: Callable[[str], str]
    setup: Callable[[Random, date], Any] = no_state
    tools: dict[str, ToolFunction] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)

    def tool(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Register `function` as a tool of this domain; returns it unchanged."""
        documented, stateful = document(function)
        self.tools[documented.name] = ToolFunction(self, function, documented, stateful)
        return function

    def task(self, *queries: str, vague: Vague | None = None) -> Callable[[Callable[..., Plan]], Callable[..., Plan]]:
        """Register a plan under the wordings a user may choose (templates: `{value}`, `[one|another]`)."""

        def register(plan: Callable[..., Plan]) -> Callable[..., Plan]:
            self.tasks.append(Task(self, plan, queries, vague))
            return plan

        return register


def call(function: Callable[..., Any], **arguments: Any) -> Call:
    """The call of a tool by its function, so that a plan cannot misspell a name."""
    return Call(function.__name__, arguments)


def document(function: Callable[..., Any]) -> tuple[Tool, bool]:
    """The tool a typed function documents, and whether it wants its domain's state."""
    description, *lines = (inspect.getdoc(function) or "").splitlines()
    described = dict(line.split(": ", 1) for line in lines if line)
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())
    stateful = bool(parameters) and parameters[0].kind is inspect.Parameter.POSITIONAL_ONLY
    public = parameters[1:] if stateful else parameters
    if set(described) != {p.name for p in public}:
        raise ValueError(f"{function.__name__}: the docstring describes {sorted(described)}, not its parameters")
    schema = {
        "type": "object",
        "properties": {p.name: _schema(hints[p.name]) | {"description": described[p.name]} for p in public},
        "required": [p.name for p in public if p.default is inspect.Parameter.empty],
    }
    return Tool(function.__name__, description, schema), stateful


def _schema(annotation: Any) -> dict[str, Any]:
    """The JSON schema of an annotation such as `float`, `list[str]` or `str | None`."""
    if isinstance(annotation, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not types.NoneType)
    origin, parts = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    schema: dict[str, Any] = {"type": _JSON_TYPES[origin]}
    if origin is list:
        schema["items"] = _schema(parts[0])
    return schema


def fill(template: str, values: dict[str, Any], rng: Random) -> str:
    """A template's text: one choice of every `[one|another]`, then every `{value}`.

    A list is written without its brackets, as people do.
    """
    chosen = re.sub(r"\[([^\[\]]*)\]", lambda match: rng.choice(match[1].split("|")), template)
    return chosen.format_map({key: _spoken(value) for key, value in values.items()})


def _spoken(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def tidy(value: float, decimals: int = 2) -> float:
    """`value` rounded, without a trailing `.0`: the same number in the answer, the query and the next call."""
    rounded = round(value, decimals)
    return int(rounded) if rounded == int(rounded) else rounded
