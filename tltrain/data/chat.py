r"""Read one conversation to continue (`stage=predict`) from a file in either of two formats.

The paper's inference format, a JSON list with the tools as stubs and the calls as text:

    [{"role": "System", "content": "Function:\ndef search(query:str):\n ..."}, {"role": "User", "content": "..."},
     {"role": "Assistant", "content": "search(query = 'love') "}, {"role": "Output", "content": "..."}]

or chat-completions, an object with `messages` and `tools` as `data/openai.py` reads them.
"""

from __future__ import annotations

import shlex
from collections import Counter
from itertools import islice
from os import PathLike
from typing import Any

from tltrain.data import auto
from tltrain.data.openai import conversation
from tltrain.data.reading import expect, expect_choice, read_json, records
from tltrain.data.turns import text_conversation
from tltrain.errors import FieldError, TltrainError
from tltrain.trajectory import Message, Role, Tool

ROLES: dict[str, Role] = {
    "User": "user",
    "Assistant": "assistant",
    "Output": "tool",
    "user": "user",
    "assistant": "assistant",
    "function": "tool",
    "tool": "tool",
}


def _content(path: str | PathLike[str]) -> Any:
    """Return the single JSON value of a file.

    Raises:
        TltrainError: the file cannot be read, or has several values: each of its lines is a record, and nothing says
            which one to continue.
    """
    try:
        return read_json(path)
    except TltrainError:
        found = list(islice(records(path), 2))  # raises if these are not JSON lines either
        if len(found) < 2 or not all(isinstance(record, dict | list) for _, record in found):
            raise
    raise TltrainError(
        f"{path}: expected one conversation, found JSON lines, each of them a record: give a file with one of them "
        f"(head -n 1 {shlex.quote(str(path))} > conversation.json), or ask them all with stage=eval benchmark=openai "
        "benchmark.path=FILE"
    )


def read_history(path: str | PathLike[str]) -> tuple[tuple[Tool, ...], tuple[Message, ...], str]:
    """Return the tools, messages and instructions of the conversation in a file.

    Raises:
        TltrainError: the file has neither format, offers no tools, or does not end with a user's or tool's message.
    """
    content = _content(path)
    notes: Counter[str] = Counter()  # discarded: nothing is trained on here, and no note changes a call
    try:
        if isinstance(content, dict):
            tools, messages, instructions = conversation(content, notes)
        else:
            entries = expect(content, list, "content")
            instructions, tools, messages = text_conversation(entries, ROLES, "messages", notes)
        if not tools:
            raise FieldError("tools", "at least one tool to call", "none")
        if not messages:
            raise FieldError("messages", "a user's message", "none")
        last = f"messages, the role of the last of {len(messages)}"
        expect_choice(messages[-1].role, ["user", "tool"], last)
    except FieldError as error:
        other = auto.recognised(content)
        hint = f"; {other[1]}, as in data={other[0]}" if other is not None and other[0] != "openai" else ""
        raise TltrainError(f"{path}: {error}{hint}") from None
    return tools, messages, instructions
