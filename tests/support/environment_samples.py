"""A small environment and sources for tests of conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tltrain.environments.loop import Conversation, ConversationSettings, converse
from tltrain.trajectory import Call, Message, Sample, Task, Tool, Turn


def tool(name: str, *required: str, **optional: str) -> Tool:
    """Make a documented tool whose parameters are all strings."""
    names = {parameter: {"type": "string"} for parameter in (*required, *optional)}
    return Tool(name, f"{name}.", {"type": "object", "properties": names, "required": list(required)})


LOOK, FINISH = tool("look", "at"), tool("finish", "answer")


class Room:
    """An environment whose `look` answers from `seen`; its user asks each of `queries` in turn."""

    def __init__(self, seen: Callable[[Any], Any] = lambda at: f"saw {at}", queries: int = 1) -> None:
        self.seen, self.queries = seen, queries
        self.calls: list[Call] = []
        self.heard: list[str | None] = []
        self.closed = 0

    def reset(self, task: Task) -> Turn:
        return Turn((LOOK, FINISH), (Message("user", f"query of {task.id}"),), "Be brief.")

    def call(self, call: Call) -> str:
        self.calls.append(call)
        return self.seen(call.arguments.get("at"))

    def follow_up(self, answer: str | None) -> Turn | None:
        self.heard.append(answer)
        if len(self.heard) == self.queries:
            return None
        return Turn((tool("peek", "at"), FINISH), (Message("user", "and then?"),))

    def outcome(self) -> Mapping[str, Any]:
        return {"success": self.heard[-1:] == ["right"]}

    def close(self) -> None:
        self.closed += 1


def tasks(count: int) -> list[Task]:
    return [Task(f"t{number}", {"scenario": "even" if number % 2 == 0 else "odd"}) for number in range(count)]


def says(*texts: str | None) -> Callable[[Sequence[Sample]], list[str | None]]:
    """Make a source that answers a conversation's n-th question with the n-th text."""
    return lambda samples: [texts[sum(m.role == "assistant" for m in sample.messages)] for sample in samples]


def hold(
    answer,
    room: Room | None = None,
    *,
    count: int = 1,
    max_turns: int = 5,
    parallel: int = 4,
    on_end: Callable[[Conversation], None] = lambda conversation: None,
    **settings: Any,
) -> Any:
    """Return the conversation (or all) of `count` tasks in rooms like `room`."""
    rooms = []

    def make():
        rooms.append(room or Room())
        return rooms[-1]

    found = converse(
        tasks(count), make, answer, ConversationSettings(max_turns, **settings), parallel=parallel, on_end=on_end
    )
    return found[0] if count == 1 else found


def sample_of(conversation: Conversation) -> Sample:
    """Return the sample that would be asked next if the conversation had not ended."""
    return Sample("s", conversation.tools, conversation.messages, ())
