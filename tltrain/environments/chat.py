"""The world of a chat with a user at the terminal: their messages, and tools that run or that they answer for.

The user is a `Person` who is asked for a message or for a tool's answer; None means that they have left.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tltrain.data.reading import parse_json, read_json
from tltrain.data.schemas import offered_tools
from tltrain.environments.sandbox import ToolSession
from tltrain.errors import FieldError, TltrainError
from tltrain.trajectory import Call, Message, Task, Tool, Turn


class Person(Protocol):
    """The user at the terminal."""

    def message(self) -> str | None:
        """Return the next message to the model; None at the end."""
        ...

    def tool_answer(self, call: Call) -> str | None:
        """Return the answer to a call that no program answers; None at the end."""
        ...


@dataclass
class ChatWorld:
    """The environment of a chat (`tltrain.environments.Environment`).

    Attributes:
        beginning: the history from which the chat continues.
        session: runs the tools; None: the person answers for them.
        show_answer: called with the text that the model gives to `finish`.
        left: whether the person has left, after which nothing more is asked.
        words_end_turn: whether words without a call answer the person; False if a call was tried and failed.
    """

    person: Person
    tools: tuple[Tool, ...]
    beginning: tuple[Message, ...] = ()
    instructions: str = ""
    session: ToolSession | None = None
    show_answer: Callable[[str], None] = print
    left: bool = False
    words_end_turn: bool = True
    _first: str | None = field(default=None, init=False)

    def asks(self) -> bool:
        """Wait for the person's next message; return whether there is one."""
        self._first = self.person.message()
        self.left = self._first is None
        return not self.left

    def reset(self, task: Task) -> Turn:
        """Begin with the message that `asks` has waited for."""
        return Turn(self.tools, (*self.beginning, Message("user", self._first or "")), self.instructions)

    def call(self, call: Call) -> str:
        """Return the tool's answer, or the person's in its place."""
        try:
            if self.session is not None:
                return self.session.call(call.name, call.arguments)
            answer = self.person.tool_answer(call)
        except KeyboardInterrupt:
            answer = None
        if answer is None:
            self.left = True
            return "Error: interrupted by the user"
        return answer

    def follow_up(self, answer: str | None) -> Turn | None:
        """Show the answer, and return the person's next message; None at the end."""
        if answer is not None:
            self.show_answer(answer)
        said = self.person.message()
        self.left = said is None
        return None if said is None else Turn(self.tools, (Message("user", said),))

    def outcome(self) -> Mapping[str, Any]:
        """Return that success cannot be judged."""
        return {"success": None}

    def close(self) -> None:
        """Keep the tools' process, as a later part of the chat may need it."""


def tools_of_json(path: Path) -> tuple[Tool, ...]:
    """Read the tools of a JSON file: a list of them, or an object that has `tools`.

    Raises:
        TltrainError: the file cannot be read, or has no tools.
    """
    content = read_json(path)
    if isinstance(content, dict) and "tools" in content:
        content = content["tools"]
    try:
        found = offered_tools(content, "tools", Counter())
        if not found:
            raise FieldError("tools", "at least one tool", "none")
    except FieldError as error:
        raise TltrainError(f"stage.tools={path}: {error}") from None
    return found


def is_cut(text: str) -> bool:
    """Return whether a text is the beginning of a JSON list or object, such as its first of several lines."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        parse_json(text, "answer")
    except FieldError as error:
        return str(error.found).startswith("the end at character")
    return False


def typed_answer(text: str) -> str:
    """Return a tool's answer as a person typed it: JSON on one line, and any other text unchanged."""
    with suppress(FieldError):  # such as a number too large for JSON, or nesting that no reader would accept
        return json.dumps(parse_json(text, "answer"), ensure_ascii=False)
    return text
