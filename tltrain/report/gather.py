"""Read the jobs of a multirun into one `Sweep`.

A job's folder has Hydra's `.hydra/config.yaml` and `overrides.yaml` from the start, and `metrics.json` if the job
succeeded, else `error.txt`. Jobs that differ only in the seed form one row.
"""

from __future__ import annotations

import json
import logging
import math
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf

from tltrain.data.reading import expect, optional
from tltrain.errors import TltrainError, shorten
from tltrain.evaluation import conversation_lines
from tltrain.evaluation.predictions import PREDICTIONS, Prediction
from tltrain.evaluation.records import read_lines
from tltrain.evaluation.transcripts import TRANSCRIPTS, Transcript
from tltrain.report.sweep import Job, Row, Sweep, costs
from tltrain.runtime import fingerprints, json_files, manifests, redact, yaml_files

log = logging.getLogger(__name__)

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
SWITCHES = {"mae": "MAE", "pkt": "PKT", "irm": "IRM"}
STANDARD = "standard SFT"
CURVES = {
    "model_sft": {"train/loss": "loss", "train/key_token_loss": "key_token_loss"},
    "model_pkt": {"train/loss": "loss", "train/key_token_loss": "key_token_loss"},
    "model_irm": {"irm/reward": "reward", "irm/kl": "kl"},
}
"""Folder of a job -> the curves in its history, under the same names as on dashboards."""


@dataclass(frozen=True)
class JobFolder:
    """A job's folder with its configured stage, its seed, and its overrides."""

    folder: Path
    stage: Mapping[str, Any]
    seed: int
    overrides: Mapping[str, Any]


