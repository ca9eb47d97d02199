"""Tracking of a job: its metrics, tables of samples and artifacts, to wandb, TensorBoard or nowhere (`tracking=...`).

    with tracking.job(cfg, folder) as tracker:
        trainer = Trainer(..., callbacks=tracker.callbacks())
        tracker.metrics({"eval/toolworld/ts": 40.0})
        tracker.table("eval/predictions", ["id", "prediction"], rows)
        tracker.artifact("model", folder / "model")

Whatever goes wrong inside a tracker, the job goes on. What names metrics have is said in `tltrain.tracking.names`.
Nothing here loads wandb unless `tracking=wandb`.
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
    """For methods of a tracker: whatever they raise is warned of, the first time, and the job goes on."""

    @wraps(method)
    def safe(self: Tracker, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.complain(error)

    return safe


class Tracker:
    """A tracker that tracks nothing; the others override what they can show."""

    complained = False

    def complain(self, error: BaseException) -> None:
        """Warn of an error, the first time."""
        level = logging.DEBUG if self.complained else logging.WARNING
        log.log(level, "tracking: %s: %s; the job goes on", type(error).__name__, one_line(error))
        self.complained = True

    def callbacks(self) -> list[Any]:
        """Callbacks of transformers that hand on what a Trainer logs."""
        return []

    def metrics(self, numbers: Mapping[str, float]) -> None:
        """Numbers of the whole job, under names of `tltrain.tracking.names`."""

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], step: int | None = None) -> None:
        """A table of samples; no more rows than `tracking.rows`. `step`: the optimizer step it shows."""

    def artifact(self, kind: str, path: Path) -> None:
        """A file or folder that the job made, and from what: `kind` is data, model or evaluation."""

    def evaluation(
        self, metrics: Mapping[str, Any], predictions: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        """What stage=eval measured: its `metrics.json` to be, `predictions.jsonl`, and the same as rows of a table."""

    def track_file(self, path: Path) -> None:
        """A file to be kept with the run, with its content (a report)."""

    def preempted(self) -> None:
        """The job's machine is taken away, and it will go on elsewhere."""

    def close(self, failed: bool) -> None:
        """The job has ended."""


@contextmanager
def job(cfg: DictConfig, folder: Path) -> Iterator[Tracker]:
    """The tracker that `tracking=...` asks for, in `folder`; only the first of several processes tracks anything."""
    tracker = Tracker()
    if int(os.environ.get("RANK", "0")) == 0:
        try:
            tracker = _open(cfg, folder)
        except Exception as error:
            tracker.complain(error)
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
"""The trackers, by name; the annotation of its settings says the keys of each."""


@contextmanager
def prepared(cfg: DictConfig) -> Iterator[None]:
    """Around a stage: look first whether what tracks is there, and hide wandb from other libraries unless it tracks.

    Raises:
        TltrainError: a package is missing, or the file of panels is wrong; the message says what to do.
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
        # TRL imports wandb, a second's work, wherever it finds it; `None` is how Python says that there is no module,
        # which the type of `sys.modules` leaves out.
        sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        _unhide()


def _unhide() -> None:
    if sys.modules.get("wandb", True) is None:
        del sys.modules["wandb"]


def one_line(error: object) -> str:
    """A short line of what an error says."""
    return redact.text(" ".join(str(error).split()))[:200]


def wants_dashboard(cfg: DictConfig) -> bool:
    return cfg.tracking.name == "wandb" and cfg.tracking.dashboard


def wants_wandb(cfg: DictConfig) -> bool:
    return cfg.tracking.name == "wandb" and cfg.tracking.mode.name != "disabled"


def _reveal() -> None:
    """Import wandb. Where an earlier job of this process hid it, modules of TRL lack the name: they get it now."""
    _unhide()
    import wandb

    for name, module in list(sys.modules.items()):
        if name.startswith("trl.trainer.") and module is not None:
            module.__dict__.setdefault("wandb", wandb)
