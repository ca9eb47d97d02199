"""Manifests: the size and the digest of every file of a folder, by which a later process sees that nothing has changed.

A manifest is `{relative name: [size, digest]}`. Content is compared, not only size and time: a copy has other times,
and a disk that fails keeps both.
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
"""In an entry of the cache of stages: what it is, with its manifest as `files`."""


def of_files(folder: Path, names: Iterable[str], flush: bool = False) -> dict[str, list[Any]]:
    """The manifest of the files `names` below `folder`, several read at the same time.

    Args:
        flush: have their content on the disk afterwards.

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
    """The first file that is missing, cut or has another content; None where all is as it was.

    All content is read, but once a process: a file whose size and time are those of its last reading is not read again.
    """
    for name, (size, _) in manifest.items():  # first: needs no reading
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
    """Where the manifest of a base model of the cache stands: not in its folder, whose copies may be changed."""
    return folder.with_name(f".{folder.name}.manifest.json")


def leave(folder: Path, place: Path) -> None:
    """Write the manifest of all files below `folder` to `place`."""
    names = [file.relative_to(folder).as_posix() for file in fingerprints.files(folder)]
    runs.write_json(place, of_files(folder, names))


def changed_since_left(folder: Path) -> str | None:
    """The first file of a folder that is not as its own manifest says, the manifest itself where it cannot be read."""
    place = beside(folder)
    try:
        return changed(folder, json_files.read_object(place))
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return place.name


def check(path: Path) -> None:
    """Check what is read from the cache by its path: a file or folder of an entry, or a base model.

    Raises:
        TltrainError: a file of it is not as it was written.
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
        raise TltrainError(f"{path}: {name[:100]} is not as it was written: the command that made it makes it again")


def _files(entry: Path, path: Path) -> Manifest:
    """The part of an entry's manifest at or below `path`; empty where it cannot be read, which the cache reports."""
    try:
        files = json_files.read_object(entry / ENTRY)["files"]
        below = {name: kept for name, kept in files.items() if (entry / name).is_relative_to(path)}
        return {name: (kept[0], kept[-1]) for name, kept in below.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError):
        return {}
