"""Results that are made once per test run and read by all its workers."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

T = TypeVar("T")


def once(shared: Path, name: str, make: Callable[[Path], T]) -> T:
    """Return the result of `make(folder)`, called by the first process that asks for `name` while the others wait.

    Args:
        shared: the folder that all workers of a test run share; `make` gets a new folder below it, which no test may
            change afterwards.
    """
    shared.mkdir(parents=True, exist_ok=True)
    result = shared / f"{name}.pickle"
    with FileLock(shared / f"{name}.lock"):
        if not result.exists():
            folder = shared / name
            shutil.rmtree(folder, ignore_errors=True)  # left by a process that failed
            folder.mkdir()
            result.write_bytes(pickle.dumps(make(folder)))
    return pickle.loads(result.read_bytes())
