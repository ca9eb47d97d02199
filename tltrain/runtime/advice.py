"""Say how to continue a run that was stopped, for whatever was started: a stage, a pipeline, the demo or a sweep."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

_running: list[DictConfig] = []
"""Configurations of the stages that run in this process, first the outermost one, which the user started."""


@contextmanager
def running(cfg: DictConfig) -> Iterator[None]:
    """Register that the stage of `cfg` runs within the block."""
    _running.append(cfg)
    try:
        yield
    finally:
        _running.pop()


def to_go_on() -> str:
    """Return how to continue from the complete files, or make them again, as the end of a sentence about them."""
    if not _running:  # only the first of several processes knows what was started
        return "the same command continues from it (for a single stage, with stage.resume=true)"
    cfg = _running[0]
    if cfg.stage.name == "demo":
        return "the same command starts the demo again"
    if cfg.stage.name in ("pipeline", "gate") and cfg.cache.enabled:
        return "the same command continues from it"
    if "resume" in cfg.stage:
        return f"the same command with {' '.join(['stage.resume=true', *_folder()])} continues from it"
    return "the same command makes the rest again"


def _folder() -> list[str]:
    """Return the override that names this run's or sweep's folder; empty if the command already named it."""
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
