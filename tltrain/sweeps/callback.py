"""The Hydra callback that reports a multirun's progress and writes its report at the end."""

from __future__ import annotations

import copy
import logging
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from tltrain import tracking
from tltrain.config import plain
from tltrain.entry import choices, program
from tltrain.errors import TltrainError
from tltrain.evaluation.metrics import METRICS
from tltrain.report.gather import gather, job_folders
from tltrain.report.sweep import FILE, Job, Sweep, save, without_texts
from tltrain.runtime import out_of_space, redact, runs, terminal
from tltrain.runtime.durations import duration
from tltrain.tracking import wandb_folders

log = logging.getLogger(__name__)

failed_jobs: list[str] = []
"""Folders of the last multirun's failed jobs, from all processes."""
refusals: list[int] = []
"""Exit statuses of the last multirun's jobs that ended well with the verdict no, from all processes."""


class SweepCallback(Callback):
    """Reports a multirun's progress and writes its report at the end."""

    def __init__(self) -> None:
        self.jobs: int | None = None
        self.number = 0
        self.began = 0.0

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Prepare the process in which a Hydra launcher runs a job, before Hydra writes anything there."""
        vars(self).update(state)
        redact.install()

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the run's folder for this run."""
        redact.learn_config(config)
        _claim(config, "hydra.run.dir")

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Point `latest` at the run if it succeeded."""
        folder = Path(config.hydra.run.dir)
        if runs.ended(folder) is not None:
            runs.link_latest(folder)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the sweep's folder for this sweep, and count its jobs if they are known in advance."""
        redact.learn_config(config)
        _claim(config, "hydra.sweep.dir")
        self.jobs = count_jobs(config)
        failed_jobs.clear()
        refusals.clear()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Announce the job."""
        redact.begin_job(config)
        if config.hydra.mode.name != "MULTIRUN":
            return
        self.number += 1
        self.began = time.monotonic()
        words = " ".join(redact.command(config.hydra.overrides.task))
        terminal.errors.rule(f"{self._which(config)}: {words}", align="left", characters="=")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Report how the job ended and how far the sweep has come; forget the job's configuration."""
        if config.hydra.mode.name != "MULTIRUN":
            return
        # Hydra's launcher keeps every job's return until the sweep ends; sweepers only read the return value.
        job_return.cfg = job_return.hydra_cfg = None
        sweep = Path(config.hydra.sweep.dir)
        state = _job_state(sweep / config.hydra.sweep.subdir)
        took = duration(time.monotonic() - self.began)
        text = f"{self._which(config)} {state} after {took}; {progress(sweep, self.jobs)}"
        terminal.errors.print(text, markup=False, highlight=False)

    def _which(self, config: DictConfig) -> str:
        of = f" of {self.jobs}" if self.jobs else ""
        return f"job {int(config.hydra.job.num) + 1}{of}"

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Gather the jobs, print them as a table, and write the report if there were evaluations."""
        folder = Path(config.hydra.sweep.dir)
        name = _name(config)
        try:
            refusals.extend(filter(None, map(refusal, job_folders(folder))))
            baseline = OmegaConf.select(config, "report.baseline")
            sweep = gather(job_folders(folder), name, command(), baseline, partial=True)
        except TltrainError as error:
            log.error("%s", error)
            return
        if not OmegaConf.select(config, "report.texts"):
            sweep = without_texts(sweep)
        failed_jobs.extend(job.folder for row in sweep.rows for job in row.failed)
        show(sweep)
        if any(job.details for row in sweep.rows for job in row.seeds):
            write(sweep, folder)
            _track(config, folder)
        if wandb_folders.to_sync(folder):  # by this sweep or by one that was interrupted here
            line = wandb_folders.sync_command(folder.resolve())
            terminal.errors.print(line, markup=False, highlight=False, soft_wrap=True)
        runs.link_latest(folder)


def refusal(folder: Path) -> int | None:
    """Return the exit status of a finished run whose verdict is no (stage=gate); None for any other."""
    metrics = runs.ended(folder) or {}
    status = metrics.get("exit_status")
    return status if metrics.get("passed") is False and isinstance(status, int) else None


def progress(sweep: Path, jobs: int | None) -> str:
    """Return the numbers of jobs done, failed, running and waiting; read from their folders, it covers all processes.

    Args:
        jobs: the number of jobs in the sweep; None if unknown.
    """
    states = [_job_state(folder.parent) for folder in sweep.glob("*/.hydra")]
    counts = {state: states.count(state) for state in ("done", "failed", "running")}
    counts["waiting"] = max((jobs or 0) - len(states), 0)
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def _job_state(folder: Path) -> str:
    if (folder / "error.txt").is_file():  # first, since a refused job leaves the previous run's metrics
        return "failed"
    return "done" if (folder / "metrics.json").is_file() else "running"


def _track(config: DictConfig, folder: Path) -> None:
    """Track the report as a file of its own run in the sweep's group."""
    own = copy.deepcopy(config)
    HydraConfig.instance().set_config(config)  # not set here if the jobs ran in other processes
    with open_dict(own):
        own.pop("hydra")
        own.stage.name = "report"
        own.tracking = choices.bound("tracking", own.tracking)
    with tracking.job(own, folder) as tracker:
        tracker.track_file(folder / "report.html")