def gather(
    folders: Sequence[Path], name: str, command: str, baseline: str | None = None, partial: bool = False
) -> Sweep:
    """Return the jobs in `folders` as rows of a sweep.

    Args:
        baseline: the label of the row to compare the others with; None: standard SFT, if there is such a row.
        partial: whether the row of that label may be missing, as where an experiment names it and the command line
            chose other rows; a warning says so, and it is as if None were given.

    Raises:
        TltrainError: the folders have no job, or no row has that label.
    """
    jobs = [_found(folder) for folder in folders if (folder / ".hydra" / "config.yaml").is_file()]
    if not jobs:
        raise TltrainError(f"{', '.join(map(str, folders)) or name}: no job folder (one with .hydra/) found")
    axes = _axes(jobs)
    rows: dict[str, Row] = {}
    for job in jobs:
        own = {axis: _value(job, axis) for axis in axes}
        label = _label(own)
        row = rows.setdefault(label, Row(label, {_short(axis): value for axis, value in own.items()}, []))
        row.seeds.append(read_job(job.folder, job.seed))
    if baseline is not None and baseline not in rows:
        missing = f"report.baseline={baseline}: no row has this label; expected one of: {', '.join(rows)}"
        if not partial:
            raise TltrainError(missing)
        log.warning("%s", missing)
        baseline = None
    costs = [cost for row in rows.values() for job in row.seeds for cost in job.stages]
    return Sweep(
        name=name,
        command=command,
        commit=commit(),
        versions={key: value or "" for key, value in fingerprints.versions().items()},
        config=_config(jobs[0].folder),
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
    """Return the job folders in a sweep's folder, in order; a job's folder counts as containing itself.

    Raises:
        TltrainError: the folder does not exist.
    """
    if not path.is_dir():
        raise TltrainError(f"report.path={path}: there is no such folder")
    if (path / ".hydra").is_dir():
        return [path]
    found = [folder.parent for folder in path.glob("**/.hydra")]
    return sorted(found, key=lambda folder: [(len(part), part) for part in folder.relative_to(path).parts])


def read_job(folder: Path, seed: int) -> Job:
    """Read a job's results, or its error if it failed or its results cannot be read."""
    if (folder / "error.txt").is_file():  # checked first: a refused job keeps the metrics of an earlier run
        return Job(seed, str(folder), _error(folder))
    if not (folder / "metrics.json").is_file():
        return Job(seed, str(folder), "stopped before it finished")
    try:
        return _finished(folder, seed)
    except TltrainError as error:
        return Job(seed, str(folder), str(error))


def _finished(folder: Path, seed: int) -> Job:
    """Read a successful job. Raises TltrainError if one of its files is not as a run writes it."""
    metrics = _metrics(folder)
    evaluations = sorted(folder.glob("eval_*")) or [folder]
    for place in evaluations:
        manifests.check(place)
    return Job(
        seed=seed,
        folder=str(folder),
        metrics={key: value for key, value in metrics.items() if "/" in key and isinstance(value, int | float)},
        details=optional(metrics, "details", {}),
        predictions=[line for place in evaluations for line in _answers(place)],
        curves=_curves(folder),
        stages=costs(metrics.get("stages", []), folder / "metrics.json"),
    )


def commit() -> str:
    """Return the commit of this checkout, with `+` if tracked files are modified; "" outside a checkout."""
    with suppress(OSError, subprocess.SubprocessError):
        if (ROOT / ".git").exists():
            changed = _git("status", "--porcelain", "--untracked-files=no")
            return _git("rev-parse", "HEAD").strip() + ("+" if changed else "")
    return ""


def _git(*words: str) -> str:
    """Return the output of a git command in this checkout. Raises OSError or SubprocessError."""
    git = ["git", "-C", str(ROOT), *words]
    return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout


# --- reading a job ---------------------------------------------------------------------------------------------------


def _found(folder: Path) -> JobFolder:
    """Read a job's folder. Raises TltrainError if Hydra's files in it are malformed."""
    config = _yaml(folder / ".hydra" / "config.yaml", dict)
    stage, seed = config.get("stage"), config.get("seed", 0)
    if not isinstance(stage, dict) or not isinstance(seed, int):
        raise TltrainError(f"{folder / '.hydra' / 'config.yaml'}: expected the configuration of a job, found another")
    overrides = _yaml(folder / ".hydra" / "overrides.yaml", list)
    words = (word.lstrip("+~").partition("=") for word in redact.command(map(str, overrides)))
    return JobFolder(folder, stage, seed, {key: value for key, _, value in words})


def _yaml(file: Path, kind: type[T]) -> T:
    """Read a YAML file that has a value of type `kind` or is empty. Raises TltrainError."""
    try:
        found = yaml_files.read(file)
    except (OSError, ValueError) as error:
        raise TltrainError(f"{file}: expected YAML, found: {shorten(str(error), 200)}") from None
    if found is not None and not isinstance(found, kind):
        raise TltrainError(f"{file}: expected YAML with a {kind.__name__}, found a {type(found).__name__}")
    return kind() if found is None else found


def _config(folder: Path) -> str:
    """Return a job's configuration, with any secrets that an earlier version left in it masked."""
    text = (folder / ".hydra" / "config.yaml").read_text(encoding="utf-8")
    plain = yaml_files.parse(text)
    masked = redact.container(plain)
    return text if masked == plain else yaml.safe_dump(masked, sort_keys=False, allow_unicode=True)


def _axes(jobs: Sequence[JobFolder]) -> list[str]:
    """Return the keys, other than the seed, in which jobs differ; all three switches if any of them differs."""
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    axes = [key for key in keys if key != "seed" and len({job.overrides.get(key) for job in jobs}) > 1]
    switches = [f"stage.{name}" for name in SWITCHES]
    if set(axes) & set(switches) and all(job.stage.get("name") == "pipeline" for job in jobs):
        return [*switches, *(axis for axis in axes if axis not in switches)]
    return axes


def _value(job: JobFolder, axis: str) -> Any:
    """Return the job's value of an axis; for a switch the composed value, since one switch may depend on another."""
    if axis.removeprefix("stage.") in SWITCHES:
        return bool(OmegaConf.select(OmegaConf.create({"stage": _stage(job)}), axis))
    text = job.overrides.get(axis)
    with suppress(ValueError):  # a date that does not exist, or the * of a glob
        value = None if text is None else yaml_files.parse(text)
        return value if isinstance(value, str | int | float | bool | None) else text
    return text


def _stage(job: JobFolder) -> Mapping[str, Any]:
    return {key: job.stage.get(key) for key in SWITCHES}


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
    """Return a row's sort key in the paper's ablation: its number of ideas, then MAE before PKT before IRM."""
    on = [bool(row.axes[name]) for name in SWITCHES]
    return sum(on), [not one for one in on]


def _error(folder: Path) -> str:
    with suppress(OSError):
        return redact.text((folder / "error.txt").read_text(encoding="utf-8", errors="replace").strip())
    return "stopped before it finished"


def _metrics(folder: Path) -> dict[str, Any]:
    """Read `metrics.json` of a job or an evaluation. Raises TltrainError."""
    file = folder / "metrics.json"
    try:
        return json_files.read_object(file)
    except (OSError, ValueError) as error:
        raise TltrainError(f"{file}: expected a JSON object, found: {shorten(str(error), 200)}") from None


def _curves(folder: Path) -> dict[str, list[list[float]]]:
    curves: dict[str, list[list[float]]] = {}
    for place, names in CURVES.items():
        history = _lines(folder / place / "history.jsonl", lambda record: expect(record, dict, "line"))
        for name, key in names.items():
            points: list[list[Any]] = [[entry.get("step"), entry.get(key)] for entry in history]
            if points := [point for point in points if all(map(_is_finite, point))]:
                curves[name] = points
    return curves


def _is_finite(number: object) -> bool:
    return isinstance(number, int | float) and abs(number) < math.inf


def _answers(evaluation: Path) -> list[Prediction]:
    """Return the predictions of an evaluation, or its conversations as predictions."""
    transcripts = _lines(evaluation / TRANSCRIPTS, Transcript.from_json)
    if not transcripts:
        return _lines(evaluation / PREDICTIONS, Prediction.from_json)
    name = next(iter(optional(_metrics(evaluation), "details", {})), "conversations")
    return conversation_lines.predictions(transcripts, name)


def _lines(path: Path, parse: Callable[[Any], T]) -> list[T]:
    return read_lines(path, parse) if path.is_file() else []


def _processors() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    import os

    return f"{os.cpu_count()} CPU cores"
