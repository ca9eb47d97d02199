"""Glaive's function calling, version 2: two texts.

{"system": "SYSTEM: You are ... functions. Use them if required -\\n{...}\\n\\n{...}",
 "chat": "USER: ...\\n\\n\\nASSISTANT: <functioncall> {\\"name\\": \\"...\\", \\"arguments\\": '{...}'} <|endoftext|>
          \\n\\n\\nFUNCTION RESPONSE: {...}\\n\\n\\nASSISTANT: ... <|endoftext|>"}
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tltrain.data.arguments import read_arguments
from tltrain.data.conversations import trajectory
from tltrain.data.entries import Entry, Made
from tltrain.data.reading import expect, member, parse_json, parse_json_at, shown
from tltrain.data.schemas import offered_tools
from tltrain.errors import FieldError
from tltrain.trajectory import Call, Trajectory

_SPEAKER = re.compile(r"(?:^|\n)\s*(USER|ASSISTANT|FUNCTION RESPONSE): ?")
_ROLES = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
_MARK = "<functioncall>"
_QUOTED = re.compile(r"""(["']arguments["']\s*:\s*)'(.*)'(\s*\}\s*)""", re.DOTALL)


def recognise(record: dict[str, Any]) -> str:
    """Return what shows that a record has this format; empty if nothing does."""
    both = all(isinstance(record.get(key), str) for key in ("system", "chat"))
    return "`system` and `chat` are texts" if both else ""


def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
    """Parse the one trajectory of a record. Raises FieldError."""
    record = expect(record, dict, "record")
    instructions, listed = _system(member(record, "system", str))
    tools = offered_tools(listed, "system", notes)
    chat = member(record, "chat", str)
    parts = _SPEAKER.split(chat)
    if parts[0].strip() or len(parts) < 3:
        raise FieldError("chat", "`USER: ` and `ASSISTANT: ` before what they say", shown(chat[:40]))
    entries = [
        _entry(_ROLES[speaker], text.replace("<|endoftext|>", "").strip(), notes)
        for speaker, text in zip(parts[1::2], parts[2::2], strict=True)
    ]
    yield trajectory(record, number, tools, entries, notes, ("system", "chat"), instructions)


def _system(text: str) -> tuple[str, list[Any]]:
    """Return the instructions and the tools, which are objects after a hyphen."""
    text = text.strip().removeprefix("SYSTEM:").strip()
    at = text.find("{")
    if at < 0:
        return text, []
    tools, end = [], at
    while end < len(text):
        value, end = parse_json_at(text, end, "system")
        tools.append(value)
        end += len(text[end:]) - len(text[end:].lstrip(" \n\r\t,"))
    return "", tools  # the text before them only says that there are functions


def _entry(role: Any, text: str, notes: Counter[str]) -> Entry:
    if role != "assistant" or _MARK not in text:
        return Entry(role, "chat", text, text)
    words, _, body = text.partition(_MARK)
    return Entry(role, "chat", words.strip(), text, (Made(_call(body.strip(), notes)),))


def _call(body: str, notes: Counter[str]) -> Call:
    """Parse a call; its arguments are JSON between single quotes."""
    where = "chat, <functioncall>"
    quoted = _QUOTED.search(body)
    if quoted is not None:
        head = parse_json(body[: quoted.start(1)].rstrip().rstrip(",") + "}", where)
        arguments: Any = quoted[2].replace("\\'", "'")
    else:
        head = parse_json(body, where)
        arguments = expect(head, dict, where).get("arguments")
    return Call(member(expect(head, dict, where), "name", str, where), read_arguments(arguments, where, notes))
