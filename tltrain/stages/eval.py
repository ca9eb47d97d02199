"""stage=eval: let a model answer a benchmark, or read saved answers, and score them.

    python -m tltrain stage=eval benchmark=rotbench benchmark.path=FOLDER model.path=outputs/pkt/TIME/model
    python -m tltrain stage=eval benchmark=toolworld_multi model.path=outputs/pkt/TIME/model
    python -m tltrain stage=eval benchmark=general model.path=outputs/pkt/TIME/model
    python -m tltrain stage=eval stage.compare=[outputs/eval/TIME_A,outputs/eval/TIME_B]

- Single calls compared with golden calls: `tltrain.stages.evaluations.single_turn`; several levels of RoTBench also
  give `robustness.png` (`tltrain.stages.evaluations.robustness`).
- Whole conversations whose tools run (`benchmark.multi=true`): `tltrain.stages.evaluations.conversations`.
- General ability by lm-eval (`benchmark=general`): `tltrain.stages.evaluations.general`.
- Loss on recorded calls (`benchmark=toolworld_turns`): `tltrain.stages.evaluations.recorded_turns`.
- Comparison of two result folders (`stage.compare`): `tltrain.stages.evaluations.compare`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain import sources
from tltrain.config.reads import MODEL_ITSELF


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    if cfg.stage.compare:
        from tltrain.stages.evaluations import compare

        return compare.run(cfg, folder)
    if cfg.stage.predictions is None and cfg.benchmark.name not in MODEL_ITSELF:
        sources.check(cfg)
    if cfg.benchmark.multi:
        from tltrain.stages.evaluations import conversations

        return conversations.run(cfg, folder)
    if cfg.benchmark.name == "general":  # no tool calls: lm-eval asks and scores
        from tltrain.stages.evaluations import general

        return general.run(cfg, folder)
    if cfg.benchmark.name == "toolworld_turns":  # recorded calls: nothing is generated
        from tltrain.stages.evaluations import recorded_turns

        return recorded_turns.run(cfg, folder)
    from tltrain.stages.evaluations import single_turn

    return single_turn.run(cfg, folder)
