"""Sweeps: what the jobs of a multirun left, gathered into one result, and the callback that does it at the end.

A job's folder has Hydra's `.hydra/config.yaml` and `overrides.yaml` from its beginning, `metrics.json` if it ended
well, else `error.txt`. Jobs that differ in nothing but the seed are one row.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from tltrain import fingerprints, runs, terminal, tracking
from tltrain.errors import TltrainError
from tltrain.report import conversations
from tltrain.report.sweep import FILE, Job, Row, StageCost, Sweep, save

log = logging.getLogger(__name__)

SWITCHES = {"mae": "MAE", "pkt": "PKT", "irm": "IRM"}
STANDARD = "standard SFT"
CURVES = {
    "model_sft": {"train/loss": "loss", "train/key_token_loss": "key_token_loss"},
    "model_pkt": {"train/loss": "loss", "train/key_token_loss": "key_token_loss"},
    "model_irm": {"irm/reward": "reward", "irm/kl": "kl"},
}
"""Folder of a job -> the curves in its history, by the names that dashboards have too."""


@dataclass(frozen=True)
class Found:
    """A job's folder as it was found: its configuration, and what was asked of it alone."""

    folder: Path
    config: Mapping[str, Any]
    overrides: Mapping[str, Any]


def gather(folders: Sequence[Path], name: str, command: str, baseline: str | None = None) -> Sweep:
    """The jobs in `folders` as rows.

    Args:
        baseline: the label of the row that others are compared with; None: standard SFT, where it is among them.

    Raises:
        TltrainError: there is no job in them, or no row of that label.
    """
    jobs = [_found(folder) for folder in folders if (folder / ".hydra" / "config.yaml").is_file()]
    if not jobs:
        raise TltrainError(f"{', '.join(map(str, folders)) or name}: there is no job's folder here (one with .hydra/)")
    axes = _axes(jobs)
    rows: dict[str, Row] = {}
    for job in jobs:
        own = {axis: _value(job, axis) for axis in axes}
        label = _label(own)
        row = rows.setdefault(label, Row(label, {_short(axis): value for axis, value in own.items()}, []))
        row.seeds.append(read_job(job.folder, int(job.config.get("seed", 0))))
    if baseline is not None and baseline not in rows:
        raise TltrainError(f"report.baseline={baseline}: there is no such row; there are: {', '.join(rows)}")
    costs = [cost for row in rows.values() for job in row.seeds for cost in job.stages]
    return Sweep(
        name=name,
        command=command,
        commit=commit(),
        versions={key: value or "" for key, value in fingerprints.versions().items()},
        config=(jobs[0].folder / ".hydra" / "config.yaml").read_text(encoding="utf-8"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        baseline=baseline or (STANDARD if STANDARD in rows else None),
        axes={_short(axis): list(dict.fromkeys(_value(job, axis) for job in jobs)) for axis in axes},
        rows=sorted(rows.values(), key=_place) if set(SWITCHES) <= set(map(_short, axes)) else list(rows.values()),
        cache={
            "built": sum(not cost.reused for cost in costs),
            "reused": sum(cost.reused for cost in costs),
            "seconds_saved": round(sum(cost.seconds for cost in costs if cost.reused), 1),
        },
        environment={"system": platform.system(), "machine": platform.machine(), "processors": _processors()},
    )


def job_folders(path: Path) -> list[Path]:
    """The folders of jobs in a sweep's folder, in their order; a job's folder is itself.

    Raises:
        TltrainError: there is no such folder.
    """
    if not path.is_dir():
        raise TltrainError(f"report.path={path}: there is no such folder")
    if (path / ".hydra").is_dir():
        return [path]
    found = [folder.parent for folder in path.glob("**/.hydra")]
    return sorted(found, key=lambda folder: [(len(part), part) for part in folder.relative_to(path).parts])


def read_job(folder: Path, seed: int) -> Job:
    """What a job left; with an error where it did not end well."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Job(seed, str(folder), _error(folder))
    evaluations = sorted(folder.glob("eval_*")) or [folder]
    return Job(
        seed=seed,
        folder=str(folder),
        metrics={key: value for key, value in metrics.items() if "/" in key and isinstance(value, int | float)},
        details=metrics.get("details", {}),
        predictions=[line for place in evaluations for line in _answers(place)],
        curves=_curves(folder),
        stages=[StageCost(**cost) for cost in metrics.get("stages", [])],
    )


def commit() -> str:
    """The commit of the checkout that runs, with `+` where files in it are changed; "" outside one."""
    git = ["git", "-C", str(Path(__file__).parents[1])]
    with suppress(OSError, subprocess.SubprocessError):
        run = {"capture_output": True, "text": True, "check": True, "timeout": 10}
        if Path(__file__).resolve().parents[1].joinpath(".git").exists():
            head = subprocess.run([*git, "rev-parse", "HEAD"], **run).stdout.strip()
            changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], **run).stdout
            return head + ("+" if changed else "")
    return ""


# --- reading a job ---------------------------------------------------------------------------------------------------


def _found(folder: Path) -> Found:
    read = {
        name: yaml.safe_load((folder / ".hydra" / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("config", "overrides")
    }
    words = (str(word).lstrip("+~").partition("=") for word in read["overrides"] or ())
    return Found(folder, read["config"], {key: value for key, _, value in words})


def _axes(jobs: Sequence[Found]) -> list[str]:
    """The keys in which jobs differ, the seed apart; all three switches where any of them is one."""
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    axes = [key for key in keys if key != "seed" and len({job.overrides.get(key) for job in jobs}) > 1]
    switches = [f"stage.{name}" for name in SWITCHES]
    if set(axes) & set(switches) and all(job.config["stage"].get("name") == "pipeline" for job in jobs):
        return [*switches, *(axis for axis in axes if axis not in switches)]
    return axes


def _value(job: Found, axis: str) -> Any:
    """What the job has for an axis: of a switch what is in force, since one may follow another."""
    if axis.removeprefix("stage.") in SWITCHES:
        return bool(OmegaConf.select(OmegaConf.create({"stage": _stage(job)}), axis))
    text = job.overrides.get(axis)
    with suppress(yaml.YAMLError):
        value = None if text is None else yaml.safe_load(text)
        return value if isinstance(value, str | int | float | bool | None) else text
    return text


def _stage(job: Found) -> Mapping[str, Any]:
    return {key: job.config["stage"].get(key) for key in SWITCHES}


def _short(axis: str) -> str:
    return axis.rpartition(".")[2]


def _label(axes: Mapping[str, Any]) -> str:
    switches = {axis: value for axis, value in axes.items() if axis.removeprefix("stage.") in SWITCHES}
    words = []
    if switches:
        on = [SWITCHES[_short(axis)] for axis, value in switches.items() if value]
        words.append(" + ".join(on) or STANDARD)
    words += [
        f"{_short(axis)}={json.dumps(value) if isinstance(value, bool | None) else value}"
        for axis, value in axes.items()
        if axis not in switches
    ]
    return ", ".join(words) or "all"


def _place(row: Row) -> tuple[int, list[bool]]:
    """Where the paper's ablation has a row: by how many ideas it has, MAE before PKT before IRM."""
    on = [bool(row.axes[name]) for name in SWITCHES]
    return sum(on), [not one for one in on]


def _error(folder: Path) -> str:
    with suppress(OSError):
        return (folder / "error.txt").read_text(encoding="utf-8").strip()
    return "stopped before its end"


def _curves(folder: Path) -> dict[str, list[list[float]]]:
    curves: dict[str, list[list[float]]] = {}
    for place, names in CURVES.items():
        history = _lines(folder / place / "history.jsonl")
        for name, key in names.items():
            points = [[entry["step"], entry[key]] for entry in history if key in entry and "step" in entry]
            if points := [point for point in points if all(map(math.isfinite, point))]:
                curves[name] = points
    return curves


def _answers(evaluation: Path) -> list[dict[str, Any]]:
    """The lines of an evaluation's predictions, or its conversations as such lines."""
    records = _lines(evaluation / "transcripts.jsonl")
    if not records:
        return _lines(evaluation / "predictions.jsonl")
    name = next(iter(json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))["details"]))
    return conversations.lines(records, name)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _processors() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    import os

    return f"{os.cpu_count()} CPU cores"


