"""The robustness curve that `stage=eval benchmark=rotbench` adds where several levels are asked.

    python -m tltrain stage=eval benchmark=rotbench benchmark.path=FOLDER benchmark.levels=[clean,slight,heavy,union]

Writes `robustness.png` and adds to `metrics.json` the drop from clean to the worst level, in points of percent, as
`rotbench/drop/ts`, `/pi`, `/cf` (third turn: `rotbench_third/drop/ts`, ...), with intervals under `robustness`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain.data.rotbench import NOISE_LEVELS
from tltrain.evaluation import robustness, scoring
from tltrain.evaluation.benchmarks import TURNS
from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.grading import Grade
from tltrain.runtime import terminal
from tltrain.trajectory import Sample

Graded = Mapping[str, tuple[Sequence[Sample], Sequence[Grade]]]
"""Set name -> its samples and their grades."""


def applies(cfg: DictConfig) -> bool:
    """Whether there is a curve to draw."""
    return cfg.benchmark.name == "rotbench" and len(set(cfg.benchmark.levels)) > 1


def run(cfg: DictConfig, graded: Graded, metrics: dict[str, Any], folder: Path) -> None:
    """Draw the curve of the chosen scoring and add the drops to `metrics`, whose `details` are complete."""
    from tltrain.views.robustness_plot import curves

    wanted = cfg.benchmark.scoring.name
    metrics["robustness"], panels = {}, {}
    for turn, prefix in TURNS.items():
        names = {level: prefix + level for level in NOISE_LEVELS if prefix + level in graded}
        if not names:
            continue
        panels[turn] = {level: metrics["details"][name]["scoring"][wanted]["all"] for level, name in names.items()}
        judged = {level: judge(wanted, *graded[name]) for level, name in names.items()}
        for measure in SINGLE_TURN:
            asked = {
                level: [(sample.query, getattr(one, measure)) for sample, one in zip(samples, found, strict=True)]
                for level, (samples, found) in judged.items()
            }
            fall = robustness.drop(asked, cfg.seed)
            if fall is not None:
                numbers = {
                    key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(fall).items()
                }
                metrics["robustness"].setdefault(turn, {})[measure] = numbers
                metrics[f"{prefix.rstrip('_')}/drop/{measure}"] = numbers["drop"]
    curves(folder / "robustness.png", panels, f"RoTBench over levels of noise ({wanted} scoring), 95 % intervals")


def judge(
    wanted: str, samples: Sequence[Sample], grades: Sequence[Grade]
) -> tuple[Sequence[Sample], Sequence[scoring.Judged]]:
    """The samples and what the chosen scoring says of each."""
    if wanted == "official":
        return samples, scoring.rotbench_official([grade.prediction for grade in grades], samples)
    return samples, grades


def show(metrics: dict[str, Any]) -> None:
    """The table on the terminal."""
    rows = [
        [
            f"{turn} turn, {measure.upper()}",
            f"{fall['clean']:.1f}",
            f"{fall['worst']:.1f} ({fall['level']})",
            f"{fall['drop']:.1f} [{fall['low']:.1f}, {fall['high']:.1f}]",
        ]
        for turn, measures in metrics["robustness"].items()
        for measure, fall in measures.items()
    ]
    if rows:
        columns = ["", "clean", "worst level", "drop [95 % interval, over queries]"]
        terminal.table("Robustness: from clean to the worst level, %", columns, rows)
