"""A world: everything that the tools of one conversation can read and change.

It exists only in memory, and its "today", shop and files depend only on a seed. No tool accesses the machine's clock,
disk or network, and no argument is ever evaluated, so a world can run calls from untrusted sources.
"""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import Any

from tltrain.errors import TltrainError
from tltrain.toolworld.answers import HOSTS
from tltrain.toolworld.domains import FUNCTIONS
from tltrain.toolworld.domains.user import user
from tltrain.toolworld.registry import Domain, Failure, ToolFunction
from tltrain.trajectory import Call, Tool


@dataclass(frozen=True)
class Answer:
    """A tool's answer: the text, whether it is an error, and the value that the text states (None for an error)."""

    text: str
    failed: bool
    value: Any = None


class World:
    """The state of one conversation and its available tools.

    Two worlds with the same seed are equal until they run different calls. Only the names of the available tools are
    needed, so the tools of a trajectory read from a file can be used.

    Args:
        seed: any text; the domains' states are derived from it.
        offered: names of the available tools; None for all.
        reply: the simulated user's answer to a question.

    Raises:
        TltrainError: a name in `offered` is not a tool of toolworld.
    """

    def __init__(self, seed: str, offered: Iterable[str] | None = None, reply: str | None = None) -> None:
        names = tuple(FUNCTIONS if offered is None else offered)
        unknown = [name for name in names if name not in FUNCTIONS]
        if unknown:
            raise TltrainError(f"toolworld has no tool named {unknown[0]!r}; it has: {', '.join(FUNCTIONS)}")
        rng = Random(f"world/{seed}")
        self.seed = seed
        self.today = date(2024, 1, 1) + timedelta(rng.randrange(3 * 365))
        self._host = rng.choice(HOSTS)
        self._offered: dict[str, ToolFunction] = {name: FUNCTIONS[name] for name in names}
        self._states: dict[str, Any] = {}
        if reply is not None:
            self.state(user).reply = reply

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The documentation of the available tools."""
        return tuple(function.tool for function in self._offered.values())

    def state(self, domain: Domain) -> Any:
        """Return the state of a domain, created at first use."""
        if domain.name not in self._states:
            self._states[domain.name] = domain.setup(Random(f"world/{self.seed}/{domain.name}"), self.today)
        return self._states[domain.name]

    def call(self, call: Call) -> str:
        """Return the called tool's answer as text; an error is text too."""
        return self.run(call).text

    def run(self, call: Call) -> Answer:
        """Run a call. Never raises: an error of any kind becomes the answer."""
        called = self._offered.get(call.name)
        if called is None:
            return Answer(self._host(NameError(f"name {call.name!r} is not defined")), failed=True)
        state = (self.state(called.domain),) if called.stateful else ()
        try:
            value = called.function(*state, **copy.deepcopy(dict(call.arguments)))
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        except Failure as failure:
            return Answer(called.domain.failure(str(failure)), failed=True)
        except Exception as error:  # a model's call can fail in any way, and the error is its answer
            return Answer(self._host(error), failed=True)
        return Answer(text, failed=False, value=json.loads(text) if text is not value else value)

    def snapshot(self, domain: Domain) -> Any:
        """Return a copy of a domain's state for comparison; copies are equal if and only if the states are."""
        state = self.state(domain)
        return "\n".join(state.iterdump()) if isinstance(state, sqlite3.Connection) else copy.deepcopy(state)
