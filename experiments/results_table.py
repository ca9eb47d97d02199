"""Print the ablation's table in docs/results.md from the sweep's `ablation.csv`, next to the paper's numbers.

python experiments/results_table.py [experiments/results/rotbench_ablation/ablation.csv]
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

HERE = Path(__file__).parent
OURS = HERE / "results" / "rotbench_ablation" / "ablation.csv"
METHODS = ("mae", "pkt", "irm")
SETS = {"rotbench_clean": "RoTBench", "toolalpaca_real": "ToolAlpaca", "bfcl_exec": "BFCL"}
CONVERSATIONS = {"toolworld_multi": "multi-turn", "tooleyes_multi": "ToolEyes"}
PAPERS = {"rotbench_clean": "rotbench", "toolalpaca_real": "toolalpaca", "tooleyes_multi": "tooleyes"}
"""Set -> the prefix of its columns in the paper's table."""
SINGLE_TURN, CONVERSATION = ("ts", "pi", "cf"), ("de", "ce", "va")


def read(path: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """Read the rows, keyed by the methods that are on."""
    with path.open(encoding="utf-8", newline="") as file:
        return {tuple(row[method] for method in METHODS): row for row in csv.DictReader(file)}


def three(row: dict[str, str], prefix: str, levels: tuple[str, ...] = SINGLE_TURN) -> str:
    """Format three numbers: `49.5 / 32.4 / 16.2`; `–` for a number that a failed job does not have."""
    values = (row.get(f"{prefix}_{level}") for level in levels)
    return " / ".join(f"{float(value):.1f}" if value else "–" for value in values)


def difference(row: dict[str, str]) -> str:
    """Format the difference of the mean over sets to standard SFT, with its interval."""
    if not row["mean_difference"]:
        return ""
    return f"{float(row['mean_difference']):+.1f} [{float(row['mean_low']):+.1f}, {float(row['mean_high']):+.1f}]"


def lines(path: Path) -> list[str]:
    """Return the lines of a sweep's Markdown table; sets that were not evaluated have no column."""
    ours, theirs = read(path), read(HERE / "paper" / "ablation.csv")
    asked = next(iter(ours.values()))
    columns = [(name, SETS[name], SINGLE_TURN) for name in SETS if f"{name}_ts" in asked]
    mean = len(columns)
    columns += [
        (name, f"{title} DE / CE / VA", CONVERSATION) for name, title in CONVERSATIONS.items() if f"{name}_de" in asked
    ]
    heads = [[title, "the paper's"] if name in PAPERS else [title] for name, title, _ in columns]
    if "mean_difference" in asked:
        heads.insert(mean, ["mean, to SFT"])
    names = ["TS / PI / CF, %", *(head for group in heads for head in group)]
    found = [f"| {' | '.join(names)} |", "| --- |" + " ---: |" * (len(names) - 1)]
    for methods, row in ours.items():
        cells = [
            [three(row, name, levels), *([three(theirs[methods], PAPERS[name], levels)] if name in PAPERS else [])]
            for name, _, levels in columns
        ]
        if "mean_difference" in asked:
            cells.insert(mean, [difference(row)])
        found.append(f"| {' | '.join([row['name'], *(cell for group in cells for cell in group)])} |")
    return found


def main() -> None:
    print("\n".join(lines(Path(sys.argv[1]) if len(sys.argv) > 1 else OURS)))


if __name__ == "__main__":
    main()
