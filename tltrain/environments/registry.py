"""The environments, and the interface through which built-in ones and those of users are called.

An environment class is found by the name of its benchmark or by `_target_`, and its keys are those of `benchmark`:

tasks() or tasks(seed)   the tasks of its conversations
environment()            a new `Environment` for one conversation
golden(task)             optional: the golden calls of each turn of the user; `source=golden` plays them
prepare()                optional: checks or prepares something once, before a model is loaded
set_name()               optional: the name of its conversations in results, before `_multi`; default: the benchmark's
isolation()              for third-party tools: this machine's isolation of them; raises if it is weaker than was asked
                         for
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from omegaconf import DictConfig

from tltrain.environments import Environment, bfcl, python_tools, tooleyes
from tltrain.environments.sandbox import Isolation
from tltrain.errors import TltrainError
from tltrain.runtime import targets
from tltrain.toolworld import environment
from tltrain.trajectory import Call, Task

METHODS = ("reset", "call", "follow_up", "outcome", "close")
"""The methods of an `Environment`."""
ENVIRONMENTS: dict[str, type] = {
    "toolworld": environment.ToolworldTasks,
    "bfcl": bfcl.BfclTasks,
    "tooleyes": tooleyes.ToolEyesTasks,
    "python_tools": python_tools.PythonToolsTasks,
}
"""Built-in classes by the name of their benchmark; the annotation of their settings defines their keys."""


def check_name(benchmark: DictConfig) -> None:
    """Raise a TltrainError if no built-in class has the name of this benchmark."""
    if benchmark.name not in ENVIRONMENTS:
        names = ", ".join(ENVIRONMENTS)
        raise TltrainError(f"benchmark.name: with benchmark.multi=true expected one of {names}, found {benchmark.name}")


class World:
    """An environment class made with the keys of a benchmark; its results are checked as it is used.

    Raises:
        TltrainError: there is no such class, it raises an exception, or it lacks a method.
    """

    def __init__(self, benchmark: DictConfig) -> None:
        self._target = benchmark.get(targets.TARGET)
        self._name = str(benchmark.name)
        self.where = f"benchmark={self._name}" if self._target is None else f"benchmark.{targets.TARGET}={self._target}"
        if self._target is None:
            check_name(benchmark)
        function = targets.named(benchmark, ENVIRONMENTS, "benchmark")
        with self._explained():
            self._made = targets.made(benchmark, function, "benchmark")
        _check(self._made, ("tasks", "environment"), self.where)

    def _explained(self, what: str = "") -> AbstractContextManager[Any]:
        """Report an exception from a user's code in one line; one from built-in code keeps its traceback."""
        return nullcontext() if self._target is None else targets.explained(self.where + what)

    def tasks(self, seed: int) -> list[Task]:
        """Return the tasks of the conversations, in their order."""
        with self._explained(": tasks"):
            found = list(targets.given(self._made.tasks, seed=seed))
        if wrong := [type(task).__name__ for task in found if not isinstance(task, Task)]:
            raise TltrainError(f"{self.where}: tasks: expected tltrain.trajectory.Task objects, found {wrong[0]}")
        return found

    def prepare(self) -> None:
        """Check whatever the conversations need, before a model is loaded for them."""
        prepare = getattr(self._made, "prepare", None)
        if prepare is not None:
            with self._explained(": prepare"):
                prepare()

    def environment(self) -> Environment:
        """Return a new environment, for one conversation."""
        with self._explained(": environment"):
            found = self._made.environment()
        _check(found, METHODS, f"{self.where}: environment")
        return found

    @property
    def golden(self) -> Callable[[Task], Sequence[Sequence[Call]]] | None:
        """Return the function that gives the golden calls of a task; None if the class has none."""
        return self._golden if hasattr(self._made, "golden") else None

    def _golden(self, task: Task) -> Sequence[Sequence[Call]]:
        with self._explained(": golden"):
            found = self._made.golden(task)
            turns = () if found is None else tuple(found)
            right = all(isinstance(turn, Sequence) and all(isinstance(call, Call) for call in turn) for turn in turns)
        if not right:
            raise TltrainError(
                f"{self.where}: golden of {task.id}: expected the calls of each turn of the user (a list of lists of "
                f"tltrain.trajectory.Call), found {found!r}"
            )
        return turns

    @property
    def set_name(self) -> str:
        """Return the name of the conversations in results, before `_multi`."""
        stated = getattr(self._made, "set_name", None)
        return self._name if stated is None else str(stated())

    def isolation(self) -> Isolation | None:
        """Return this machine's isolation of third-party tools; None if there are none. Raises TltrainError."""
        stated = getattr(self._made, "isolation", None)
        return None if stated is None else stated()


def _check(found: Any, methods: Sequence[str], where: str) -> None:
    if lacking := [name for name in methods if not callable(getattr(found, name, None))]:
        raise TltrainError(
            f"{where}: expected an object with the methods {', '.join(methods)}, found {type(found).__name__} without "
            f"{', '.join(lacking)}"
        )
