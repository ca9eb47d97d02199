"""Fingerprints: a short name for everything that determines a result.

A fingerprint is a digest of canonical JSON. If a configuration names a file or a folder, its content counts, not its
name: a copy elsewhere has the same fingerprint, and an edited file has a different one.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import metadata
from io import BufferedReader
from pathlib import Path
from typing import Any

import xxhash

from tltrain.errors import TltrainError

PACKAGES = (
    *("torch", "transformers", "trl", "accelerate", "tokenizers", "numpy"),
    *("deepspeed", "peft", "bitsandbytes", "liger-kernel"),
)
"""Libraries whose version may change a trained model or an answer."""
NOT_READ = (".git", "__pycache__")
"""Folders inside a folder of data that no reader opens."""
THREADS = 8
"""Number of files that are read at the same time; hashing lets other threads run."""


def fingerprint(value: Any) -> str:
    """Return 16 hexadecimal digits for a value made of dicts, lists, strings, numbers, booleans and None."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_path(path: Path) -> str:
    """Return a digest of a file's content, or of all files below a folder with their relative names.

    Raises:
        TltrainError: a folder without files, or neither a file nor a folder (such as a pipe, which is read only once).
        OSError: it cannot be read.
    """
    if path.is_file():
        return of_file(path)
    if not path.is_dir():
        raise TltrainError(f"{path}: expected a file or a folder")
    found = list(files(path))
    if not found:
        raise TltrainError(f"{path}: expected files in this folder, found none")
    names = [file.relative_to(path).as_posix() for file in found]
    with ThreadPoolExecutor(THREADS) as pool:
        return fingerprint(dict(zip(names, pool.map(of_file, found), strict=True)))


def files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder in the order of names, as a reader would find it: links are followed too.

    `NOT_READ` is left out. A link to a folder that contains the link is not followed, since that would never end.

    Raises:
        OSError: a folder cannot be listed.
    """
    yield from _files(folder, frozenset({folder.resolve()}))


def _files(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in NOT_READ and (real := path.resolve()) not in above:
                yield from _files(path, above | {real})
        elif path.is_file():
            yield path


def of_file(path: Path) -> str:
    """Return the `digest` of a file's content; it is read again only if its size or modification time changes."""
    stat = path.stat()
    return _of_file(path.resolve(), stat.st_size, stat.st_mtime_ns)


@cache
def _of_file(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return digest(file)


def digest(file: BufferedReader) -> str:
    """Return 32 hexadecimal digits for an open file's content: XXH3, which unlike SHA-256 is as fast as reading.

    It detects accidental changes, but does not withstand deliberate forgery.
    """
    return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def versions(packages: Iterable[str] = PACKAGES) -> Mapping[str, str | None]:
    """Return the versions of Python and of the libraries (None: not installed)."""
    return {"python": ".".join(map(str, sys.version_info[:2]))} | {name: version(name) for name in packages}


@cache
def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
