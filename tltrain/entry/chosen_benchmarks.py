"""Benchmarks that keys of a stage name: choices of `conf/benchmark` with other values, in `stage.benchmarks` and
`stage.environment`.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from tltrain import config
from tltrain.entry import choices
from tltrain.entry.composed import choice_of
from tltrain.errors import TltrainError
from tltrain.runtime import targets

ENVIRONMENT = "stage.environment"
TRAINED_IN = "toolworld_multi"
"""The environment of `stage.environment` without a name."""
TASKS = 1000
"""Tasks of toolworld to train in, where no size is given."""


def benchmark(choice: str | DictConfig) -> tuple[str, DictConfig]:
    """Return the folder's name and the configuration of one of `stage.benchmarks`.

    Raises:
        TltrainError: the choice does not exist, or it has no such key.
    """
    given = {"name": choice} if isinstance(choice, str) else config.plain(choice)
    return _chosen(given, "stage.benchmarks", "some")


def environment(cfg: DictConfig) -> tuple[str, DictConfig]:
    """Return the name and the configuration of `stage.environment`, within the whole one (for `${paths.bfcl}`).

    Toolworld's tools are those of the training split unless another one is named.

    Raises:
        TltrainError: there is no such choice, it has no such key, or it holds no conversations.
    """
    chosen = cfg.stage.environment
    given = {"name": TRAINED_IN} | config.plain(chosen)
    if (target := given.get(targets.TARGET)) is not None:
        if chosen.get("name") is None:
            given["name"] = str(target).rpartition(".")[2]
        name = str(given["name"])
        try:
            node = choices.bound("benchmark", OmegaConf.create(given | {"multi": True}), choice=name)
        except TltrainError as error:
            raise TltrainError(str(error).replace("benchmark.", f"{ENVIRONMENT}.", 1)) from error
        targets.check_given(node, targets.named(node, {}, "benchmark"), "benchmark")
    else:
        name, node = _chosen(given, ENVIRONMENT, "one")
        if not node.get("multi"):
            raise TltrainError(
                f"{ENVIRONMENT}.name={name}: has single questions and no conversations: expected a benchmark with "
                "multi=true, such as toolworld_multi"
            )
        if node.name == "toolworld":
            node.split = given.get("split", "train")
            node.size = given.get("size", TASKS)
    own = cfg.copy()
    own.benchmark = node
    return name, own.benchmark


def _chosen(given: dict[str, Any], where: str, amount: str) -> tuple[str, DictConfig]:
    name = given.pop("name", None)
    if name not in (names := choices.names_of("benchmark")):
        raise TltrainError(f"{where}: expected {amount} of {', '.join(names)}, found {name}")
    choice = choice_of("benchmark", name)
    untyped = OmegaConf.masked_copy(choice, list(choice))  # a user's class has other keys than the choice's schema
    try:
        return name, choices.bound("benchmark", config.merged(untyped, given), choice=name)
    except TltrainError as error:
        raise TltrainError(f"{where}, {str(error).replace('benchmark.', f'{name}.', 1)}") from error
