"""What a run of stage=mae shows: how many calls are learned, and a picture of the errors that leave out the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain.runtime import terminal

COUNTS = ("calls", "kept", "dropped_error", "dropped_no_answer", "not_learned_by_source")


def show(cfg: DictConfig, folder: Path, metrics: dict[str, Any]) -> None:
    """Draw `error_kinds.png`, where there are errors, and print the counts."""
    if metrics["error_kinds"]:
        from tltrain.views.plots import bar_chart  # matplotlib takes a second to load

        path = folder / "error_kinds.png"
        bar_chart(path, metrics["error_kinds"], "Training calls dropped, by kind of error", "calls")
    calls = max(metrics["calls"], 1)
    rows = [[name.replace("_", " "), metrics[name], f"{metrics[name] / calls:.1%}"] for name in COUNTS]
    terminal.table("MAE", ["calls", "number", "share"], rows)
    terminal.console.print(f"Written to {folder / metrics['file']}", markup=False)
