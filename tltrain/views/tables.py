"""Tables shared by stages: the paper's published rows (`experiments/paper/*.csv`), and calls by kind of error."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.runtime import terminal

FOLDERS = (Path(__file__).parents[1] / "paper", Path(__file__).parents[2] / "experiments" / "paper")
"""The folder's location in an installed wheel and in a checkout."""

TABLES = {"single_turn.csv": ("model", ""), "ablation.csv": ("name", "ablation: ")}
"""File -> the column that names a row, and a prefix for the name."""

COLUMNS = {"toolalpaca_real": ("toolalpaca", 114), "rotbench_clean": ("rotbench", 105), "bfcl_exec": ("bfcl", 240)}
"""Set -> the prefix of its columns in the files, and the number of samples behind the paper's numbers."""

MULTI = ("tooleyes_multi", 382)
"""The set of conversations that the paper has numbers for, and their number."""

SIDE_BY_SIDE = 4  # columns of counts that fit in a terminal


def published(name: str, n: int) -> list[list[str]]:
    """Return rows `[who, TS, PI, CF]` in percent, as printed, for a set of n samples; empty for other sets or sizes."""
    prefix, expected = COLUMNS.get(name, ("", None))
    return _rows(TABLES, prefix, SINGLE_TURN) if n == expected else []


def published_multi(name: str, n: int) -> list[list[str]]:
    """Return rows `[who, DE, CE, VA]` in percent, as printed, for n conversations; empty for other sets or sizes."""
    tables = {"multi_turn.csv": ("model", ""), "ablation.csv": TABLES["ablation.csv"]}
    return _rows(tables, "tooleyes", ("de", "ce", "va")) if (name, n) == MULTI else []


def _rows(tables: Mapping[str, tuple[str, str]], prefix: str, levels: Sequence[str]) -> list[list[str]]:
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    if folder is None:
        return []
    rows = []
    for file, (key, before) in tables.items():
        with (folder / file).open(encoding="utf-8", newline="") as table:
            rows += [
                [before + row[key], *(row[f"{prefix}_{level}"] for level in levels)]
                for row in csv.DictReader(table)
                if f"{prefix}_{levels[0]}" in row
            ]
    return rows


def markdown(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Render a table in Markdown under a heading, with numbers aligned right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def print_kinds(counts: Mapping[str, Mapping[str, int]]) -> None:
    """Print the calls in each non-empty row of the reward table, with one column per entry of `counts`."""
    names = list(counts)
    for start in range(0, len(names), SIDE_BY_SIDE):
        columns = names[start : start + SIDE_BY_SIDE]
        rows = [
            [kind.replace("_", " "), *(counts[name].get(kind, 0) for name in columns)]
            for kind in dict.fromkeys(kind for name in columns for kind in counts[name])
            if any(counts[name].get(kind) for name in columns)
        ]
        terminal.table("Calls by kind", ["kind", *columns], rows)
