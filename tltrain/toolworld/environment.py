"""Conversations with toolworld's tools, and a checker of their outcome.

A task is one of toolworld's scripts, identified by split, tools, seed and index. The golden script, run in a second
world of the same seed, determines the correct outcome:

- State: every domain with an available tool must be in the state in which the script leaves it. Additional reads are
  allowed; additional, missing or different writes are not.
- Answer: it must state the script's facts. A fact is a value that a golden call's tool returned and that the golden
  answer states, unless it was known before: as an argument of that call, or as a text in the query, the user's reply or
  the tool's documentation. Numbers are compared as numbers wherever they occur in the answer (`1,285,000` and `12.50`
  are 1285000 and 12.5); texts are compared as whole words, ignoring case and the amount of white space.

A conversation succeeds if both are correct and it ends with `finish`. If the golden answer states no fact ("The task
is done."), any answer is accepted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from tltrain.config import ToolworldConversations
from tltrain.toolworld.domains import FUNCTIONS
from tltrain.toolworld.domains.user import user
from tltrain.toolworld.generate import TOOLS_OFFERED
from tltrain.toolworld.generate import set_name as toolworld_set_name
from tltrain.toolworld.registry import Domain
from tltrain.toolworld.scripts import Script, identity_of, write_script
from tltrain.toolworld.world import World
from tltrain.trajectory import Call, Message, Task, Turn

Fact = str | int | float


def tasks(benchmark: ToolworldConversations, seed: int) -> list[Task]:
    """Return `benchmark.size` tasks: the conversations whose single turns `tltrain.toolworld.samples` asks.

    They depend on `benchmark.seed` and not on `seed`, so that runs with different seeds have the same tasks.
    """
    found = []
    for index in range(benchmark.size):
        script = script_of(identity_of(str(benchmark.split), str(benchmark.tools), benchmark.seed, index))
        meta = {"scenario": script.domain, "task": script.task, "golden_calls": len(script.golden)}
        found.append(Task(script.identity, meta))
    return found


def golden_calls(task: Task) -> tuple[tuple[Call, ...], ...]:
    """Return the calls of a task's script, `finish` included, as a single turn, since the user only speaks once."""
    return (script_of(task.id).golden,)


class ToolworldTasks:
    """The generated conversations, for `tltrain.environments.registry`."""

    def __init__(self, benchmark: ToolworldConversations) -> None:
        self.benchmark = benchmark

    def tasks(self, seed: int) -> list[Task]:
        """Return the tasks; see `tasks`."""
        return tasks(self.benchmark, seed)

    def environment(self) -> Toolworld:
        """Return a new environment."""
        return Toolworld()

    def golden(self, task: Task) -> tuple[tuple[Call, ...], ...]:
        """Return the right calls of a task."""
        return golden_calls(task)

    def set_name(self) -> str:
        """Return the name of the conversations in results, without `_multi`."""
        return toolworld_set_name(str(self.benchmark.split), str(self.benchmark.tools))


@lru_cache(maxsize=4096)
def script_of(identity: str) -> Script:
    """Return the golden script of a task."""
    return write_script(identity, TOOLS_OFFERED)


class Toolworld:
    """An environment with one world and the script that determines the correct outcome."""

    def __init__(self) -> None:
        self._started: tuple[Script, World] | None = None
        self._answer: str | None = None
        self.failed: bool | None = None
        """Whether the last call failed, which the world knows."""

    def reset(self, task: Task) -> Turn:
        """Create the script's world anew and return its tools and query."""
        script = script_of(task.id)
        world = script.world()
        self._started = script, world
        return Turn(world.tools, (Message("user", script.query),))

    def call(self, call: Call) -> str:
        """Return the tool's answer; the world never raises."""
        _, world = self._conversation()
        answer = world.run(call)
        self.failed = answer.failed
        return answer.text

    def follow_up(self, answer: str | None) -> None:
        """Store the final answer and return None, since a script has a single user turn."""
        self._answer = answer

    def outcome(self) -> Mapping[str, Any]:
        """Return `success`; whether `state` and `answer` are correct; and what is wrong.

        `missing` lists the facts that the answer lacks, and `differing` the domains with a wrong state.
        """
        script, world = self._conversation()
        wrong = [domain.name for domain in differing_domains(script, world)]
        missing = missing_facts(self._answer or "", facts(script))
        answered = self._answer is not None and not missing
        return {
            "success": answered and not wrong,
            "state": not wrong,
            "answer": answered,
            "missing": missing,
            "differing": wrong,
        }

    def close(self) -> None:
        """Discard the world."""
        self._started = None

    def _conversation(self) -> tuple[Script, World]:
        if self._started is None:
            raise RuntimeError("`reset` starts a conversation; none has been started")
        return self._started


def differing_domains(script: Script, world: World) -> list[Domain]:
    """Return the domains with an available tool whose state in `world` differs from that after the golden calls."""
    golden = script.world(script.golden)
    domains = {FUNCTIONS[name].domain.name: FUNCTIONS[name].domain for name in script.offered}
    return [
        domain
        for domain in domains.values()
        if domain is not user and world.snapshot(domain) != golden.snapshot(domain)
    ]


def facts(script: Script) -> list[Fact]:
    """Return the facts that an answer must state, in the order in which the tools returned them (see the module)."""
    world, found = script.world(), []
    golden_answer = next(iter(script.golden[-1].arguments.values()))
    said = f"{script.query} {script.reply or ''}"
    for made in script.golden:
        value = world.run(made).value
        if made.name in user.tools:
            continue
        tool = FUNCTIONS[made.name].tool
        known = f"{said} {tool.description} {' '.join(str(schema) for schema in tool.properties.values())}"
        given = list(_leaves(dict(made.arguments)))
        for leaf in _leaves(value):
            if leaf not in given and leaf not in found and _states(golden_answer, leaf):
                if isinstance(leaf, str) and _states(known, leaf):
                    continue
                found.append(leaf)
    return found


def missing_facts(answer: str, wanted: Sequence[Fact]) -> list[Fact]:
    """Return the facts that `answer` does not state."""
    return [fact for fact in wanted if not _states(answer, fact)]


def _leaves(value: Any) -> Iterator[Fact]:
    """Yield the texts and numbers in a tool's answer."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    elif isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
        yield value


# A number by itself: not digits within a word (`T-1234`, `12A`) or a date.
_NUMBER = re.compile(r"(?<![\w.-])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w|[.-]\d)")
_MOST_DIGITS = 30


def _states(text: str, fact: Fact) -> bool:
    text = _normal(text)
    if isinstance(fact, str):
        return re.search(rf"(?<!\w){re.escape(_normal(fact))}(?!\w)", text) is not None
    numbers = (found[0].replace(",", "") for found in _NUMBER.finditer(text))
    return any(len(number) <= _MOST_DIGITS and float(number) == float(fact) for number in numbers)


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
