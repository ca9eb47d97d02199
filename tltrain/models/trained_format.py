"""The format that a model was trained in, from the record in its folder, without loading the model."""

from __future__ import annotations

from pathlib import Path

from tltrain.errors import TltrainError
from tltrain.formats.families import AUTO, NAMES, TL_NAME
from tltrain.runtime import json_files

RECORD = "tltrain.json"
"""A file in a trained model's folder, beside the tokenizer's files."""


def read(path: str) -> str | None:
    """Return the format of the model in a folder; None if it has no record, or one that cannot be read."""
    try:
        found = json_files.read_object(Path(path) / RECORD).get("format", TL_NAME)
    except (OSError, ValueError):
        return None
    return found if found in NAMES else None


def check(path: str, trained: str | None, asked: str) -> None:
    """Raise a TltrainError if a model was trained in another format than the one that is asked for."""
    if trained is not None and asked not in (AUTO, trained):
        raise TltrainError(
            f"format={asked}: {path} was trained with format={trained}; format=auto takes the one it knows"
        )
