"""YAML files that runs leave for later runs: Hydra's record of a job, the configuration of a run.

As with `json_files`, a stranger's folder may contain anything under these names; unreadable content is a `ValueError`.
Aliases are refused: no run writes them, and a few lines of them can expand to more values than fit in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's loader refuses 1000 levels at once; Python's searches for keys at each level, 1.2 s for 3,000 brackets."""


def read(file: Path) -> Any:
    """Return the value in a file, of plain types.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not YAML in UTF-8, is nested deeply, or has aliases.
    """
    return parse(file.read_text(encoding="utf-8"))


def parse(text: str) -> Any:
    """Return the value that `text` represents. Raise ValueError as `read` does."""
    try:
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=LOADER)):
            raise ValueError("an alias (*name), which no run writes")
        return yaml.load(text, Loader=LOADER)
    except Exception as error:  # PyYAML also lets through the errors of tags' functions: KeyError for !!bool x
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from None
