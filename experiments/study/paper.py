"""What the paper reports of the same comparisons: `experiments/paper/ablation.csv`, one run of CodeLLaMA-2-7B a row."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from experiments.results_table import METHODS, read
from experiments.study.design import ROOT, Measure
from tltrain.evaluation.metrics import SINGLE_TURN

TABLE = ROOT / "experiments" / "paper" / "ablation.csv"
ON = {"mae": {"mae"}, "pkt": {"pkt"}, "irm": {"irm"}, "all": set(METHODS)}
"""Hypothesis -> the ideas that the paper's row has on; its baseline has none."""
SINGLE = {"toolalpaca": "ToolAlpaca", "rotbench": "RoTBench"}
CONVERSATIONS = {"tooleyes": "ToolEyes"}
"""Prefix of the table's columns -> the set."""


@dataclass(frozen=True, slots=True)
class Published:
    """The paper's numbers of one set, in percent."""

    set: str
    baseline: float
    arm: float


def published(hypothesis: str, measure: Measure) -> list[Published]:
    """The paper's numbers of a hypothesis in what a measure measures, on each set that has it."""
    rows = read(TABLE)
    baseline, arm = (
        rows[tuple("true" if method in on else "false" for method in METHODS)] for on in (set(), ON[hypothesis])
    )
    sets = CONVERSATIONS if measure.set == "conversations" else SINGLE
    return [
        Published(title, _number(baseline, prefix, measure.level), _number(arm, prefix, measure.level))
        for prefix, title in sets.items()
    ]


def _number(row: Mapping[str, str], prefix: str, level: str) -> float:
    levels = SINGLE_TURN if level == "mean" else (level,)
    return statistics.fmean(float(row[f"{prefix}_{each}"]) for each in levels)
