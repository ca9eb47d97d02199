"""stage=eval benchmark=toolworld_turns: a model's loss on recorded calls of toolworld, right and failing ones.

    python -m tltrain stage=eval benchmark=toolworld_turns model.path=outputs/pkt/TIME/model
    python -m tltrain stage=pipeline "stage.benchmarks=[toolworld,{name: toolworld_turns, size: 500}]"

Nothing is generated: the model is given everything before each of `benchmark.size` recorded calls, of tools that are in
no training data, and the loss of the call is measured. The calls depend on `benchmark.seed` and not on `seed`.

Writes `recorded_calls.jsonl` (`evaluation.recorded_calls.RecordedCall`, one per line) and `metrics.json`:
`SET/golden_loss`, `/failing_loss`, `/key_accuracy`, `/key_loss`, `/margin`, `/preferred` and `/n` calls; under
`details` the same with 95 % intervals, what each means, and the numbers of calls.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain import toolworld, tracking
from tltrain.config import ToolworldTurns
from tltrain.errors import TltrainError
from tltrain.evaluation import recorded_calls
from tltrain.evaluation.analysis import TurnScore
from tltrain.evaluation.recorded_calls import MEASURES, RecordedCall
from tltrain.runtime import runs, terminal
from tltrain.stages.evaluations.general import local_model
from tltrain.tokens.packing import PackingReport
from tltrain.toolworld.domains.user import user
from tltrain.trajectory import Trajectory

log = logging.getLogger(__name__)

CALLS = "recorded_calls.jsonl"


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the evaluation in `folder` and return what it wrote to `metrics.json`."""
    if cfg.stage.predictions is not None:
        raise TltrainError("stage.predictions: benchmark=toolworld_turns scores the model itself, not saved answers")
    items = conversations(cfg.benchmark)
    if not items:
        raise TltrainError("the benchmark has no calls: see benchmark.size and benchmark.limit")
    model, encoder, path = local_model(cfg)
    packing = PackingReport()
    calls = list(score(model, encoder, items, packing))
    runs.write_lines(folder / CALLS, (json.dumps(asdict(call), ensure_ascii=False) for call in calls))
    name = f"{toolworld.set_name(str(cfg.benchmark.split), str(cfg.benchmark.tools))}_turns"
    found = recorded_calls.measure(calls, cfg.benchmark.seed)
    metrics: dict[str, Any] = {f"{name}/{measure}": round(number.value, 4) for measure, number in found.items()}
    metrics |= {
        f"{name}/n": len(calls),
        "model": path,
        "details": {
            name: {
                "measures": {
                    measure: number.to_json() | {"meaning": MEASURES[measure]} for measure, number in found.items()
                },
                "golden": sum(call.mistake is None for call in calls),
                "wrong": sum(call.mistake is not None for call in calls),
                "failing": sum(call.failed for call in calls),
                "trajectories": len(items),
                "trajectories_truncated": packing.truncated,
                "trajectories_too_long": packing.too_long,
            }
        },
    }
    with tracking.job(cfg, folder) as tracker:
        tracker.metrics({f"eval/{key}": value for key, value in metrics.items() if key.startswith(f"{name}/")})
        tracker.artifact("evaluation", folder / CALLS)
    runs.finish(folder, cfg, metrics)
    rows = [
        [MEASURES[measure], f"{number.value:.3f}", f"[{number.low:.3f}, {number.high:.3f}]" if number.has_ends else ""]
        for measure, number in found.items()
    ]
    terminal.table(f"{name}: {len(calls)} recorded calls", ["", "", "95 % interval"], rows)
    terminal.console.print(f"Written to {folder}", markup=False)
    return metrics


def turns(benchmark: ToolworldTurns) -> Iterator[Trajectory]:
    """Yield the benchmark's conversations without end; each depends only on `benchmark.seed` and its index."""
    return toolworld.generate(
        sys.maxsize, benchmark.seed, benchmark.error_rate, str(benchmark.split), str(benchmark.tools)
    )


def conversations(benchmark: ToolworldTurns) -> list[Trajectory]:
    """Return the conversations that hold the benchmark's calls."""
    return recorded_calls.limited(turns(benchmark), min(benchmark.size, benchmark.limit or benchmark.size))


def score(model: Any, encoder: Any, items: list[Trajectory], packing: PackingReport) -> Iterator[RecordedCall]:
    """Yield the recorded calls with their scores; `packing` counts conversations that are too long for the model."""
    from tltrain.evaluation import teacher_forcing
    from tltrain.inference import generation

    aside = PackingReport()
    for item in terminal.track(items, "scoring recorded calls"):
        golden: dict[int, TurnScore] = {}
        for shorter in recorded_calls.alternatives(item):
            golden |= {found.turn: found for found in teacher_forcing.score(model, encoder, [shorter], aside)}
        scores = teacher_forcing.score(model, encoder, [item], packing)
        yield from recorded_calls.recorded(item, scores, golden, list(user.tools))
    for line in packing.losses(generation.context(model) or sys.maxsize):
        log.warning("%s", line)
