"""stage=report: gather finished jobs from anywhere into one report.

    python -m tltrain stage=report report.path=outputs/ablation/TIME
    python -m tltrain stage=report report.path=[outputs/pipeline/A,outputs/pipeline/B] report.baseline=LABEL

Writes `report.html`, `report.md`, `ablation.csv`, `ablation.tex` and `sweep.json`. For a finished sweep, its own record
of how it was made (command, commit, versions, machine, time) is kept. `report.texts=false` leaves out questions and
answers, and paths and addresses of this machine, for a report that is published.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain import tracking
from tltrain.errors import TltrainError
from tltrain.report import gather
from tltrain.report.publication import published
from tltrain.report.sweep import FILE, load
from tltrain.runtime import runs
from tltrain.sweeps import callback

OF_ITS_MAKING = ("name", "command", "commit", "versions", "created", "environment")


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    if not cfg.report.path:
        raise TltrainError("stage=report gathers jobs: give report.path=outputs/ablation/TIME, or several folders")
    paths = [cfg.report.path] if isinstance(cfg.report.path, str) else list(cfg.report.path)
    folders = [job for path in paths for job in gather.job_folders(Path(path))]
    sweep = gather.gather(folders, Path(paths[0]).parent.name, callback.command(), cfg.report.baseline)
    if len(paths) == 1 and (Path(paths[0]) / FILE).is_file():
        recorded = load(Path(paths[0]) / FILE)
        sweep = replace(sweep, **{key: getattr(recorded, key) for key in OF_ITS_MAKING})
    callback.show(sweep)
    with tracking.job(cfg, folder) as tracker:
        callback.write(sweep if cfg.report.texts else published(sweep), folder)
        tracker.track_file(folder / "report.html")
    metrics = {
        "rows": len(sweep.rows),
        "jobs": sum(len(row.seeds) for row in sweep.rows),
        "failed": sum(len(row.failed) for row in sweep.rows),
    }
    runs.finish(folder, cfg, metrics)
    return metrics
