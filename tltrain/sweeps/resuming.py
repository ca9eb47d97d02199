"""Whether a run that is to be resumed is the run that was stopped: the record of what decides a training's result."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain import config
from tltrain.errors import TltrainError
from tltrain.runtime import fingerprints, json_files, runs
from tltrain.sweeps import cache_key
from tltrain.training.checkpoints import last_checkpoint

log = logging.getLogger(__name__)

RECORD = ".decided_by.json"
"""In a training's folder from its beginning: the keys that decide its result, and the libraries' versions."""
SHOWN = 8
"""Most keys that a line names."""


def record(cfg: DictConfig, folder: Path) -> None:
    """Write down what decides the result of a training that begins in `folder`.

    What can be read only once, such as a pipe, has no content to compare: then nothing is written down.
    """
    (folder / RECORD).unlink(missing_ok=True)
    try:
        runs.write_json(folder / RECORD, decided_by(cfg))
    except TltrainError as error:
        log.warning("%s; a resumed run could not be compared with this one", error)


def decided_by(cfg: DictConfig) -> dict[str, Any]:
    """The keys that decide a training's result, the content of files in the place of their names, and versions."""
    return {
        "configuration": cache_key.configuration(config.plain(cfg, enum_to_str=True)),
        "versions": dict(fingerprints.versions()),
    }


def check(cfg: DictConfig, folder: Path) -> None:
    """Check that what `stage.resume=true` would go on from, or take as done, was made by this configuration.

    Raises:
        TltrainError: keys that decide the result differ; the line names them.
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
        log.warning("%s: nothing says which configuration it was made with, so none is compared", what)
        return
    now = decided_by(cfg)
    if names := cache_key.differences(configuration, now["configuration"]):
        shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        otherwise = (
            "give another hydra.run.dir"
            if ended
            else f"stage.resume=false stage.args.resume_from_checkpoint={checkpoint} goes on from it with these"
        )
        raise TltrainError(
            f"stage.resume=true: {what} was made with other values of {shown}: give them as they were, leave out "
            f"stage.resume to begin anew, or {otherwise}"
        )
    if not ended and (names := cache_key.differences(versions, now["versions"])):
        log.warning("%s was made with other versions of %s: the result may differ", what, ", ".join(names))
