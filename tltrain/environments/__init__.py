"""Environments: tools that really run, for conversations of many calls.

An `Environment` is the world of one conversation. The loop in `loop.py` asks the source (a model, an endpoint) for the
next call, reads it, and passes it on; a model's text gets no further than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tltrain.trajectory import Call, Task, Turn


class Environment(Protocol):
    """The world of one conversation; each conversation gets a new one."""

    def reset(self, task: Task) -> Turn:
        """Set up the world as the task requires, and return the user's first words."""
        ...

    def call(self, call: Call) -> str:
        """Run one of the tools on offer and return its answer.

        Never raises: a wrong call and a failure inside the tool are reported in the answer.
        """
        ...

    def follow_up(self, answer: str | None) -> Turn | None:
        """Return the reply to an answer (the text given to `finish`; None: no call was made); None at the end."""
        ...

    def outcome(self) -> Mapping[str, Any]:
        """Return `success` (True, False, or None if nobody can tell) and the other findings of the task's checker."""
        ...

    def close(self) -> None:
        """Release processes and files."""
        ...
