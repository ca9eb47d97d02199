"""Which checkpoints of a stopped run are whole. No torch."""

from __future__ import annotations

from pathlib import Path

COMPLETE = "complete.json"
"""A checkpoint with this file is whole; it holds what the Trainer's own files do not."""


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
