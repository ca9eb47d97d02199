"""The parts of a domain: executable tools, tasks that need them, and the state that they share.

A tool is a typed Python function. Its documentation is derived from the function, so the two cannot diverge:

    @shop.tool
    def get_order_status(shop: Connection, /, order_id: str) -> dict:
        '''Tell where an order is now.

        order_id: id such as O-4821
        '''

A positional-only first parameter receives the domain's state and is not documented. Each further line of the
docstring describes one parameter; a parameter with a default is optional.

A task is a generator that acts as a perfect assistant. It first yields the values that its queries may mention, and
receives the set of those that the chosen wording does mention. It then yields each golden call and receives the tool's
real answer. It returns the final answer, a short text that states the tools' answers:

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
"""The generator of a task; the module's docstring describes what it yields."""

_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


class Failure(Exception):
    """An error that a tool reports ("no order with id O-1"); its domain formats the message."""


@dataclass(frozen=True)
class Vague:
    """A query that leaves out a detail, the assistant's question for it, and the user's reply.

    All three are templates like the task's queries; `reply` gives the detail that `query` lacks.
    """

    query: str
    question: str
    reply: str


@dataclass(frozen=True)
class Task:
    """A task of a domain: the wordings of its query and the golden plan."""

    domain: Domain
    plan: Callable[[Any, Random], Plan]
    queries: tuple[str, ...]
    vague: Vague | None

    @property
    def name(self) -> str:
        """The name of the plan's function, which is unique within the domain."""
        return self.plan.__name__


@dataclass(frozen=True)
class ToolFunction:
    """An executable tool: the function, its documentation, and the domain whose state it receives."""

    domain: Domain
    function: Callable[..., Any]
    tool: Tool
    stateful: bool


def no_state(rng: Random, today: date) -> None:
    """Return None, the state of a domain without state."""


@dataclass(eq=False)
class Domain:
    """A set of tools and tasks with a shared state.

    Args:
        name: name of the domain in results.
        failure: formats the message of a `Failure` in this domain's style.
        setup: creates the state of a new conversation from a random generator and the conversation's "today".
        confusable: whether its tools have names that are easily confused. They are always offered beside each other.
    """

    name: str
    failure: Callable[[str], str]
    setup: Callable[[Random, date], Any] = no_state
    confusable: bool = False
    tools: dict[str, ToolFunction] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)

    def tool(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Register `function` as a tool of this domain and return it unchanged."""
        documented, stateful = document(function)
        self.tools[documented.name] = ToolFunction(self, function, documented, stateful)
        return function

    def task(self, *queries: str, vague: Vague | None = None) -> Callable[[Callable[..., Plan]], Callable[..., Plan]]:
        """Return a decorator that registers a plan with the wordings of its query (`{value}`, `[one|another]`)."""

        def register(plan: Callable[..., Plan]) -> Callable[..., Plan]:
            self.tasks.append(Task(self, plan, queries, vague))
            return plan

        return register

    def lookup(
        self,
        function: Callable[..., Any],
        *queries: str,
        draw: Callable[[Any, Random], dict[str, Any]],
        answer: str,
        vague: Vague | None = None,
    ) -> None:
        """Register a task of a single call, named after the tool.

        Args:
            function: the tool, which returns a dict.
            draw: draws the call's arguments, which the queries mention, from the domain's state.
            answer: template of the final answer; it may state the arguments and the values of the tool's answer.
        """

        def plan(state: Any, rng: Random) -> Plan:
            arguments = draw(state, rng)
            yield arguments
            found = yield call(function, **arguments)
            return answer.format_map({key: _spoken(value) for key, value in (arguments | found).items()})

        plan.__name__ = function.__name__
        self.tasks.append(Task(self, plan, queries, vague))


def call(function: Callable[..., Any], **arguments: Any) -> Call:
    """Create a call from the tool's function, so that a plan cannot misspell the name."""
    return Call(function.__name__, arguments)


def document(function: Callable[..., Any]) -> tuple[Tool, bool]:
    """Return the tool that a typed function defines, and whether the function takes its domain's state.

    Raises:
        ValueError: the docstring does not describe exactly the function's parameters.
    """
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
    """Return the JSON schema of an annotation such as `float`, `list[str]` or `str | None`."""
    if isinstance(annotation, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not types.NoneType)
    origin, parts = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    schema: dict[str, Any] = {"type": _JSON_TYPES[origin]}
    if origin is list:
        schema["items"] = _schema(parts[0])
    return schema


def fill(template: str, values: dict[str, Any], rng: Random) -> str:
    """Fill in a template: choose one alternative of each `[one|another]`, then substitute each `{value}`.

    A list is written without brackets, as people do.
    """
    chosen = re.sub(r"\[([^\[\]]*)\]", lambda match: rng.choice(match[1].split("|")), template)
    return chosen.format_map({key: _spoken(value) for key, value in values.items()})


def _spoken(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def tidy(value: float, decimals: int = 2) -> float:
    """Round `value`, as int if it is whole, so that it looks the same in the answer, the query and the next call."""
    rounded = round(value, decimals)
    return int(rounded) if rounded == int(rounded) else rounded
