"""Write golden conversations: choose a task, run its plan in a world, and select the available tools."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from tltrain.toolworld.domains import FUNCTIONS, domains_of
from tltrain.toolworld.domains.user import ask_to_user, finish, user
from tltrain.toolworld.registry import Domain, Task, call, fill
from tltrain.toolworld.world import World
from tltrain.trajectory import Call

MOST_CALLS = 4
"""Maximum number of golden calls in a conversation of two tasks, `finish` not counted."""

_CONFUSING = 2
_VAGUE, _COMPOUND, _SIBLING = 0.35, 0.15, 0.65  # probabilities, where possible
_OPENERS = ("",) * 8 + ("Hi! ", "Hello. ", "Good morning! ", "I need your help. ", "Quick question. ")
_CLOSERS = ("",) * 8 + (" Thanks!", " Thank you.", " Thanks in advance.", " That would help me a lot.")
_THEN = ("And then:", "Also:", "After that:", "Next:", "Second:")


@dataclass(frozen=True)
class Script:
    """A conversation without mistakes.

    `golden` are all calls, the last one of `finish`. `offered` are the names of the available tools, the last two
    `ask_to_user` and `finish`. `reply` is the user's answer to a question, None if no question is needed. All of this
    holds in the world that `world()` creates. `confusable`: whether the task is about confusable tools.
    """

    identity: str
    domain: str
    task: str
    query: str
    golden: tuple[Call, ...]
    offered: tuple[str, ...]
    reply: str | None
    confusable: bool

    def world(self, calls: Iterable[Call] = ()) -> World:
        """Create the script's world and run `calls` in it."""
        world = World(self.identity, self.offered, self.reply)
        for made in calls:
            world.run(made)
        return world


@dataclass(frozen=True)
class _Played:
    query: str
    reply: str | None
    calls: tuple[Call, ...]
    answer: str


def identity_of(split: str, tools: str, seed: int, index: int) -> str:
    """Return the identity of a script, which names everything the script depends on except the number of tools."""
    return "-".join(["toolworld", split, *([] if tools == "standard" else [tools]), str(seed), str(index)])


def read_identity(identity: str) -> tuple[str, str]:
    """Return the split and the tools that an identity names."""
    _, split, *tools, _seed, _index = identity.split("-")
    return split, tools[0] if tools else "standard"


def write_script(identity: str, tools_offered: tuple[int, int]) -> Script:
    """Write the script of an identity (`identity_of`); the same arguments give the same script."""
    rng = Random(f"script/{identity}")
    world = World(identity)
    domains = domains_of(*read_identity(identity))
    task = rng.choice(rng.choice(domains).tasks)
    played = _play(task, world, rng, vague=task.vague is not None and rng.random() < _VAGUE)
    names = [task.name]
    if not task.domain.confusable and played.reply is None and rng.random() < _COMPOUND:
        other = rng.choice(rng.choice([domain for domain in domains if domain is not task.domain]).tasks)
        second = _play(other, world, rng, vague=False)
        if len(played.calls) + len(second.calls) <= MOST_CALLS:
            played, names = _join(played, second, rng), [task.name, other.name]
    return Script(
        identity=identity,
        domain=task.domain.name,
        task="+".join(names),
        query=rng.choice(_OPENERS) + played.query + rng.choice(_CLOSERS),
        golden=(*played.calls, call(finish, answer=played.answer)),
        offered=_offer(played.calls, domains, tools_offered, rng),
        reply=played.reply,
        confusable=task.domain.confusable,
    )


def _play(task: Task, world: World, rng: Random, vague: bool) -> _Played:
    """Run a task's plan in `world` and word its query."""
    plan = task.plan(world.state(task.domain), rng)
    values: dict[str, Any] = next(plan)
    calls: list[Call] = []
    reply = None
    if vague and task.vague:
        query, reply = (fill(template, values, rng) for template in (task.vague.query, task.vague.reply))
        calls.append(call(ask_to_user, question=fill(task.vague.question, values, rng)))
        mentioned = _names(task.vague.query) | _names(task.vague.reply)
    else:
        wording = fill(rng.choice(task.queries), {name: f"{{{name}}}" for name in values}, rng)
        query, mentioned = fill(wording, values, rng), _names(wording)
    send: Any = mentioned
    try:
        while True:
            calls.append(plan.send(send))
            send = world.run(calls[-1]).value
    except StopIteration as end:
        return _Played(query, reply, tuple(calls), end.value)


def _names(template: str) -> set[str]:
    return set(re.findall(r"{(\w+)}", template))


def _join(first: _Played, second: _Played, rng: Random) -> _Played:
    """Combine two requests into one query, answered one after the other."""
    query = f"{first.query} {rng.choice(_THEN)} {second.query}"
    return _Played(query, None, first.calls + second.calls, f"{first.answer} {second.answer}")


def _offer(
    calls: tuple[Call, ...], domains: tuple[Domain, ...], tools_offered: tuple[int, int], rng: Random
) -> tuple[str, ...]:
    """Return the names of the available tools: the needed ones and others, preferably of the same domains.

    Confusable tools are offered with at least `_CONFUSING` others of their domain, those with the closest names first.
    """
    needed = list(dict.fromkeys(made.name for made in calls if made.name not in user.tools))
    confusable = any(FUNCTIONS[name].domain.confusable for name in needed)
    size = max(rng.randint(*tools_offered) - len(user.tools), len(needed) + (_CONFUSING if confusable else 0))
    near = {name for made in needed for name in FUNCTIONS[made].domain.tools if name not in needed}
    far = [name for domain in domains for name in domain.tools if name not in needed and name not in near]
    siblings = rng.sample(sorted(near), len(near))
    if confusable:  # the last is taken first
        siblings.sort(key=lambda name: max(_shared_beginning(name, other) for other in needed))
    offered = list(needed)
    while len(offered) < size and (siblings or far):
        if siblings and (confusable or rng.random() < _SIBLING or not far):
            offered.append(siblings.pop())
        else:
            offered.append(far.pop(rng.randrange(len(far))))
    rng.shuffle(offered)
    return (*offered, *user.tools)


def _shared_beginning(name: str, other: str) -> int:
    """Return the number of letters that both names share at the beginning, whatever their style."""
    one, two = (text.replace("_", "").lower() for text in (name, other))
    return next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
