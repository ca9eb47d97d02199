"""Show a run of stage=irm: rewards and grades as a picture, held-out questions before and after as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.grading import SAMPLED_OUTCOMES
from tltrain.runtime import runs, terminal
from tltrain.views.plots import reward_curves

PICTURE = "rewards.png"


def show(cfg: DictConfig, folder: Path, metrics: dict[str, Any]) -> None:
    """Draw `rewards.png` (the mean reward and the shares of grades over steps) and print the table."""
    steps = [entry for entry in runs.history(folder) if "reward" in entry]
    if steps:
        reward_curves(
            folder / PICTURE,
            [entry["step"] for entry in steps],
            [entry["reward"] for entry in steps],
            {outcome: [entry.get(f"grade/{outcome}", 0.0) for entry in steps] for outcome in SAMPLED_OUTCOMES},
            f"Sampled calls, stage=irm ({cfg.stage.algorithm.name})",
        )
    if metrics["stopped"]:
        terminal.errors.print(f"stopped early: {metrics['stopped']}", markup=False)
    if metrics["before"]["n"]:
        rows = [
            [when, f"{found['reward']:.3f}", *(f"{found[level]:.1f}" for level in SINGLE_TURN)]
            for when, found in ((when, metrics[when]) for when in ("before", "after"))
        ]
        n = metrics["before"]["n"]
        terminal.table(
            f"{n} held-out questions, {metrics['steps']} steps", ["", "reward", "TS %", "PI %", "CF %"], rows
        )
    terminal.console.print(f"Written to {folder / 'model'}", markup=False)
