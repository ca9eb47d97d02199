"""Track a job: metrics, tables of samples and artifacts, in wandb, TensorBoard or nowhere (`tracking=...`).

    with tracking.job(cfg, folder) as tracker:
        trainer = Trainer(..., callbacks=tracker.callbacks())
        tracker.metrics({"eval/toolworld/ts": 40.0})
        tracker.table("eval/predictions", ["id", "prediction"], rows)
        tracker.artifact("model", folder / "model")

An error inside a tracker never stops the job. `tltrain.tracking.names` defines the names of metrics. wandb is loaded
only if `tracking=wandb`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain import config
from tltrain.errors import TltrainError
from tltrain.runtime import redact, targets
from tltrain.runtime.preemption import Preempted

__all__ = ["Tracker", "guarded", "job", "one_line", "prepared"]

log = logging.getLogger(__name__)


def guarded(method: Callable[..., None]) -> Callable[..., None]:
    """Decorate a method of a tracker: it never raises; the tracker's first error is logged as a warning."""

    @wraps(method)
    def safe(self: Tracker, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.warn(error)

    return safe


class Tracker:
    """A tracker that tracks nothing; subclasses override what they support."""

    warned = False

    def warn(self, error: BaseException) -> None:
        """Log an error, the first one as a warning."""
        level = logging.DEBUG if self.warned else logging.WARNING
        log.log(level, "tracking: %s: %s; the job continues", type(error).__name__, one_line(error))
        self.warned = True

    def callbacks(self) -> list[Any]:
        """Return transformers callbacks that forward the Trainer's logs."""
        return []

    def metrics(self, numbers: Mapping[str, float]) -> None:
        """Track numbers of the whole job, under names of `tltrain.tracking.names`."""

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], step: int | None = None) -> None:
        """Track a table of samples, at most `tracking.rows` rows, for an optimizer `step`."""

    def artifact(self, kind: str, path: Path) -> None:
        """Track a file or folder that the job made, and its inputs; `kind` is data, model or evaluation."""

    def evaluation(
        self, metrics: Mapping[str, Any], predictions: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        """Track a result of stage=eval: the content of `metrics.json`, `predictions.jsonl`, and its rows as a table."""

    def track_file(self, path: Path) -> None:
        """Keep a file (a report) with the run, including its content."""

    def preempted(self) -> None:
        """Mark the job as preempted: it will continue on another machine."""

    def close(self, failed: bool) -> None:
        """End the run."""


@contextmanager
def job(cfg: DictConfig, folder: Path) -> Iterator[Tracker]:
    """Open the tracker that `tracking=...` chooses, in `folder`; only rank 0 tracks."""
    tracker = Tracker()
    if int(os.environ.get("RANK", "0")) == 0:
        try:
            tracker = _open(cfg, folder)
        except Exception as error:
            tracker.warn(error)
    try:
        yield tracker
    except BaseException as error:
        if isinstance(error, Preempted):
            tracker.preempted()
        tracker.close(failed=True)
        raise
    tracker.close(failed=False)


def _open(cfg: DictConfig, folder: Path) -> Tracker:
    return targets.call(cfg.tracking, TRACKERS, "tracking", cfg=cfg, folder=folder)


def _nothing(settings: config.Tracking) -> Tracker:
    return Tracker()


def _wandb(settings: config.WandbTracking, cfg: DictConfig, folder: Path) -> Tracker:
    if not wants_wandb(cfg):
        return Tracker()
    _reveal()
    from tltrain.tracking.wandb import WandbTracker

    return WandbTracker(cfg, folder)


def _tensorboard(settings: config.Tracking, folder: Path) -> Tracker:
    from tltrain.tracking.tensorboard import TensorBoardTracker

    return TensorBoardTracker(folder)


TRACKERS: dict[str, Callable[..., Tracker]] = {"none": _nothing, "wandb": _wandb, "tensorboard": _tensorboard}
"""Trackers by name. The annotation of a tracker's first parameter defines its keys."""


@contextmanager
def prepared(cfg: DictConfig) -> Iterator[None]:
    """Check before a stage that the tracker's packages exist, and hide wandb from other libraries if it is not used.

    Raises:
        TltrainError: a package is missing, or the panels file is wrong; the message gives the remedy.
    """
    needed = [("tracking=tensorboard", "tensorboard", "tensorboard", cfg.tracking.name == "tensorboard")]
    needed += [("tracking.dashboard=true", "wandb-workspaces", "dashboards", dashboards := wants_dashboard(cfg))]
    for key, package, extra, wanted in needed:
        if wanted and importlib.util.find_spec(package.replace("-", "_")) is None:
            raise TltrainError(f"{key} needs the package {package}: pip install {package} (or 'tltrain[{extra}]')")
    if dashboards:
        from tltrain.tracking import dashboard

        dashboard.read(cfg.tracking.panels)
    if not wants_wandb(cfg):
        # TRL imports wandb, which takes a second, whenever it finds it. With `None`, Python reports a missing module,
        # though the type of `sys.modules` does not allow that value.
        sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        _unhide()


def _unhide() -> None:
    if sys.modules.get("wandb", True) is None:
        del sys.modules["wandb"]


def one_line(error: object) -> str:
    """Return an error's message as one short line."""
    return redact.text(" ".join(str(error).split()))[:200]


def wants_dashboard(cfg: DictConfig) -> bool:
    return cfg.tracking.name == "wandb" and cfg.tracking.dashboard


def wants_wandb(cfg: DictConfig) -> bool:
    return cfg.tracking.name == "wandb" and cfg.tracking.mode.name != "disabled"


def _reveal() -> None:
    """Import wandb. If an earlier job in this process hid it, set the name in TRL's modules that lack it."""
    _unhide()
    import wandb

    for name, module in list(sys.modules.items()):
        if name.startswith("trl.trainer.") and module is not None:
            module.__dict__.setdefault("wandb", wandb)
