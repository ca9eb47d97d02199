"""stage=pipeline: data -> SFT or PKT -> IRM -> evaluation, each stage built only once.

    python -m tltrain stage=pipeline stage.mae=true stage.pkt=true stage.irm=false stage.benchmarks=[toolworld]
    python -m tltrain +experiment=ablation model=tiny        all eight combinations

A stage's result has a fingerprint of everything that determines it: its configuration, the content of the files it
reads, the result it starts from, library versions, and this package's code. It is stored under `cache.dir/stages/`
(`tltrain.sweeps.stage_cache`), and the run's folder links to it: `data/`, `model_sft` or `model_pkt`, `model_irm` or
`model_continued`, `eval_BENCHMARK/`. `metrics.json` has the evaluations' metrics and the cost of each stage.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tltrain import config, tracking
from tltrain.entry import checks, choices, launch
from tltrain.entry.chosen_benchmarks import benchmark
from tltrain.entry.composed import part, resolved
from tltrain.errors import TltrainError, suggestion
from tltrain.evaluation.benchmarks import check_place
from tltrain.evaluation.metrics import ABSTENTION, CONVERSATION, SINGLE_TURN
from tltrain.runtime import memory, runs, stage_names, terminal
from tltrain.stages import training_runs
from tltrain.sweeps import cache_key
from tltrain.sweeps.stage_cache import Cost, Entry, StageCache

log = logging.getLogger(__name__)

NODES = {"sft": "supervised", "pkt": "supervised", "irm": "rl", "eval": "eval"}
"""Stage -> the node of the pipeline's own configuration that has its keys."""
OWN = {"supervised": ("mae", "rule", "w_max", "key_tokens"), "rl": ("mae", "rule"), "eval": ()}
"""Keys of each node that the pipeline sets by its own of the same name."""


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    benchmarks = [benchmark(choice) for choice in cfg.stage.benchmarks]
    check(cfg, benchmarks)
    with closing(StageBuilder(cfg, folder)) as builder:
        metrics = run_stages(cfg, builder, benchmarks)
    with tracking.job(cfg, folder) as tracker:  # each stage has its own run, where it was built
        tracker.metrics({f"eval/{key}": value for key, value in metrics.items() if "/" in key})
    runs.finish(folder, cfg, metrics)
    show(metrics, folder)
    return metrics


def run_stages(cfg: DictConfig, builder: StageBuilder, benchmarks: Sequence[tuple[str, DictConfig]]) -> dict[str, Any]:
    """Build all stages or take them from the cache, and return the pipeline's metrics."""
    start = time.monotonic()
    data = builder.stage("data", part(cfg, {"name": "mae", "rule": cfg.stage.rule, "mae": cfg.stage.mae}, "mae"))
    with_data = data_of(cfg, data)
    kind = "pkt" if cfg.stage.pkt else "sft"
    model = builder.stage(f"model_{kind}", part(with_data, supervised(cfg)), after=[data], resumable=True)
    if cfg.stage.irm:
        learned = resolved(cfg.stage.rl) | {"mae": False}
        model = builder.stage(
            "model_irm", part(model_of(with_data, model), learned), after=[data, model], resumable=True
        )
    elif cfg.stage.continued:
        more = supervised(cfg)
        more["args"] = more["args"] | resolved(cfg.stage.continued)
        model = builder.stage(
            "model_continued", part(model_of(with_data, model), more), after=[data, model], resumable=True
        )
    metrics: dict[str, Any] = {"details": {}}
    for name, choice in benchmarks:
        wanted = part(model_of(cfg, model), resolved(cfg.stage.eval))
        wanted.benchmark = choice
        found = builder.stage(f"eval_{name}", wanted, after=[model]).metrics
        metrics |= {key: value for key, value in found.items() if "/" in key}
        metrics["details"] |= found["details"]
    metrics |= {
        "score": score(metrics, cfg.stage.metric),
        "model": str(model.folder / "model"),
        "stages": [
            {
                "name": cost.name,
                "fingerprint": cost.fingerprint,
                "seconds": cost.seconds,
                "tokens": cost.tokens,
                "peak_memory_bytes": cost.peak_memory_bytes,
                "reused": cost.reused,
            }
            for cost in builder.costs
        ],
        "seconds": round(time.monotonic() - start, 1),
        "seed": cfg.seed,
    }
    return metrics


# --- the parts -------------------------------------------------------------------------------------------------------


def supervised(cfg: DictConfig) -> dict[str, Any]:
    """Return the supervised stage's own configuration, without MAE, which has already judged the data."""
    stage = resolved(cfg.stage.supervised) | {"mae": False}
    return stage | ({"name": "pkt"} if cfg.stage.pkt else {"name": "sft", "w_max": None, "key_tokens": "paper"})


def data_of(cfg: DictConfig, data: Entry) -> DictConfig:
    """Return the configuration that reads the data stage's output, with the source's held-out share."""
    own = cfg.copy()
    reader = {"name": "tltrain", "path": str(data.folder / "train.jsonl"), "holdout": cfg.data.holdout}
    own.data = choices.bound("data", OmegaConf.create(reader))
    return own


def model_of(cfg: DictConfig, model: Entry) -> DictConfig:
    """Return the configuration that starts from a trained model."""
    own = cfg.copy()
    own.model.path = str(model.folder / "model")
    return own


