"""JSON files that runs leave for later runs: caches, manifests, checkpoints, metrics.

A disk that fails or a stranger's folder may hold anything under these names. What cannot be read is a `ValueError`,
never another exception, so that who reads it says in one place what then happens. Records of data files are read by
`tltrain.data.reading`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_DEPTH = 100
"""Deeper nesting is refused; it keeps every recursion over a value far from Python's limit."""


def read(file: Path) -> Any:
    """The value in a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON in UTF-8, or nested deeper than `MAX_DEPTH`.
    """
    return parse(file.read_text(encoding="utf-8"))


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises OSError and ValueError as `read` does."""
    value = read(file)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    return value


def parse(text: str) -> Any:
    """The value that `text` is. Raises ValueError as `read` does."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        level, depth = [inner for outer in level for inner in _inside(outer)], depth + 1
    return value


def _inside(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for one in inner if isinstance(one, dict | list)]
