"""Add a robustness curve to `stage=eval benchmark=rotbench` if it evaluates several levels.

    python -m tltrain stage=eval benchmark=rotbench benchmark.path=FOLDER benchmark.levels=[clean,slight,heavy,union]

Writes `robustness.png` and adds to `metrics.json` the drop from clean to the worst level in percentage points, as
`rotbench/drop/ts`, `/pi`, `/cf` (third turn: `rotbench_third/drop/ts`, ...), with intervals under `robustness`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain.data.rotbench import NOISE_LEVELS
from tltrain.evaluation import robustness, scoring
from tltrain.evaluation.benchmarks import TURNS
from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.grades import AnswerGrade, Grade
from tltrain.trajectory import Sample

Graded = Mapping[str, tuple[Sequence[Sample], Sequence[Grade | AnswerGrade]]]
"""Set name -> its samples and their grades."""


def applies(cfg: DictConfig) -> bool:
    """Return whether there is a curve to draw."""
    return cfg.benchmark.name == "rotbench" and len(set(cfg.benchmark.levels)) > 1


def add_drops(cfg: DictConfig, graded: Graded, metrics: dict[str, Any]) -> None:
    """Add the drops under the chosen scoring to `metrics`, whose `details` must be complete."""
    metrics["robustness"] = {}
    for turn, prefix in TURNS.items():
        names = {level: prefix + level for level in NOISE_LEVELS if prefix + level in graded}
        scored = {level: judge(cfg.benchmark.scoring.name, *graded[name]) for level, name in names.items()}
        for metric in SINGLE_TURN:
            asked = {
                level: [(sample.query, getattr(judged, metric)) for sample, judged in zip(samples, levels, strict=True)]
                for level, (samples, levels) in scored.items()
            }
            drop = robustness.drop(asked, cfg.seed)
            if drop is not None:
                numbers = drop.to_json()
                metrics["robustness"].setdefault(turn, {})[metric] = numbers
                metrics[f"{prefix.rstrip('_')}/drop/{metric}"] = numbers["drop"]


def draw(metrics: Mapping[str, Any], scoring_name: str, path: Path) -> None:
    """Draw percentages by level of noise, with a panel for each turn."""
    from tltrain.views.robustness_plot import curves  # matplotlib takes a second to load

    panels = {
        turn: {
            level: metrics["details"][prefix + level]["scoring"][scoring_name]["all"]
            for level in NOISE_LEVELS
            if prefix + level in metrics["details"]
        }
        for turn, prefix in TURNS.items()
    }
    panels = {turn: levels for turn, levels in panels.items() if levels}
    curves(path, panels, f"RoTBench over levels of noise ({scoring_name} scoring), 95 % intervals")


def judge(
    scoring_name: str, samples: Sequence[Sample], grades: Sequence[Grade | AnswerGrade]
) -> tuple[Sequence[Sample], Sequence[scoring.Judged]]:
    """Return the samples and the chosen scoring's judgement of each."""
    if scoring_name == "official":
        return samples, scoring.rotbench_official([grade.prediction for grade in grades], samples)
    return samples, grades
