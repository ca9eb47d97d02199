"""Which environments there are: name -> its tasks, and how to make one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple

from omegaconf import DictConfig

from tltrain.environments import Environment, bfcl, own, python_tools, tooleyes
from tltrain.environments.sandbox import Isolation
from tltrain.errors import TltrainError
from tltrain.runtime import targets
from tltrain.toolworld import environment
from tltrain.trajectory import Call, Task


class Kind(NamedTuple):
    """One kind of environment.

    Attributes:
        tasks: the tasks of `cfg.benchmark` and a seed, in their order.
        make: for `cfg.benchmark`, what gives a new environment; each conversation has its own. The annotation of its
            settings says the keys of the benchmark.
        golden: for `cfg.benchmark` and a task, the golden calls of each turn of the user, nothing where a task
            has none; None where no task has any.
        set_name: for `cfg.benchmark`, the name of its conversations in results, before `_multi`.
        isolation: for `cfg.benchmark`, how far this machine isolates its tools; raises where that is less than what was
            asked for. None where the tools are not a stranger's.
    """

    tasks: Callable[..., list[Task]]
    make: Callable[..., Callable[[], Environment]]
    golden: Callable[..., Sequence[Sequence[Call]]] | None = None
    isolation: Callable[..., Isolation] | None = None
    set_name: Callable[..., str] = attrgetter("name")


ENVIRONMENTS: dict[str, Kind] = {
    "toolworld": Kind(environment.tasks, environment.make, environment.golden_calls, set_name=environment.set_name),
    "bfcl": Kind(bfcl.tasks, bfcl.make, bfcl.golden_calls),
    "tooleyes": Kind(tooleyes.tasks, tooleyes.make, isolation=tooleyes.isolated),
    "python_tools": Kind(
        python_tools.tasks, python_tools.make, python_tools.golden_calls, isolation=python_tools.isolated
    ),
}


def _own(benchmark: DictConfig) -> Kind:
    world = own.World(benchmark)
    golden = world.golden
    return Kind(
        tasks=lambda benchmark, seed: world.tasks(seed),
        make=lambda benchmark: world.environment,
        golden=None if golden is None else lambda benchmark, task: golden(task),
    )


def kind_of(benchmark: DictConfig) -> Kind:
    """The environment of `benchmark.name`, or of the class that `benchmark._target_` names.

    Raises:
        TltrainError: there is none.
    """
    if benchmark.get(targets.TARGET) is not None:
        return _own(benchmark)
    if benchmark.name not in ENVIRONMENTS:
        names = ", ".join(ENVIRONMENTS)
        raise TltrainError(f"benchmark.name: with benchmark.multi=true expected one of {names}, found {benchmark.name}")
    return ENVIRONMENTS[benchmark.name]