def _refuse_secret_names(config: DictConfig) -> None:
    """Check that no folder is named after a secret of the command line, which `override_dirname` repeats.

    Raises:
        TltrainError: one would be.
    """
    several = config.hydra.mode.name == "MULTIRUN"
    node, names = (config.hydra.sweep, ("dir", "subdir")) if several else (config.hydra.run, ("dir",))
    places = plain(node, resolve=False)
    where = "hydra.sweep" if several else "hydra.run"
    named = [f"{where}.{name}" for name in names if "override_dirname" in str(places[name])]
    left_out = config.hydra.job.config.override_dirname.exclude_keys
    words = [word for word in config.hydra.overrides.task if word.lstrip("+~").partition("=")[0] not in left_out]
    if named and redact.command(words) != words:
        raise TltrainError(
            f"{named[0]}: its folders would be named after a secret of the command line; give the secret as "
            "${oc.env:NAME}, or add its key to hydra.job.config.override_dirname.exclude_keys"
        )


def _claim(config: DictConfig, key: str) -> None:
    """Claim the folder in `key` before anything is written. Hydra turns exceptions into warnings, except SystemExit."""
    given = str(OmegaConf.select(config, key))
    folder = Path(given)
    try:
        if not given.strip():
            raise TltrainError(f"{key}: expected a folder, found nothing; {key}=. is the current folder")
        _refuse_secret_names(config)
        runs.check_place(folder, config)
        runs.claim(folder)
        runs.check_stage(folder, config)
    except TltrainError as error:
        print(redact.text(str(error)), file=sys.stderr)
        raise SystemExit(1) from error
    except OSError as error:
        why = runs.obstacle(folder) or out_of_space.of_disk(error) or error.strerror
        print(redact.text(f"{key}={folder} cannot be created: {why}"), file=sys.stderr)
        raise SystemExit(1) from error


def count_jobs(config: DictConfig) -> int | None:
    """Return the number of combinations of Hydra's own sweeper; None for other sweepers."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not str(config.hydra.sweeper.get("_target_", "")).endswith("BasicSweeper"):
        return None
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    words += config.hydra.overrides.task  # in Hydra's order: the last of several values for a key counts
    parsed = OverridesParser.create().parse_overrides(words)
    return sum(len(batch) for batch in BasicSweeper.split_arguments(parsed, None))


def command() -> str:
    """Return the command line as typed, without secrets."""
    return shlex.join([*program.name().split(), *redact.command(sys.argv[1:])])


def _name(config: DictConfig) -> str:
    for word in config.hydra.overrides.task:
        key, _, value = word.lstrip("+").partition("=")
        if key == "experiment":
            return value
    return "sweep"


def show(sweep: Sweep) -> None:
    """Print the jobs and their results."""
    names = sorted(
        {key for row in sweep.rows for job in row.finished for key in job.metrics if _shown(key)}, key=_order
    )
    rows = [
        [row.label, job.seed, _state(job), *(_cell(job, name) for name in names)]
        for row in sweep.rows
        for job in row.seeds
    ]
    terminal.table(f"{len(rows)} jobs", ["row", "seed", "state", *names], rows)
    for row in sweep.rows:
        for job in row.failed:
            terminal.errors.print(f"{row.label}, seed {job.seed}: {job.error}", style="yellow", markup=False)


def _shown(key: str) -> bool:
    return key.count("/") == 1 and key.partition("/")[2] in METRICS


def _order(key: str) -> tuple[str, int]:
    group, _, level = key.partition("/")
    return group, list(METRICS).index(level)


def _cell(job: Job, name: str) -> str:
    return f"{job.metrics[name]:.1f}" if name in job.metrics else ""


def _state(job: Job) -> str:
    if job.error is not None:
        return "failed"
    made = sum(not cost.reused for cost in job.stages)
    return f"done, {made} stages built" if job.stages else "done"


def write(sweep: Sweep, folder: Path) -> None:
    """Write the report's files and its data to `folder`."""
    from tltrain.report.write import write_report  # charts take a second to load

    with terminal.status("writing the report"):
        save(sweep, folder / FILE)
        write_report(sweep, folder)
    terminal.console.print(f"Written to {folder / 'report.html'}, report.md, ablation.csv, ablation.tex", markup=False)
