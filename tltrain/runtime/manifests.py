"""Manifests: the size and digest of every file in a folder, with which a later process can detect changes.

A manifest is `{relative name: [size, digest]}`. Content is compared, not only size and time: a copy has other times,
and a failing disk changes neither.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tltrain.errors import TltrainError
from tltrain.runtime import fingerprints, json_files, runs

Manifest = Mapping[str, Sequence[Any]]
ENTRY = "entry.json"
"""In an entry of the cache of stages: its description, with its manifest as `files`."""


def of_files(folder: Path, names: Iterable[str], flush: bool = False) -> dict[str, list[Any]]:
    """Return the manifest of the files `names` below `folder`, reading several at the same time.

    Args:
        flush: make sure that their content is on the disk afterwards.

    Raises:
        OSError: one of them cannot be read.
    """

    def entry(name: str) -> list[Any]:
        with (folder / name).open("rb") as file:
            if flush:
                os.fsync(file.fileno())
            return [os.fstat(file.fileno()).st_size, fingerprints.digest(file)]

    names = list(names)
    with ThreadPoolExecutor(fingerprints.THREADS) as pool:
        return dict(zip(names, pool.map(entry, names), strict=True))


def changed(folder: Path, manifest: Manifest) -> str | None:
    """Return the first file that is missing, truncated or has different content; None if nothing has changed.

    All content is read, but only once per process: a file whose size and time have not changed since its last reading
    is not read again.
    """
    for name, (size, _) in manifest.items():  # first, since this needs no reading
        if _size(folder / name) != size:
            return name
    names = list(manifest)
    with ThreadPoolExecutor(fingerprints.THREADS) as pool:
        digests = pool.map(lambda name: _digest(folder / name), names)
        return next((name for name, found in zip(names, digests, strict=True) if found != manifest[name][1]), None)


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except (OSError, ValueError):  # a NUL in a name
        return None


def _digest(file: Path) -> str | None:
    try:
        return fingerprints.of_file(file)
    except OSError:
        return None


def beside(folder: Path) -> Path:
    """Return the path of a cached base model's manifest: outside its folder, whose copies may be changed."""
    return folder.with_name(f".{folder.name}.manifest.json")


def leave(folder: Path, place: Path) -> None:
    """Write the manifest of all files below `folder` to `place`."""
    names = [file.relative_to(folder).as_posix() for file in fingerprints.files(folder)]
    runs.write_json(place, of_files(folder, names))


def changed_since_left(folder: Path) -> str | None:
    """Return the first file of a folder that differs from its manifest, or the manifest itself if unreadable."""
    place = beside(folder)
    try:
        return changed(folder, json_files.read_object(place))
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return place.name


def check(path: Path) -> None:
    """Check a file or folder that is read from the cache by its path: part of an entry, or a base model.

    Raises:
        TltrainError: one of its files has changed since it was written.
    """
    real = path.resolve()
    if not real.exists():
        return
    if beside(real).is_file():
        name = changed_since_left(real)
    elif (entry := next((above for above in (real, *real.parents) if (above / ENTRY).is_file()), None)) is not None:
        name = changed(entry, _files(entry, real))
    else:
        return
    if name is not None:
        raise TltrainError(f"{path}: {name[:100]} has changed since it was written: repeat the command that made it")


def _files(entry: Path, path: Path) -> Manifest:
    """Return the part of an entry's manifest at or below `path`; empty if unreadable, which the cache reports."""
    try:
        files = json_files.read_object(entry / ENTRY)["files"]
        below = {name: kept for name, kept in files.items() if (entry / name).is_relative_to(path)}
        return {name: (kept[0], kept[-1]) for name, kept in below.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError):
        return {}
