"""Which files of a model's folder are passed on when it is exported.

The folder may be pushed to a hub, so nothing is copied that the folder only points to: a link that leads elsewhere is
refused rather than followed. What a Trainer keeps to resume is left out; it also has paths of the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from tltrain.data import nearby
from tltrain.errors import TltrainError

CONFIGS = ("config.json", "adapter_config.json")
"""A model's folder has one of these."""
TRAINER_STATE = (
    *("optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state*.pth", "training_args.bin"),
    *("trainer_state.json", "zero_to_fp32.py", "latest", "global_step*", "checkpoint-*"),
)
"""Files and folders of transformers' Trainer and of DeepSpeed beside a checkpoint's weights."""


def check(folder: Path) -> None:
    """Check that a folder is a model's and that everything in it can be copied.

    Raises:
        TltrainError: it is no model's folder, or has a link that leads out of it, or something that is not a file.
    """
    if not any((folder / name).is_file() for name in CONFIGS):
        hint = nearby.folder_hint(folder, CONFIGS)
        raise TltrainError(f"model.path={folder}: expected a model's folder, which has {' or '.join(CONFIGS)}{hint}")
    for path in _entries(folder):
        if path.is_symlink() and not _is_followed(path, folder):
            raise TltrainError(
                f"{path} is a link to {os.readlink(path)}, which is not in the model's folder: put a copy in its place "
                "or remove it, since what is behind it would be passed on"
            )
        if not path.is_file() and not (path.is_dir() and not path.is_symlink()):
            raise TltrainError(f"{path}: expected a file; remove it, since it cannot be copied")


def left_out(folder: Path) -> list[str]:
    """Return the names of a Trainer's own files and folders in a model's folder, which are not passed on."""
    return sorted(path.name for path in folder.iterdir() if any(fnmatch(path.name, each) for each in TRAINER_STATE))


def _entries(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder that an export would copy; folders behind links are not entered."""
    ignored: Sequence[str] = left_out(folder)
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in ignored]
        for name in (*folders, *files):
            if not name.startswith(".") and name not in ignored:
                yield Path(above) / name


def _is_followed(link: Path, folder: Path) -> bool:
    """Return whether a link is to a file of the folder itself or, as in a snapshot of the hub, of its cache."""
    target, own = link.resolve(), folder.resolve()
    blobs = own.parents[1] / "blobs" if own.parent.name == "snapshots" else own
    return target.is_file() and (target.is_relative_to(own) or target.parent == blobs)