def check(cfg: DictConfig, benchmarks: list[tuple[str, DictConfig]]) -> None:
    """Check all parts before the first one runs.

    Raises:
        TltrainError: a part is invalid, two benchmarks have the same name, there is no benchmark, or both IRM and
            continued training are to follow the supervised training.
    """
    if cfg.stage.continued and cfg.stage.irm:
        raise TltrainError("stage.continued: continues supervised training in place of IRM: needs stage.irm=false")
    names = [name for name, _ in benchmarks]
    if not names or len(names) > len(set(names)):
        raise TltrainError(f"stage.benchmarks: expected some, each once, found {names}")
    for name, choice in benchmarks:
        own = cfg.copy()
        own.benchmark = choice
        checks.check_node(own.benchmark, choices.schema_of("benchmark", choice), f"stage.benchmarks, {name}")
        checks.check_isolation(own.benchmark)
        check_place(own.benchmark)  # in the whole configuration, where ${paths...} can be resolved
    stages = {"supervised": supervised(cfg)} | {node: resolved(cfg.stage[node]) for node in ("rl", "eval")}
    for node, stage in stages.items():
        for key in ("mae", "rule"):
            if node != "eval" and cfg.stage[node][key] != cfg.stage[key]:
                raise TltrainError(f"stage.{node}.{key}: this is set by stage.{key}")
        with stage_names.named(place_of(node)):
            checks.check(part(cfg, stage))


def place_of(node: str) -> stage_names.Node:
    """Return the place of a stage's keys in the pipeline's configuration."""
    return stage_names.Node("pipeline", node, OWN[node])


PlaceOf = Callable[[str], stage_names.Node]
"""Returns the place of a node's keys (`NODES`) in the configuration of the stage that builds."""


# --- building -------------------------------------------------------------------------------------------------------


class StageBuilder:
    """Builds stages or takes them from the cache, and links to them in the run's folder."""

    def __init__(self, cfg: DictConfig, folder: Path, place: PlaceOf = place_of) -> None:
        self.folder = folder
        self.place = place
        self.cache = StageCache(Path(cfg.cache.dir) / "stages") if cfg.cache.enabled else None
        self.costs: list[Cost] = []

    def stage(self, name: str, cfg: DictConfig, after: Sequence[Entry] = (), resumable: bool = False) -> Entry:
        """Return the stage's result; `name` is its folder in the run's.

        Args:
            after: the entries whose paths are in `cfg`.
            resumable: the stage can resume from its own checkpoints.
        """
        stage, place = cfg.stage.name, self.folder / name

        def build(folder: Path) -> dict[str, Any]:
            terminal.errors.rule(f"{name}", align="left")
            if resumable and self.cache is not None:
                if (metrics := runs.ended(folder)) is not None:  # stopped before the finished run became an entry
                    training_runs.remove_checkpoints(cfg, folder)
                    launch.show_again(cfg, folder, metrics)
                    return {}
                cfg.stage.resume = any(folder.glob("checkpoints/*"))
            node = NODES.get(stage)
            with stage_names.named(self.place(node) if node else None):
                return launch.run_stage(cfg, folder)

        if self.cache is None:
            entry = _uncached(name, place, build)
        else:
            made = {str(entry.folder.resolve()): entry.cost.fingerprint for entry in after}
            entry = self.cache.get(stage, cache_key.key(config.plain(cfg, enum_to_str=True), made), build, resumable)
            link(place, entry.folder)
        if entry.cost.reused:
            terminal.errors.print(f"{name}: {entry.folder.name} is there already", markup=False)
        self.costs.append(entry.cost)
        return entry

    def close(self) -> None:
        """Release the used entries, so that others may remove them."""
        if self.cache is not None:
            self.cache.release()


def _uncached(name: str, place: Path, build: Callable[[Path], dict[str, Any]]) -> Entry:
    if place.is_symlink():  # to an entry of the cache, which must not be written to
        place.unlink()
    place.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with memory.peak() as peak:
        metrics = build(place)
    tokens = (metrics.get("train") or {}).get("tokens")
    return Entry(place, metrics, Cost(name, "", round(time.monotonic() - start, 2), peak.bytes, tokens, False))


def link(place: Path, target: Path) -> None:
    """Make a relative link at `place`, so that both folders can be moved together."""
    if place.is_symlink():
        place.unlink()
    if place.exists():
        raise TltrainError(f"{place} was made without the cache (cache.enabled=false): give another hydra.run.dir")
    place.symlink_to(os.path.relpath(target.resolve(), place.parent.resolve()), target_is_directory=True)


# --- results ---------------------------------------------------------------------------------------------------------


def score(metrics: Mapping[str, Any], key: str | None) -> float:
    """Return the job's score: the metric `key`, else the mean of TS, PI and CF over the benchmarks.

    Raises:
        TltrainError: there is no such metric.
    """
    if key is not None:
        if not isinstance(metrics.get(key), int | float):
            numbers = sorted(name for name, value in metrics.items() if isinstance(value, int | float))
            raise TltrainError(f"stage.metric={key}: there is no such metric{suggestion(key, numbers)}")
        return metrics[key]
    levels = [value for name, value in metrics.items() if name.count("/") == 1 and name.endswith(("/ts", "/pi", "/cf"))]
    return round(sum(levels) / len(levels), 4) if levels else 0.0


def show(metrics: dict[str, Any], folder: Path) -> None:
    """Print the job's results."""
    for levels in (SINGLE_TURN, CONVERSATION, (ABSTENTION,)):
        rows = [
            [name, *(f"{metrics[f'{name}/{level}']:.1f}" if f"{name}/{level}" in metrics else "" for level in levels)]
            for name in metrics["details"]
            if f"{name}/{levels[0]}" in metrics
        ]
        if rows:
            titles = (level.upper() if len(level) == 2 else level for level in levels)
            terminal.table("Evaluation, %", ["benchmark", *titles], rows)
    made = [stage for stage in metrics["stages"] if not stage["reused"]]
    reused = len(metrics["stages"]) - len(made)
    terminal.console.print(
        f"{len(made)} stages built in {metrics['seconds']:.0f} s, {reused} reused. Written to {folder}", markup=False
    )
