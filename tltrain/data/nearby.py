"""Suggest the intended path for one that is misspelt or names a folder one level too high or too low."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import islice
from os import PathLike
from pathlib import Path

_DRIVE = re.compile(r"([A-Za-z]):[\\/]+")
_MOST = 500
"""Maximum number of a folder's entries that are examined."""


def folder_hint(path: str | PathLike[str], names: Sequence[str]) -> str:
    """Return `; did you mean FOLDER?` for the nearest folder, up to two levels away, with one of these names, else "".

    Args:
        names: names of files or folders, in any case; `*` matches any characters.
    """
    own = Path(path)
    if (hint := windows_hint(path)) and not _is_folder(own):
        return hint
    for folder in (own.parent, *_folders(own, 2), own.parent.parent, *_folders(own.parent, 1)):
        if folder != own and any(fnmatch(entry.name.lower(), name.lower()) for entry in _in(folder) for name in names):
            return f"; did you mean {folder}?"
    return ""


def file_hint(path: str | PathLike[str]) -> str:
    """Return `; did you mean FILE?` for the JSON file in a folder, or a file with a similar name, else ""."""
    own = Path(path)
    if hint := windows_hint(path):
        return hint
    if _is_folder(own):
        files = [entry for entry in _in(own) if entry.suffix in (".json", ".jsonl") and entry.is_file()]
        return f"; did you mean {files[0]}?" if len(files) == 1 else ""
    near = difflib.get_close_matches(own.name, [entry.name for entry in _in(own.parent)], n=1)
    return f"; did you mean {own.parent / near[0]}?" if near else ""


def windows_hint(path: str | PathLike[str]) -> str:
    """Return where a Windows path would be under WSL, on a system without drives, else ""."""
    found = None if os.name == "nt" else _DRIVE.match(str(path))
    if found is None:
        return ""
    rest = re.sub(r"[\\/]+", "/", str(path)[found.end() :])
    return f"; that is a path of Windows, under WSL /mnt/{found[1].lower()}/{rest}"


def _is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False for a name that is too long or contains NUL."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _in(folder: Path) -> list[Path]:
    """Return the sorted entries of a folder; none if it cannot be read."""
    try:
        return sorted(islice(folder.iterdir(), _MOST))
    except (OSError, ValueError):
        return []


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the folders below a folder, nearest first."""
    level = [folder]
    for _ in range(depth):
        level = [entry for parent in level for entry in _in(parent) if _is_folder(entry)][:_MOST]
        yield from level
