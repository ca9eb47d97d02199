"""Show a run of stage=sft or stage=pkt: its losses as a picture, and a short summary on the terminal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain.runtime import runs, terminal
from tltrain.views.plots import loss_curves

CURVES = {"turns (weighted)": "loss", "key tokens": "key_token_loss", "other tokens": "other_token_loss"}
"""Label -> name in `history.jsonl`."""
PICTURE = "losses.png"


def show(cfg: DictConfig, folder: Path, metrics: dict[str, Any]) -> None:
    """Draw `losses.png` and print the summary."""
    steps = [entry for entry in runs.history(folder) if "loss" in entry]
    curves = {
        label: [(entry["step"], entry[name]) for entry in steps if name in entry] for label, name in CURVES.items()
    }
    drawn = {label: points for label, points in curves.items() if points}
    loss_curves(folder / PICTURE, drawn, f"Training loss, stage={cfg.stage.name}")
    terminal.console.print(summary(cfg.stage.name, metrics, folder), markup=False)


def summary(stage: str, metrics: dict[str, Any], folder: Path) -> str:
    """Summarize the run in a few lines."""
    train, held = metrics["train"], metrics["held_out"]
    lines = [f"{stage}: {train['turns']} turns in {train['train_runtime']:.0f} s, loss {train['train_loss']:.3f}"]
    if "held_out_loss" in held:
        lines.append(
            f"held out: loss {held['held_out_loss']:.3f}, "
            f"key tokens {held.get('held_out_key_token_loss', math.nan):.3f}, "
            f"other tokens {held['held_out_other_token_loss']:.3f} ({held['turns']} turns)"
        )
    return "\n".join([*lines, f"Written to {folder / 'model'}"])
