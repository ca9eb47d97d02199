"""Environments of a user's own: a class that `_target_` names, whose keys are those of `benchmark`.

tasks() or tasks(seed)   the tasks of its conversations
environment()            a new `Environment` for one conversation
golden(task)             the golden calls of each turn of the user, where there are any; `source=golden` plays them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import DictConfig

from tltrain.environments import Environment
from tltrain.errors import TltrainError
from tltrain.runtime import targets
from tltrain.trajectory import Call, Task

METHODS = ("reset", "call", "follow_up", "outcome", "close")
"""What an `Environment` has."""


class World:
    """The object that a class of the user's makes of the keys of a benchmark, checked as it is used.

    Raises:
        TltrainError: there is no such class, it raises something, or it lacks a method.
    """

    def __init__(self, benchmark: DictConfig) -> None:
        self.where = f"benchmark.{targets.TARGET}={benchmark.get(targets.TARGET)}"
        function = targets.named(benchmark, {}, "benchmark")
        with targets.explained(self.where):
            self.made = targets.made(benchmark, function, "benchmark")
        _check(self.made, ("tasks", "environment"), self.where)

    def tasks(self, seed: int) -> list[Task]:
        """Return its tasks."""
        with targets.explained(f"{self.where}: tasks"):
            found = list(targets.given(self.made.tasks, seed=seed))
        if wrong := [type(task).__name__ for task in found if not isinstance(task, Task)]:
            raise TltrainError(f"{self.where}: tasks: expected tltrain.trajectory.Task objects, found {wrong[0]}")
        return found

    def environment(self) -> Environment:
        """Return a new environment."""
        with targets.explained(f"{self.where}: environment"):
            found = self.made.environment()
        _check(found, METHODS, f"{self.where}: environment")
        return found

    @property
    def golden(self) -> Callable[[Task], Sequence[Sequence[Call]]] | None:
        """Return what gives the golden calls of a task; None if it has none."""
        return getattr(self.made, "golden", None)


def _check(found: Any, methods: Sequence[str], where: str) -> None:
    if lacking := [name for name in methods if not callable(getattr(found, name, None))]:
        raise TltrainError(
            f"{where}: expected an object with the methods {', '.join(methods)}, found {type(found).__name__} without "
            f"{', '.join(lacking)}"
        )
