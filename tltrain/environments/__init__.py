"""Environments: tools that really run, for conversations of many calls.

An `Environment` is the world of one conversation. The loop in `loop.py` asks whoever answers (a model, an endpoint)
for the next call, reads it, and hands it over; no text of a model gets further than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tltrain.trajectory import Call, Task, Turn


class Environment(Protocol):
    """The world of one conversation; made anew for each."""

    def reset(self, task: Task) -> Turn:
        """Begin: the world as the task wants it, and the user's first words."""
        ...

    def call(self, call: Call) -> str:
        """Run one of the tools on offer and return its answer.

        Whatever is wrong with the call, or happens inside the tool, is told in the answer: nothing is raised.
        """
        ...

    def follow_up(self, answer: str | None) -> Turn | None:
        """What the user says after an answer (the words given to `finish`; None: no call was made); None at the end."""
        ...

    def outcome(self) -> Mapping[str, Any]:
        """`success` (True, False, or None where nobody can tell) and whatever else the checker of the task says."""
        ...

    def close(self) -> None:
        """Let go of processes and files."""
        ...
