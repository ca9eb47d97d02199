"""Inputs as they lie around, kept outside of the checkout: what a reader makes of each, as one line.

    TLTRAIN_CASES=FOLDER python -m tests.support.wild_inputs [READER]

The folder has one folder for each input. Without the variable it is `../shared/cases` beside the checkout.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf

from tltrain import config, data, mae
from tltrain.data.reading import ReadReport
from tltrain.errors import TltrainError
from tltrain.trajectory import actions

FOLDER = Path(os.environ.get("TLTRAIN_CASES") or Path(__file__).parents[2].parent / "shared" / "cases")
SUFFIXES = (".jsonl", ".json", ".gz", ".zst", ".parquet", ".arrow")


def inputs() -> Iterator[tuple[str, Path]]:
    """Yield the name and the path of each input of conversations; that of several shards is their folder."""
    for folder in sorted(path for path in FOLDER.glob("*") if path.is_dir()):
        files = [file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES and file.stem != "answers"]
        if files:
            yield folder.name, files[0] if len(files) == 1 else folder


def outcome(path: Path, reader: str = "openai", **keys: object) -> str:
    """Return what a reader makes of an input: what is learned and the notes, or its error."""
    node = OmegaConf.merge(OmegaConf.structured(config.FileData), {"name": reader, "path": str(path), **keys})
    report = ReadReport()
    learned = []
    try:
        for trajectory in data.trajectories(node, 0, report):
            flags = mae.learnable(trajectory, None)
            turns = zip(actions(trajectory.messages), flags, strict=True)
            learned.append(
                " ".join(("+" if learn else "-") + (turn.call.name if turn.call else "text") for turn, learn in turns)
            )
    except TltrainError as error:
        return f"error: {str(error).replace(str(FOLDER), '')}"
    notes = "".join(f"\n    {count} x {note}" for note, count in sorted(report.notes.items()))
    return f"{len(learned)} read: {' | '.join(learned)}{notes}"


if __name__ == "__main__":
    for name, path in inputs():
        print(f"{name}: {outcome(path, *sys.argv[1:])}")
