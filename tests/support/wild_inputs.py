"""Inputs from the wild, kept outside the checkout: print in one line what a reader or a benchmark makes of each.

    TLTRAIN_CASES=FOLDER python -m tests.support.wild_inputs [READER]

The folder has one folder per input. The default is `../shared/cases` next to the checkout.
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
from tltrain.evaluation import benchmarks
from tltrain.trajectory import actions

FOLDER = Path(os.environ.get("TLTRAIN_CASES") or Path(__file__).parents[2].parent / "shared" / "cases")
SUFFIXES = (".jsonl", ".json", ".gz", ".zst", ".parquet", ".arrow")


def inputs() -> Iterator[tuple[str, Path]]:
    """Yield the name and path of each input of conversations; the path of several shards is their folder."""
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


def asked(path: Path) -> str:
    """Return what `benchmark=openai` makes of an input: the golden calls of each question, or its error."""
    schema = OmegaConf.structured(config.FileBenchmark)
    node = OmegaConf.merge(schema, {"name": "openai", "path": str(path)})
    try:
        (samples,) = benchmarks.load(node, 0).values()
    except TltrainError as error:
        return f"error: {str(error).replace(str(FOLDER), '')}"
    said = ("no call" if each.abstain else " ".join(golden.name for golden in each.goldens) for each in samples)
    return f"{len(samples)} asked: {' | '.join(said)}"


def is_asked(path: Path) -> bool:
    """Return whether an input holds questions of a benchmark."""
    return path.stem == "questions"


if __name__ == "__main__":
    for name, path in inputs():
        print(f"{name}: {asked(path) if is_asked(path) else outcome(path, *sys.argv[1:])}")
