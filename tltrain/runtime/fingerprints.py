"""Fingerprints: a short name for everything that decides a result.

A fingerprint is a digest of canonical JSON. If a configuration names a file or a folder, its content counts, not its
name: a copy elsewhere has the same fingerprint, and an edited file has another.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "trl", "accelerate", "tokenizers", "numpy", "deepspeed", "peft")
"""Libraries whose version may change a trained model or an answer."""


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits of a value made of dicts, lists, strings, numbers, booleans and None."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_path(path: Path) -> str:
    """A digest of a file's content, or of all files below a folder with their relative names.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_file():
        return of_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and ".git" not in file.parts)
    return fingerprint({file.relative_to(path).as_posix(): of_file(file) for file in files})


def of_file(path: Path) -> str:
    """SHA-256 of a file's content; the file is read again only if its size or modification time changes."""
    stat = path.stat()
    return _of_file(path.resolve(), stat.st_size, stat.st_mtime_ns)


@cache
def _of_file(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions(packages: Iterable[str] = PACKAGES) -> Mapping[str, str | None]:
    """The versions of Python and of the libraries that are installed (None: it is not)."""
    return {"python": ".".join(map(str, sys.version_info[:2]))} | {name: version(name) for name in packages}


@cache
def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
