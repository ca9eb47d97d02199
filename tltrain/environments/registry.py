"""Which environments there are: name -> its tasks, and how to make one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from omegaconf import DictConfig

from tltrain.environments import Environment, Task, toolworld
from tltrain.errors import TltrainError


class Kind(NamedTuple):
    """One kind of environment.

    Attributes:
        tasks: the tasks of `cfg.benchmark` and a seed, in their order.
        make: a new environment for `cfg.benchmark`; each conversation gets its own.
    """

    tasks: Callable[[DictConfig, int], list[Task]]
    make: Callable[[DictConfig], Environment]


ENVIRONMENTS: dict[str, Kind] = {
    "toolworld": Kind(toolworld.tasks, toolworld.make),
}


def kind_of(benchmark: DictConfig) -> Kind:
    """The environment of `benchmark.name`.

    Raises:
        TltrainError: there is none of that name.
    """
    if benchmark.name not in ENVIRONMENTS:
        names = ", ".join(ENVIRONMENTS)
        raise TltrainError(f"benchmark.name: with benchmark.multi=true expected one of {names}, found {benchmark.name}")
    return ENVIRONMENTS[benchmark.name]
