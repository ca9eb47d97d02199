r"""Prompts and golden calls as text (`irm_data.json`, TL-Training): a JSON list, or the same as JSON lines.

    {"instruction": "System: Function:\ndef search(query: string):\n ...\nUser: ...\nAssistant: search(query=\"love\")\n
                     Output: ...\nAssistant:",
     "output": "finish(answer=\"...\")"}

The instruction is a history in the TL format (`formats/tl.py`). It becomes a trajectory whose last message is the
golden call; the calls before it have `learn=False`. Space around either text, the last `Assistant:` and an end token
after the output may be there or not. Other fields become `meta`; a record without an `id` has its number.

The format escapes nothing, so a tool's answer may hold a line that begins with `User:`. Which lines begin a message is
told by what may follow what:

- the system message ends at the first `User:` behind complete stubs;
- after a user's message or a tool's answer only the assistant speaks: it calls a tool, and nothing stands behind the
  call, or it says something that a user's message follows;
- after the assistant anyone may speak.

Every other such line stays a part of the message that it stands in. A wrong guess (a quoted dialogue, a user who speaks
right after a tool's answer) moves a boundary between messages of the history; the prompt's text stays as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tltrain.data.reading import expect, expect_id, member, rest, shown
from tltrain.data.turns import text_conversation
from tltrain.errors import FieldError, TltrainError
from tltrain.formats import joined
from tltrain.formats.calls import call_end
from tltrain.formats.stubs import read_system
from tltrain.formats.tl import GENERATION_PROMPT, TL, call_of, system_text
from tltrain.formats.tl import ROLES as TL_ROLES
from tltrain.trajectory import Message, Role, Trajectory

ROLES: dict[str, Role] = {name: role for role, name in TL_ROLES.items() if role != "system"}

_SYSTEM = f"{TL_ROLES['system']}:"
_MARKER = re.compile(rf"\n({'|'.join(ROLES)}):(?: |(?=\n)|\Z)")
_END_TOKEN = "</s>"


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """The one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    prompt = _history(member(record, "instruction", str))
    output = _without_end(member(record, "output", str)).lstrip()
    entries = _split(prompt, notes)
    try:
        instructions, tools, messages = text_conversation(
            [*entries, {"role": TL_ROLES["assistant"], "content": output}], ROLES, "instruction", notes
        )
    except FieldError as error:
        raise FieldError("instruction", error.expected, error.found) from None
    if not tools:
        found = shown(entries[0]["content"])
        raise FieldError("instruction", f"tools as Python stubs between `{_SYSTEM}` and `User:`", found)
    *asked, golden = messages
    if (call := call_of(golden)) is None:
        raise FieldError("output", "a call, `name(parameter=value, ...)`", shown(output))
    if call.name not in {tool.name for tool in tools}:
        notes["outputs: calls of a tool that is not on offer"] += 1

    identity = str(number) if record.get("id") is None else expect_id(record)
    meta = rest(record, "id", "instruction", "output")
    history = Trajectory(identity, tools, tuple(map(_not_learned, asked)), instructions, meta)
    if system_text(history) != entries[0]["content"]:
        notes["system messages: tools written otherwise than read"] += 1
    if joined(TL.prompt_segments(history)) != prompt + GENERATION_PROMPT:
        notes["instructions: text otherwise than read"] += 1
    yield replace(history, messages=(*history.messages, golden))


def _not_learned(message: Message) -> Message:
    return message.with_learn(message.role != "assistant")


def _without_end(text: str) -> str:
    """`text` without end tokens and space at its end."""
    text = text.rstrip()
    while text.endswith(_END_TOKEN):
        text = text.removesuffix(_END_TOKEN).rstrip()
    return text


def _history(instruction: str) -> str:
    """The instruction without the `Assistant:` that asks for the call.

    Raises:
        FieldError: it is no TL format, or ends with words of the assistant, such as a tool's name to go on from.
    """
    prompt = instruction.strip()
    if not prompt.startswith(_SYSTEM):
        raise FieldError("instruction", f"`{_SYSTEM}` and the tools at its start", shown(instruction))
    if prompt.endswith(GENERATION_PROMPT):
        return prompt.removesuffix(GENERATION_PROMPT)
    markers = list(_MARKER.finditer(prompt))
    if markers and ROLES[markers[-1][1]] == "assistant":
        expected = "a user's message, a tool's answer or an empty `Assistant:` at its end"
        raise FieldError("instruction", expected, shown(prompt[markers[-1].start() + 1 :]))
    return prompt


def _split(prompt: str, notes: Counter[str]) -> list[dict[str, str]]:
    """The history's messages as `{"role", "content"}`, the system message first (top of this file)."""
    markers = list(_MARKER.finditer(prompt))
    first = _first_user(prompt, markers)
    taken, inside = [markers[first]], 0
    for i in range(first + 1, len(markers)):
        if markers[i].start() < inside:  # a line break within a call's string
            continue
        if ROLES[markers[i][1]] == "assistant":
            end = _call_end(prompt, markers, i)
            answered = i + 1 < len(markers) and ROLES[markers[i + 1][1]] == "user"
            if end is None and not answered:
                continue
            inside = end or 0
        elif ROLES[taken[-1][1]] != "assistant":
            continue
        taken.append(markers[i])
    if len(taken) < len(markers):
        notes["messages: lines that begin as a role does, kept as text"] += len(markers) - len(taken)
    system = prompt[len(_SYSTEM) : taken[0].start()].removeprefix(" ")
    ends = [*(marker.start() for marker in taken[1:]), len(prompt)]
    return [{"role": "system", "content": system}] + [
        {"role": marker[1], "content": prompt[marker.end() : end]} for marker, end in zip(taken, ends, strict=True)
    ]


def _first_user(prompt: str, markers: Sequence[re.Match[str]]) -> int:
    """Which marker ends the system message.

    It is the first `User:` behind stubs that, written again, are the same text; or behind stubs that can be read; or,
    for an error to speak of, the first of all.

    Raises:
        FieldError: there is no `User:`.
    """
    users = [i for i, marker in enumerate(markers) if ROLES[marker[1]] == "user"]
    if not users:
        raise FieldError("instruction", "a line `User: ...` below the tools", "none")
    readable = []
    for i in users:
        system = prompt[len(_SYSTEM) : markers[i].start()].removeprefix(" ")
        if not system.rstrip().endswith('"""'):
            continue
        try:
            instructions, tools = read_system(system)
        except TltrainError:
            continue
        if tools and system_text(Trajectory("", tools, (), instructions)) == system:
            return i
        if tools:
            readable.append(i)
    return (readable or users)[0]


def _call_end(prompt: str, markers: Sequence[re.Match[str]], i: int) -> int | None:
    """Where the call at marker `i` ends; None if there is none, or other text between it and the next marker."""
    start = markers[i].end()
    opening = prompt.find("(", start)
    if opening < 0 or "\n" in prompt[start:opening].strip():
        return None
    length = call_end(prompt[start:])
    if length is None:
        return None
    end = start + length
    behind = next((marker.start() for marker in markers[i + 1 :] if marker.start() >= end), len(prompt))
    return None if _without_end(prompt[end:behind]) else end
