r"""Prompts and golden calls as text (`irm_data.json`, TL-Training): a JSON list or JSON lines.

    {"instruction": "System: Function:\ndef search(query: string):\n ...\nUser: ...\nAssistant: search(query=\"love\")\n
                     Output: ...\nAssistant:",
     "output": "finish(answer=\"...\")"}

The instruction is a history in the TL format (`formats/tl.py`). It becomes a trajectory whose last message is the
golden call; the calls before it have `learn=False`. White space around either text, the final `Assistant:` and an end
token after the output are optional. Other fields become `meta`; a record without an `id` gets its number as id.

The format escapes nothing, so a tool's answer may contain a line that begins with `User:`. The order of messages
decides which of these lines begin a message:

- the system message ends at the first `User:` after complete stubs;
- after a user's message or a tool's answer only the assistant can speak: it either makes a call with nothing after it,
  or writes text that a user's message follows;
- after the assistant any role can speak.

Every other such line is part of the message that contains it. A wrong guess (a quoted dialogue, a user who speaks right
after a tool's answer) moves a boundary between messages of the history but leaves the prompt's text unchanged.
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
    """Parse the one trajectory of a record. Raises FieldError."""
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
        notes["system messages: tools rendered differently from the source"] += 1
    if joined(TL.prompt_segments(history)) != prompt + GENERATION_PROMPT:
        notes["instructions: text rendered differently from the source"] += 1
    yield replace(history, messages=(*history.messages, golden))


def _not_learned(message: Message) -> Message:
    return message.with_learn(message.role != "assistant")


def _without_end(text: str) -> str:
    """Strip end tokens and white space from the end of `text`."""
    text = text.rstrip()
    while text.endswith(_END_TOKEN):
        text = text.removesuffix(_END_TOKEN).rstrip()
    return text


def _history(instruction: str) -> str:
    """Return the instruction without the final `Assistant:`, which prompts for the call.

    Raises:
        FieldError: it is not in the TL format, or ends inside an assistant's message (a tool's name to continue, say).
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
    """Split the history into `{"role", "content"}` messages, the system message first (see the module's docstring)."""
    markers = list(_MARKER.finditer(prompt))
    first = _first_user(prompt, markers)
    taken, inside = [markers[first]], 0
    for i in range(first + 1, len(markers)):
        if markers[i].start() < inside:  # inside a string of a call
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
        notes["messages: lines that look like the start of a message, kept as text"] += len(markers) - len(taken)
    system = prompt[len(_SYSTEM) : taken[0].start()].removeprefix(" ")
    ends = [*(marker.start() for marker in taken[1:]), len(prompt)]
    return [{"role": "system", "content": system}] + [
        {"role": marker[1], "content": prompt[marker.end() : end]} for marker, end in zip(taken, ends, strict=True)
    ]


def _first_user(prompt: str, markers: Sequence[re.Match[str]]) -> int:
    """Return the index of the marker that ends the system message.

    It is the first `User:` after stubs that render to the same text again; failing that, the first after stubs that can
    be parsed; failing that, the first `User:`, so that an error can point to it.

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
    """Return where the call at marker `i` ends; None if there is no call, or if text follows it in the same message."""
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
