"""How many calls PPO samples in a row, in expectation: counted from the row's data, without a model.

    python -m experiments.study.expected_calls

The last rollout of a pass is shorter, and the last pass takes a random part of the trajectories.
"""

from __future__ import annotations

import math
import statistics

from omegaconf import OmegaConf

from experiments.study import design
from tltrain import mae, toolworld
from tltrain.config.readers import ToolworldData
from tltrain.data import hold_out
from tltrain.formats.tool_errors import Rule
from tltrain.mae import Verdict

BASE = OmegaConf.load(design.CONF / "experiment" / "study" / "base.yaml")
HELD_OUT = ToolworldData().holdout


def expected(error_rate: float, rule: Rule | None, seed: int) -> tuple[float, float]:
    """The expected number of calls in a row's PPO and its standard deviation."""
    updates, rollout = BASE.stage.rl.args.max_steps, BASE.stage.rl.args.gradient_accumulation_steps
    made = toolworld.generate(BASE.data.size, seed, error_rate, "train", BASE.data.tools)
    train, _ = hold_out(made, HELD_OUT, seed)
    calls = [sum(verdict is Verdict.KEPT for verdict, _ in mae.verdicts(one, rule)) for one in train]
    drawn = (updates - math.ceil(len(calls) / rollout)) * rollout  # trajectories of the second pass
    share = drawn / len(calls)
    return sum(calls) * (1 + share), math.sqrt(drawn * (1 - share) * statistics.pvariance(calls))


def main() -> None:
    """Print a line for each kind of row."""
    rule = Rule.from_config(OmegaConf.to_container(OmegaConf.load(design.ROOT / "conf" / "mae" / "paper.yaml")))
    for name, error_rate, own in (("17 %", 0.17, None), ("17 %, MAE", 0.17, rule), ("35 %, MAE", 0.35, rule)):
        found = [expected(error_rate, own, seed) for seed in design.load().seeds]
        print(f"{name}: {', '.join(f'{mean:,.0f} ± {deviation:.0f}' for mean, deviation in found)}")


if __name__ == "__main__":
    main()
