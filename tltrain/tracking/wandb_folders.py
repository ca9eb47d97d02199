"""Where wandb's runs are stored and which of them belong together, without loading wandb.

All runs that one command starts are in one tree, which one `wandb sync` uploads: `wandb/` in the sweep's folder, or in
the folder of the single run. A job's own folder has the id of its run, so a job that is run again can continue it.
"""

from __future__ import annotations

import logging
import re
import shlex
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from tltrain.runtime import runs

log = logging.getLogger(__name__)

ID_FILE = ".wandb_id"
"""Name of the file in a job's folder that has the id of its run."""
_ID = re.compile(r"[\w-]{1,64}")


def in_sweep() -> bool:
    """Return whether this job is one of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def home() -> Path:
    """Return the folder whose `wandb/` has the runs of all jobs in this sweep, or of all stages of this single run."""
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir if in_sweep() else hydra.runtime.output_dir).resolve()


def sync_command(home: Path) -> str:
    """Return the command that uploads every offline run of a sweep or a single run; uploaded ones are skipped."""
    return f"wandb sync {shlex.quote(str(home / 'wandb'))}"


def to_sync(home: Path) -> bool:
    """Return whether there are offline runs that have not been uploaded."""
    files = (home / "wandb").glob("offline-run-*/*.wandb")
    return any(not file.with_suffix(".wandb.synced").exists() for file in files)


def earlier_id(cfg: DictConfig, folder: Path) -> str | None:
    """Return the id of the run that this job continues; None for a new run.

    A job continues the run in its folder if it resumes (`stage.resume`) or is part of a sweep, where running a job
    again always means the same job.
    """
    if not (cfg.stage.get("resume") or in_sweep()):
        return None
    with suppress(OSError, UnicodeDecodeError):
        if _ID.fullmatch(id := (folder / ID_FILE).read_text(encoding="utf-8").strip()):
            return id
    return None


def record_id(folder: Path, id: str) -> None:
    """Write a run's id to its job's folder, for a later job that continues it."""
    try:
        with runs.writing(folder / ID_FILE) as file:
            file.write(f"{id}\n")
    except OSError as error:
        log.debug("%s: %s", folder / ID_FILE, error)


def group_and_name(cfg: DictConfig, folder: Path) -> tuple[str | None, str]:
    """Return a run's group (the folder of the sweep or job that it belongs to) and its name within that folder."""
    hydra = HydraConfig.get()
    above: Path | None = None
    if hydra.mode == RunMode.MULTIRUN:
        above = Path(hydra.sweep.dir).resolve()
    elif folder.resolve() != Path(hydra.runtime.output_dir).resolve():
        above = Path(hydra.runtime.output_dir).resolve()
    own = folder.resolve()
    name = str(own.relative_to(above)) if above is not None and above in own.parents else own.name
    return cfg.tracking.group or (above.name if above is not None else None), name
