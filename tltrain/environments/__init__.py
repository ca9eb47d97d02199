"""Environments: tools that really run, for conversations of many calls.

An `Environment` is the world of one conversation. The loop in `loop.py` asks the source (a model, an endpoint) for the
next call, reads it, and passes it on; a model's text gets no further than that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
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


class Prepared(ABC):
    """Environments that need something read, started or checked once, before the first of them."""

    _made: Callable[[], Environment] | None = None

    @abstractmethod
    def make(self) -> Callable[[], Environment]:
        """Return what makes an environment. Raises TltrainError if none can be made."""

    def prepare(self) -> None:
        """Do now what the first environment would do."""
        if self._made is None:
            self._made = self.make()

    def environment(self) -> Environment:
        """Return a new environment."""
        self.prepare()
        assert self._made is not None
        return self._made()
