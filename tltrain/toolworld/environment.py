"""toolworld's own tools, those of the test split, and a checker that knows what a conversation should have come to.

A task is one of toolworld's scripts, by its seed and index. The golden script, played in a second world of the same
seed, says what is right:

- the state: every domain with a tool on offer is as the script leaves it. More reading does no harm; something more,
  less or otherwise written does.
- the answer: it states the script's facts. A fact is a value that a golden call's tool answered with and that the
  golden answer states, unless it was known before: an argument of that call, or a text that the query, the user's reply
  or the tool's documentation has. Numbers are compared as numbers wherever one stands in the answer (`1,285,000` and
  `12.50` are 1285000 and 12.5), text without regard to case and width of space, as whole words.

Success is both, and an end by `finish`. Where the golden answer states no fact ("The task is done."), any answer will
do.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from tltrain.config import ToolworldConversations
from tltrain.toolworld.domains import FUNCTIONS
from tltrain.toolworld.domains.user import user
from tltrain.toolworld.generate import TOOLS_OFFERED
from tltrain.toolworld.registry import Domain
from tltrain.toolworld.scripts import Script, write_script
from tltrain.toolworld.world import World
from tltrain.trajectory import Call, Message, Task, Turn

SPLIT = "test"
Fact = str | int | float


def tasks(benchmark: ToolworldConversations, seed: int) -> list[Task]:
    """`benchmark.size` tasks, the conversations of which `tltrain.toolworld.samples` asks single turns."""
    found = []
    for index in range(benchmark.size):
        script = script_of(f"toolworld-{SPLIT}-{seed}-{index}")
        meta = {"scenario": script.domain, "task": script.task, "golden_calls": len(script.golden)}
        found.append(Task(script.identity, meta))
    return found


def make(benchmark: ToolworldConversations) -> Callable[[], Toolworld]:
    """What gives a new environment."""
    return Toolworld


def golden_calls(benchmark: ToolworldConversations, task: Task) -> tuple[tuple[Call, ...], ...]:
    """The calls of a task's script, `finish` included: of one turn, since the user says no more."""
    return (script_of(task.id).golden,)


@lru_cache(maxsize=4096)
def script_of(identity: str) -> Script:
    """The golden script of a task, by its id."""
    return write_script(identity, SPLIT, TOOLS_OFFERED)


class Toolworld:
    """One world, and the script that says what is to become of it."""

    def __init__(self) -> None:
        self._started: tuple[Script, World] | None = None
        self._answer: str | None = None

    def reset(self, task: Task) -> Turn:
        """The script's world untouched, and its query."""
        script = script_of(task.id)
        world = script.world()
        self._started = script, world
        return Turn(world.tools, (Message("user", script.query),))

    def call(self, call: Call) -> str:
        """What the tool answers; the world never raises."""
        _, world = self._conversation()
        return world.call(call)

    def follow_up(self, answer: str | None) -> None:
        """Nothing: a script is one turn of the user."""
        self._answer = answer

    def outcome(self) -> Mapping[str, Any]:
        """`success`; `state`, whether it is right; `answer` likewise, and `missing`, the facts that it lacks."""
        script, world = self._conversation()
        wrong = [domain.name for domain in differing(script, world)]
        missing = lacking(self._answer or "", facts(script))
        answered = self._answer is not None and not missing
        return {
            "success": answered and not wrong,
            "state": not wrong,
            "answer": answered,
            "missing": missing,
            "differing": wrong,
        }

    def close(self) -> None:
        """Forget the world."""
        self._started = None

    def _conversation(self) -> tuple[Script, World]:
        if self._started is None:
            raise RuntimeError("`reset` starts a conversation; none has been started")
        return self._started


def differing(script: Script, world: World) -> list[Domain]:
    """The domains with a tool on offer whose state in `world` is not what the golden calls make of it."""
    golden = script.world(script.golden)
    domains = {FUNCTIONS[name].domain.name: FUNCTIONS[name].domain for name in script.offered}
    return [
        domain
        for domain in domains.values()
        if domain is not user and world.snapshot(domain) != golden.snapshot(domain)
    ]


def facts(script: Script) -> list[Fact]:
    """What an answer has to state, each once, in the order in which the tools said it (see the top of this file)."""
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


def lacking(answer: str, wanted: Sequence[Fact]) -> list[Fact]:
    """The facts that `answer` does not state."""
    return [fact for fact in wanted if not _states(answer, fact)]


def _leaves(value: Any) -> Iterator[Fact]:
    """The texts and numbers in a tool's answer."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    elif isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
        yield value


# Not the digits of a word (`T-1234`, `12A`) nor of a date: a number that stands by itself.
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
