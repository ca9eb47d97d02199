"""What to do after a run was stopped, said to whoever started it: a stage, a pipeline, the demo or a sweep."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

_running: list[DictConfig] = []
"""Configurations of the stages that run in this process, the outermost first: the one that the user asked for."""


@contextmanager
def running(cfg: DictConfig) -> Iterator[None]:
    """Within the block the stage of `cfg` runs."""
    _running.append(cfg)
    try:
        yield
    finally:
        _running.pop()


def to_go_on() -> str:
    """The command that goes on from what is whole, or makes it again, as the end of a sentence about it."""
    if not _running:  # of several processes only the first knows what was asked for
        return "the same command goes on from it, that of a single stage with stage.resume=true"
    cfg = _running[0]
    if cfg.stage.name == "demo":
        return "the same command starts the demo again"
    if cfg.stage.name in ("pipeline", "gate") and cfg.cache.enabled:
        return "the same command goes on from it"
    if "resume" in cfg.stage:
        return f"the same command with {' '.join(['stage.resume=true', *_folder()])} goes on from it"
    return "the same command makes the rest again"


def _folder() -> list[str]:
    """The override that names the folder of this run or sweep, where the command did not: the next has another time."""
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get()
    key, folder = (
        ("hydra.sweep.dir", hydra.sweep.dir)
        if hydra.mode is RunMode.MULTIRUN
        else ("hydra.run.dir", hydra.runtime.output_dir)
    )
    given = any(word.lstrip("+").startswith(f"{key}=") for word in hydra.overrides.hydra)
    return [] if given else [shlex.quote(f"{key}={folder}")]
