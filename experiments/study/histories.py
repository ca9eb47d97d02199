"""How PPO went in a row, rollout by rollout: `histories/ARM-SEED.jsonl.gz`, in the format of a row's file.

    python -m experiments.study.histories WORK    copy those of rows that were run in the folder WORK, as run.sh does

A row has what its model answers. Whether PPO's own reward rose on the way there is in its run alone, so it is copied
beside the row. A row without PPO, or whose run is no longer there, has none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments.study import rows
from experiments.study.design import ROWS
from experiments.study.rows import Line, RowFile
from tltrain.errors import TltrainError

HISTORIES = "histories"
"""The folder, beside the one of rows."""
SET = "ppo"
WEIGHT = "samples"
SHOWN = {
    "reward": "reward of a sampled call",
    "grade/correct": "share of these that are correct",
    "grade/wrong_tool": "share with a wrong tool",
    "grade/tool_hallucination": "share with a tool that is not on offer",
    "kl": "KL to the start, nats a call",
    "entropy": "entropy, nats a token",
    "explained_variance": "variance that the critic explains",
}
"""Key of the training's history -> what it is."""
PARTS = 4


def copy(work: Path, folder: Path = ROWS) -> list[Path]:
    """Write the histories of the rows in `folder` whose runs are in `work`, as `run.sh` does after each row.

    Raises:
        TltrainError: a file is damaged, or there is no such folder.
    """
    if not work.is_dir():
        raise TltrainError(f"{work}: no such folder; give what run.sh was given as --work, by default outputs/study")
    copied = [copy_row(row, rows.run_of(row, work), folder) for row in rows.read_all(folder)]
    return [path for path in copied if path is not None]


def copy_row(row: RowFile, run: Path, folder: Path) -> Path | None:
    """Write the history of a row in `folder`; None where PPO had no part, or `run` is not the run that made the row."""
    history = run / "model_irm" / "history.jsonl"
    if not history.is_file() or not rows.made(row, run):
        return None
    path = folder.parent / HISTORIES / rows.name_of(row.arm, row.seed)
    rows.write(path, {key: row.header[key] for key in ("arm", "seed", "fingerprint")}, lines_of(history))
    return path


def lines_of(history: Path) -> list[Line]:
    """A line for each rollout of a training's `history.jsonl`."""
    logged = (json.loads(line) for line in history.read_text(encoding="utf-8").splitlines())
    return [
        {"set": SET, "id": str(each["step"]), **{key: each[key] for key in (*SHOWN, WEIGHT) if key in each}}
        for each in logged
        if WEIGHT in each  # the last line is of the whole training
    ]


def read_all(folder: Path, found: Sequence[RowFile]) -> list[RowFile]:
    """The histories beside the folder of these rows.

    Raises:
        TltrainError: one is of no row, or of another run than the row's.
    """
    of_rows = {(row.arm, row.seed): row.header["fingerprint"] for row in found}
    histories = rows.read_all(folder.parent / HISTORIES)
    for one in histories:
        if of_rows.get((one.arm, one.seed)) != one.header["fingerprint"]:
            raise TltrainError(
                f"{HISTORIES}/{rows.name_of(one.arm, one.seed)}: not of the run that made the row of this name; "
                "copy it again: python -m experiments.study.histories WORK"
            )
    return histories


def in_parts(histories: Iterable[RowFile], parts: int = PARTS) -> list[dict[str, Any]]:
    """Means over equal parts of the training, by arm: over calls within a seed, then over seeds.

    Returns:
        For each arm, in the order of its first file, an entry for each part: `arm`, `part`, `seeds`, and each of
        `SHOWN` that all seeds have.
    """
    arms: dict[str, list[list[dict[str, float]]]] = {}
    for one in histories:
        lines = one.lines.get(SET, [])
        edges = [len(lines) * part // parts for part in range(parts + 1)]
        arms.setdefault(one.arm, []).append([_mean_over_calls(lines[low:high]) for low, high in pairwise(edges)])
    return [
        {
            "arm": arm,
            "part": part + 1,
            "seeds": len(seeds),
            **{
                key: round(statistics.fmean(seed[part][key] for seed in seeds), 4)
                for key in SHOWN
                if all(key in seed[part] for seed in seeds)
            },
        }
        for arm, seeds in arms.items()
        for part in range(parts)
    ]


def _mean_over_calls(lines: Sequence[Line]) -> dict[str, float]:
    keys = [key for key in SHOWN if lines and all(key in line for line in lines)]
    weights = [line[WEIGHT] for line in lines]
    return {key: statistics.fmean([line[key] for line in lines], weights) for key in keys}


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy, say what was written, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder of the runs: what run.sh was given as --work")
    parser.add_argument("--rows", type=Path, default=ROWS, help="folder of rows, such as a dry run's")
    options = parser.parse_args(arguments)
    try:
        written = copy(options.work, options.rows)
    except TltrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(path.name for path in written) or f"{options.work}: no finished run of a row with PPO")
    return 0


if __name__ == "__main__":
    sys.exit(main())
