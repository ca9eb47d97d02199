"""Check that a run to be resumed is the run that was stopped, by a record of what determines a training's result."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain import config
from tltrain.errors import TltrainError, shorten
from tltrain.runtime import fingerprints, json_files, runs
from tltrain.sweeps import cache_key
from tltrain.training.checkpoints import last_checkpoint

log = logging.getLogger(__name__)

RECORD = ".decided_by.json"
"""File written to a training run's folder at its start: the keys that determine its result, and library versions."""
SHOWN = 8
"""Most keys named in an error."""


def record(cfg: DictConfig, folder: Path) -> None:
    """Write to `folder` what determines the result of the training run that starts there.

    If a file can be read only once, such as a pipe, its content cannot be compared, and nothing is written.
    """
    (folder / RECORD).unlink(missing_ok=True)
    try:
        runs.write_json(folder / RECORD, decided_by(cfg))
    except TltrainError as error:
        log.warning("%s; a resumed run could not be compared with this one", error)


def decided_by(cfg: DictConfig) -> dict[str, Any]:
    """Return the keys that determine a training run's result, with files' content for their names, and versions."""
    return {
        "configuration": cache_key.configuration(config.plain(cfg, enum_to_str=True)),
        "versions": dict(fingerprints.versions()),
    }


def check(cfg: DictConfig, folder: Path) -> None:
    """Check that the checkpoint or finished run that `stage.resume=true` would use was made with this configuration.

    Raises:
        TltrainError: keys that determine the result differ; the message names them.
    """
    ended = runs.ended(folder) is not None
    checkpoint = last_checkpoint(folder / "checkpoints")
    if not ended and checkpoint is None:
        return
    what = f"the finished run in {folder}" if ended else str(checkpoint)
    try:
        before = json_files.read_object(folder / RECORD)
        configuration, versions = dict(before["configuration"]), dict(before["versions"])
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s does not record its configuration, so it is not compared", what)
        return
    now = decided_by(cfg)
    if names := cache_key.differences(configuration, now["configuration"]):
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        shown = ", ".join(map(shorten, names[:SHOWN])) + more
        otherwise = (
            "give another hydra.run.dir"
            if ended
            else f"stage.resume=false stage.args.resume_from_checkpoint={checkpoint} resumes from it with these values"
        )
        raise TltrainError(
            f"stage.resume=true: {what} was made with different values of {shown}: restore them, leave out "
            f"stage.resume to start from scratch, or {otherwise}"
        )
    if not ended and (names := cache_key.differences(versions, now["versions"])):
        log.warning("%s was made with different versions of %s: the result may differ", what, ", ".join(names))
