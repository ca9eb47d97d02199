"""stage=demo: show in one command what MAE, PKT and IRM do to a real model.

    python -m tltrain                 SmolLM2-135M, eleven minutes on two cores
    python -m tltrain model=tiny      a model from scratch, faster

Runs other stages as a user would, each in its own folder below this run's: `stage=sft` and `stage=pkt` on the same
generated trajectories, `stage=irm` from the PKT model, then `stage=eval` of the base model and the three trained ones
on tools that are not in the training split. Stages that do not need one another run at the same time
(`stage.parallel`).
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tltrain.entry import checks, side_by_side
from tltrain.entry.composed import compose
from tltrain.entry.side_by_side import Job
from tltrain.runtime import runs
from tltrain.tracking import wandb_folders

log = logging.getLogger(__name__)

MODELS = ("base", "sft", "pkt", "irm")
"""The models to evaluate: the base model, and the results of the stages."""


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    start = time.monotonic()
    steps = [f"stage.args.max_steps={cfg.stage.irm_steps}", "stage.args.save_strategy=no", "stage.eval_size=0"]
    checks.check(composed(["stage=irm", *steps]))  # report what it refuses before the first training run
    size = f"data.size={cfg.stage.train_size}"
    pair = [job(folder / stage, [f"stage={stage}", size], cfg.stage.args) for stage in ("sft", "pkt")]
    side_by_side.run(pair, cfg.stage.parallel)
    irm = job(folder / "irm", ["stage=irm", size, *trained(folder / "pkt"), *steps])
    side_by_side.run([irm], cfg.stage.parallel)
    questions = ["stage=eval", "benchmark=toolworld", f"benchmark.size={cfg.stage.test_size}", size]
    questions += [f"stage.{name}={cfg.stage[name]}" for name in ("max_new_tokens", "batch_size")]
    asked = [
        job(folder / f"eval_{name}", [*questions, *([] if name == "base" else trained(folder / name))])
        for name in MODELS
    ]
    scores = dict(zip(MODELS, side_by_side.run(asked, cfg.stage.parallel), strict=True))
    metrics = {
        f"{name}/{level}": score[f"toolworld/{level}"]
        for name, score in scores.items()
        for level in ("ts", "pi", "cf", "n")
    } | {"seconds": round(time.monotonic() - start, 1)}
    runs.finish(folder, cfg, metrics)
    if wandb_folders.to_sync(folder):  # the stages' runs are in one tree, and the demo itself is none
        log.info("%s", wandb_folders.sync_command(folder))
    return metrics


def trained(folder: Path) -> list[str]:
    """Return the override that starts from the model trained in `folder`."""
    return [f"model.path={json.dumps(str(folder / 'model'))}"]


def composed(overrides: list[str]) -> DictConfig:
    """Compose another stage from `conf/` with all of the user's overrides except those of the stage."""
    own = [word for word in HydraConfig.get().overrides.task if not word.lstrip("+~").startswith("stage")]
    return compose([*own, "data=toolworld", *overrides])


def job(folder: Path, overrides: list[str], arguments: DictConfig | None = None) -> Job:
    """Return another stage to run in `folder`, see `composed`.

    Args:
        arguments: of trl.SFTConfig, set as `stage.args`.
    """
    cfg = composed(overrides)
    if arguments:
        cfg.stage.args = arguments
    checks.check(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    return Job(cfg, folder, " ".join(overrides))
