"""JSON files that runs leave for later runs: caches, manifests, checkpoints, metrics.

A failing disk or a stranger's folder may put anything under these names. Content that cannot be read raises
`ValueError` and no other exception, so that callers handle one error. Records of data files are read by
`tltrain.data.reading`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_DEPTH = 100
"""Deepest nesting that is read; it keeps every recursion over a value far from Python's limit."""
MAX_BYTES = 1 << 28
"""Largest file that is read, 256 MiB; as Python objects it may take ten times as much memory."""


def read(file: Path) -> Any:
    """Return the value in a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON in UTF-8, is nested deeper than `MAX_DEPTH`, or is larger than `MAX_BYTES`.
    """
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
    return parse(content.decode("utf-8"))


def read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raise OSError and ValueError as `read` does."""
    value = read(file)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    return value


def parse(text: str) -> Any:
    """Return the value that `text` represents. Raise ValueError as `read` does."""
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
