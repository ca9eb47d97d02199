"""Show the results of stage=demo: one table of all models, and a list of the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.runtime import json_files, terminal

LABELS = {"base": "(base)", "sft": "+ SFT", "pkt": "+ MAE + PKT", "irm": "+ MAE + PKT + IRM"}
"""Model -> suffix after the base model's name; its evaluation is in `eval_MODEL`."""


def show(cfg: DictConfig, folder: Path, metrics: dict[str, Any]) -> None:
    """Print the table with intervals, and list the files in the folder."""
    rows = []
    for name, label in LABELS.items():
        evaluation = json_files.read_object(folder / f"eval_{name}" / "metrics.json")
        found = evaluation["details"]["toolworld"]["scoring"]["fixed"]["all"]
        numbers = (
            f"{found[level]['percent']:.1f} [{found[level]['low']:.0f}, {found[level]['high']:.0f}]"
            for level in SINGLE_TURN
        )
        rows.append([f"{cfg.model.name} {label}", *numbers])
    terminal.table(
        f"{metrics['base/n']} questions over tools never trained on, % right [95 % interval]",
        ["model", "TS", "PI", "CF"],
        rows,
    )
    lines = [
        "TS: the right tool. PI: and the right parameters. CF: and the right values.",
        f"Took {metrics['seconds']:.0f} s. Written to {folder}:",
        "  sft/model, pkt/model, irm/model the trained models (AutoModelForCausalLM, AutoTokenizer)",
        "  sft/losses.png, pkt/losses.png  loss on key tokens and on others",
        "  irm/rewards.png, samples.jsonl  reward and grades of sampled calls; the calls",
        "  eval_*/predictions.jsonl        every answer, its grade and why",
    ]
    terminal.console.print("\n".join(lines), markup=False)
