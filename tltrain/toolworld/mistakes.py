"""Derive wrong calls from a golden call, of every kind in the paper's taxonomy.

A kind describes how a call differs from the golden one, not the tool's answer: a redundant parameter may do no harm,
and a wrong tool may answer without an error. (A call that cannot be parsed is text, so none is generated here.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from random import Random
from typing import Any

from tltrain.toolworld.domains import FUNCTIONS
from tltrain.toolworld.domains.user import user
from tltrain.toolworld.vocabulary import WORDS
from tltrain.trajectory import Call, Tool

TOOL_HALLUCINATION = "tool_hallucination"
WRONG_TOOL = "wrong_tool"
HALLUCINATED = "hallucinated"
REDUNDANT = "redundant"
MISSING = "missing"
WRONG_VALUE = "wrong_value"

KINDS: dict[str, float] = {
    TOOL_HALLUCINATION: 0.14,
    WRONG_TOOL: 0.2,
    HALLUCINATED: 0.08,
    REDUNDANT: 0.4,
    MISSING: 0.1,
    f"{HALLUCINATED}+{REDUNDANT}": 0.1,
    f"{HALLUCINATED}+{MISSING}": 0.12,
    f"{REDUNDANT}+{MISSING}": 0.12,
    f"{HALLUCINATED}+{REDUNDANT}+{MISSING}": 0.1,
    WRONG_VALUE: 0.2,
}
"""The weight with which each kind is tried first; `+` joins several parameter mistakes. Kinds with a redundant
parameter have larger weights because few calls leave an optional parameter unused."""

_STRANGE = ("query", "language", "format", "api_key", "verbose", "page", "mode", "user_id", "keyword", "version")
_SYNONYMS = {
    "get": ("fetch", "lookup", "retrieve"), "find": ("search", "get", "lookup"), "search": ("find", "get"),
    "create": ("add", "make", "new"), "add": ("insert", "create"), "delete": ("remove", "drop"),
    "compute": ("calculate", "get"), "convert": ("change", "to"), "read": ("open", "show"), "count": ("get", "number"),
    "by": ("for", "from", "with"), "of": ("for", "from"), "list": ("show", "get"),
}  # fmt: skip


def wrong_calls(golden: Call, offered: Collection[str], rng: Random) -> Iterator[tuple[str, Call]]:
    """Yield pairs of a kind of mistake and a wrong call, in random order of kinds, without end.

    Kinds that are not possible for `golden` are skipped. Once all kinds have been tried, every further call is of a
    tool that does not exist.
    """
    for kind in sorted(KINDS, key=lambda kind: rng.random() ** (1 / KINDS[kind]), reverse=True):
        for _ in range(3):
            wrong = _make(kind, golden, offered, rng)
            if wrong is not None and wrong != golden:
                yield kind, wrong
    while True:
        yield TOOL_HALLUCINATION, _hallucinate_tool(golden, offered, rng)


def _make(kind: str, golden: Call, offered: Collection[str], rng: Random) -> Call | None:
    makers: dict[str, Callable[..., Call | None]] = {
        TOOL_HALLUCINATION: _hallucinate_tool,
        WRONG_TOOL: _take_wrong_tool,
        WRONG_VALUE: _alter_value,
    }
    return makers[kind](golden, offered, rng) if kind in makers else _spoil_parameters(kind.split("+"), golden, rng)


def _hallucinate_tool(golden: Call, offered: Collection[str], rng: Random) -> Call:
    """Return the call with a name that resembles the right one but belongs to no tool."""
    camel = "_" not in golden.name
    words = re.findall(r"[A-Z]?[a-z0-9]+", golden.name) if camel else golden.name.split("_")
    words = [word.lower() for word in words]
    while True:
        changed = list(words)
        at = rng.randrange(len(words))
        match rng.randrange(5):
            case 0 if len(words) > 2:
                changed = words[:-1]
            case 1:
                changed[at] = rng.choice(_SYNONYMS.get(words[at], (words[at] + "s",)))
            case 2:
                changed.append(rng.choice(("info", "details", "data", "value", "tool")))
            case 3:
                changed[0] = rng.choice(_SYNONYMS.get(words[0], ("get", "do")))
        style = camel if rng.random() < 0.8 else not camel
        name = changed[0] + "".join(w.title() for w in changed[1:]) if style else "_".join(changed)
        if name not in FUNCTIONS:
            return Call(name, golden.arguments)


def _take_wrong_tool(golden: Call, offered: Collection[str], rng: Random) -> Call | None:
    """Return a call of another available tool with the golden arguments that fit it, or with all of them."""
    others = [name for name in offered if name != golden.name and name not in user.tools]
    if not others:
        return None
    tool = FUNCTIONS[rng.choice(others)].tool
    if rng.random() < 0.3:
        return Call(tool.name, golden.arguments)
    right = FUNCTIONS[golden.name].tool.properties
    arguments: dict[str, Any] = {}
    for name in tool.required:
        kind = tool.properties[name]["type"]
        alike = [value for key, value in golden.arguments.items() if right[key]["type"] == kind]
        if name in golden.arguments or alike:
            arguments[name] = golden.arguments[name] if name in golden.arguments else rng.choice(alike)
    return Call(tool.name, arguments)


def _spoil_parameters(mistakes: list[str], golden: Call, rng: Random) -> Call | None:
    """Return a call of the right tool with hallucinated, redundant or missing parameters; None if not possible."""
    tool = FUNCTIONS[golden.name].tool
    arguments = dict(golden.arguments)
    lost: tuple[str, Any] | None = None
    if MISSING in mistakes:
        if not arguments:
            return None
        name = rng.choice(list(arguments))
        lost = name, arguments.pop(name)
    if REDUNDANT in mistakes:
        unused = [name for name in tool.properties if name not in tool.required and name not in golden.arguments]
        if not unused:
            return None
        name = rng.choice(unused)
        arguments[name] = _any_value(tool.properties[name]["type"], rng)
    if HALLUCINATED in mistakes:
        renamed = _strange_name(tool, lost[0] if lost else None, rng)
        arguments[renamed] = lost[1] if lost else rng.choice(("en", True, 1, rng.choice(WORDS)))
    return Call(golden.name, arguments)


def _strange_name(tool: Tool, lost: str | None, rng: Random) -> str:
    """Return a parameter name that the tool does not have, possibly derived from the `lost` one."""
    strange = rng.sample(_STRANGE, 2)
    if lost:
        words = [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+", lost)]
        camel = words[0] + "".join(map(str.title, words[1:]))
        strange += [f"input_{lost}", f"{lost}_value", f"{lost}s", words[-1], words[0], "_".join(words), camel]
    return rng.choice([name for name in strange if name not in tool.properties])


def _any_value(json_type: str, rng: Random) -> Any:
    values: dict[str, Any] = {
        "integer": rng.randint(1, 9),
        "number": rng.randint(1, 20),
        "boolean": rng.random() < 0.7,
        "array": [rng.choice(WORDS)],
        "object": {},
        "string": rng.choice(("all", "default", "en", rng.choice(WORDS))),
    }
    return values[json_type]


def _alter_value(golden: Call, offered: Collection[str], rng: Random) -> Call | None:
    """Return the call with one argument changed; None if it has no arguments or the value stays the same."""
    if not golden.arguments:
        return None
    name = rng.choice(list(golden.arguments))
    right = golden.arguments[name]
    wrong = _other_value(right, rng)
    same = wrong == right and isinstance(wrong, type(right))
    return None if same else Call(golden.name, {**golden.arguments, name: wrong})


def _other_value(value: Any, rng: Random) -> Any:
    """Return a plausible wrong value in place of `value`."""
    match value:
        case bool():
            return not value
        case int() | float():
            return rng.choice((value + rng.randint(1, 9), value * 10, -value, str(value), f"{value} units"))
        case list():
            return rng.choice((value[:-1], value[1:], [], ", ".join(map(str, value))))
        case dict():
            return rng.choice((dict(list(value.items())[:-1]), str(list(value)), {}))
    if iso := re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", value):
        year, month, day = iso.groups()
        return rng.choice((f"{day}/{month}/{year}", f"{year}-{month}", f"{year}-{day}-{month}", f"{year}-{month}-17"))
    if numbered := re.fullmatch(r"([A-Z]+)-(\d+)", value):
        prefix, number = numbered.groups()
        other = (int(number) + rng.randint(1, 9)) % 10000
        return rng.choice((f"{prefix}-{other:04}", number, value[:-1], f"{prefix}{number}", value.lower()))
    words = value.split()
    first, last = (words[0], words[-1]) if words else ("", "")
    return rng.choice((value[:-1], value + "s", rng.choice(WORDS), first, last, value.title(), value.swapcase()))
