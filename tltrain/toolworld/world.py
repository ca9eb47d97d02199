"""A world: everything the tools of one conversation can see and change.

It lives in memory and is made from a seed alone: its "today", its shop, its files. No tool reaches the machine's
clock, disk or network, and no argument is ever evaluated, so that a world can be given calls from anybody.
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
    """What a tool answered: the text, whether that is an error, and the value it was written from (None if so)."""

    text: str
    failed: bool
    value: Any = None


class World:
    """The state of one conversation and the tools on offer in it.

    Two worlds of the same seed are the same until they are called differently. Of the tools on offer only the names
    matter, so that those of a trajectory read from a file will do.

    Args:
        seed: any text; what the domains' states are made from.
        offered: names of the tools on offer; all there are if not given.
        reply: what the simulated user says when asked.

    Raises:
        TltrainError: a name on offer is no tool of toolworld.
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
        """The documentation of the tools on offer."""
        return tuple(function.tool for function in self._offered.values())

    def state(self, domain: Domain) -> Any:
        """The state of one domain, made when first asked for."""
        if domain.name not in self._states:
            self._states[domain.name] = domain.setup(Random(f"world/{self.seed}/{domain.name}"), self.today)
        return self._states[domain.name]

    def call(self, call: Call) -> str:
        """The text the called tool answers with; an error is text too."""
        return self.run(call).text

    def run(self, call: Call) -> Answer:
        """Run a call of a tool on offer. Never raises: whatever goes wrong is the answer."""
        called = self._offered.get(call.name)
        if called is None:
            return Answer(self._host(NameError(f"name {call.name!r} is not defined")), failed=True)
        state = (self.state(called.domain),) if called.stateful else ()
        try:
            value = called.function(*state, **copy.deepcopy(dict(call.arguments)))
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        except Failure as failure:
            return Answer(called.domain.failure(str(failure)), failed=True)
        except Exception as error:  # a call from a model can go wrong in any way, and that is its answer
            return Answer(self._host(error), failed=True)
        return Answer(text, failed=False, value=json.loads(text) if text is not value else value)

    def snapshot(self, domain: Domain) -> Any:
        """A copy of a domain's state to compare with another: equal if and only if nothing differs."""
        state = self.state(domain)
        return "\n".join(state.iterdump()) if isinstance(state, sqlite3.Connection) else copy.deepcopy(state)