# --- while it runs ---------------------------------------------------------------------------------------------------

failed_jobs: list[str] = []
"""Folders of the jobs of the last multirun that did not end well, in whichever process they ran."""


class Gather(Callback):
    """Says which job a multirun is at, and leaves its report at the end."""

    def __init__(self) -> None:
        self.jobs: int | None = None
        self.number = 0

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Have the run's folder for this run alone."""
        _claim(config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Have the sweep's folder for this sweep alone; count the jobs, where that can be known before."""
        _claim(config.hydra.sweep.dir)
        self.jobs = count_jobs(config)
        failed_jobs.clear()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the job."""
        if config.hydra.mode.name != "MULTIRUN":
            return
        self.number += 1
        number = int(config.hydra.job.num) + 1
        of = f" of {self.jobs}" if self.jobs else ""
        terminal.errors.rule(f"job {number}{of}: {' '.join(config.hydra.overrides.task)}", align="left", characters="=")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Nothing: what a job left is in its folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Gather the jobs, print them as a table, and write the report where there were evaluations."""
        folder = Path(config.hydra.sweep.dir)
        name = _name(config)
        try:
            sweep = gather(job_folders(folder), name, command(), OmegaConf.select(config, "report.baseline"))
        except TltrainError as error:
            log.error("%s", error)
            return
        failed_jobs.extend(job.folder for row in sweep.rows for job in row.failed)
        show(sweep)
        if any(job.details for row in sweep.rows for job in row.seeds):
            write(sweep, folder)
            _track(config, folder)


def _track(config: DictConfig, folder: Path) -> None:
    """The report as a file of a run of its own, in the sweep's group."""
    own = copy.deepcopy(config)
    HydraConfig.instance().set_config(config)  # where jobs ran in processes of their own, none is set here
    with open_dict(own):
        own.pop("hydra")
        own.stage.name = "report"
    with tracking.job(own, folder) as tracker:
        tracker.track_file(folder / "report.html")


def _claim(folder: str) -> None:
    """Before anything is written there. Hydra would make a warning of an exception, but for one that ends a process."""
    with suppress(OSError):  # Hydra cannot write there either, and that is said in one place
        try:
            runs.claim(Path(folder))
        except TltrainError as error:
            print(error, file=sys.stderr)
            raise SystemExit(1) from error


def count_jobs(config: DictConfig) -> int | None:
    """The number of combinations that Hydra's own sweeper will make; None for others."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not str(config.hydra.sweeper.get("_target_", "")).endswith("BasicSweeper"):
        return None
    words = list(config.hydra.overrides.task)
    words += [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parsed = OverridesParser.create().parse_overrides(words)
    return sum(len(batch) for batch in BasicSweeper.split_arguments(parsed, None))


def command() -> str:
    """What was typed."""
    return shlex.join(["python", "-m", "tltrain", *sys.argv[1:]])


def _name(config: DictConfig) -> str:
    for word in config.hydra.overrides.task:
        key, _, value = word.lstrip("+").partition("=")
        if key == "experiment":
            return value
    return "sweep"


def show(sweep: Sweep) -> None:
    """The jobs and what became of them."""
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


LEVELS = ("ts", "pi", "cf", "de", "ce", "va", "success")
"""What is shown of a benchmark, in this order: `scoring.LEVELS`, `conversation_scores.LEVELS`."""


def _shown(key: str) -> bool:
    return key.count("/") == 1 and key.partition("/")[2] in LEVELS


def _order(key: str) -> tuple[str, int]:
    group, _, level = key.partition("/")
    return group, LEVELS.index(level)


def _cell(job: Job, name: str) -> str:
    return f"{job.metrics[name]:.1f}" if name in job.metrics else ""


def _state(job: Job) -> str:
    if job.error is not None:
        return "failed"
    made = sum(not cost.reused for cost in job.stages)
    return f"done, {made} stages made" if job.stages else "done"


def write(sweep: Sweep, folder: Path) -> None:
    """The report's files and what they were made of, into `folder`."""
    from tltrain.report.write import write_report  # charts take a second to load

    with terminal.status("writing the report"):
        save(sweep, folder / FILE)
        write_report(sweep, folder)
    terminal.console.print(f"Written to {folder / 'report.html'}, report.md, ablation.csv, ablation.tex", markup=False)
