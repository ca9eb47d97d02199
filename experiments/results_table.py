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
PAPERS = {"rotbench_clean": "rotbench", "toolalpaca_real": "toolalpaca"}


def read(path: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """Read the rows, by the methods that are on."""
    with path.open(encoding="utf-8", newline="") as file:
        return {tuple(row[method] for method in METHODS): row for row in csv.DictReader(file)}


def three(row: dict[str, str], prefix: str, levels: tuple[str, ...] = ("ts", "pi", "cf")) -> str:
    """Format three numbers: `49.5 / 32.4 / 16.2`."""
    return " / ".join(f"{float(row[f'{prefix}_{level}']):.1f}" for level in levels)


def difference(row: dict[str, str]) -> str:
    """Format the difference of the mean over sets to standard SFT, with its interval."""
    if not row["mean_difference"]:
        return ""
    return f"{float(row['mean_difference']):+.1f} [{float(row['mean_low']):+.1f}, {float(row['mean_high']):+.1f}]"


def main() -> None:
    ours, theirs = read(Path(sys.argv[1]) if len(sys.argv) > 1 else OURS), read(HERE / "paper" / "ablation.csv")
    heads = ["TS / PI / CF, %"]
    for name, label in SETS.items():
        heads += [label] + (["the paper's"] if name in PAPERS else [])
    heads += ["mean, to SFT", "multi-turn DE / CE / VA"]
    print(f"| {' | '.join(heads)} |")
    print("| --- |" + " ---: |" * (len(heads) - 1))
    for methods, row in ours.items():
        cells = [row["name"]]
        for name in SETS:
            cells.append(three(row, name))
            if name in PAPERS:
                cells.append(three(theirs[methods], PAPERS[name]))
        cells += [difference(row), three(row, "toolworld_multi", ("de", "ce", "va"))]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
