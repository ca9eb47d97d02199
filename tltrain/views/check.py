"""Show a run of stage=check in the terminal: counts, lengths, what would be learned, and the findings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain.runtime import terminal
from tltrain.views.check_page import LEARNED, numbers, share


def show(cfg: DictConfig, folder: Path, metrics: dict[str, Any]) -> None:
    """Print the tables of `metrics`, as `check.html` has them."""
    terminal.table("Data", ["", "number"], numbers(metrics))
    sizes = metrics["lengths"]
    terminal.table(
        "Lengths of a conversation",
        ["", "least", "median", "90 % below", "most", "all"],
        [[name, *(f"{size:,}" for size in sizes[name].values())] for name in sizes],
    )
    reports = metrics["learned"]
    calls = max(reports["paper"]["calls"], 1)
    terminal.table(
        "What would be learned: calls and replies",
        ["", "stage.rule=paper", "stage.rule=strict"],
        [
            [words, *(f"{reports[rule][name]:,} ({reports[rule][name] / calls:.1%})" for rule in ("paper", "strict"))]
            for name, words in LEARNED.items()
        ],
    )
    terminal.table("Findings", ["", "number", "share"], [[each["title"], *share(each)] for each in metrics["findings"]])
    terminal.console.print(f"Examples of each: {folder / 'check.html'}", markup=False)
