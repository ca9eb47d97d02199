"""Benchmarks: named sets of samples, in the order in which saved predictions are read."""

from __future__ import annotations

from omegaconf import DictConfig

from tltrain.data import rotbench, toolworld
from tltrain.data.reading import ReadReport
from tltrain.errors import TltrainError
from tltrain.trajectory import Sample

TURNS = {"first": "rotbench_", "third": "rotbench_third_"}


def load(benchmark: DictConfig, seed: int) -> dict[str, list[Sample]]:
    """Set name (`rotbench_clean`, `rotbench_third_clean`, `toolworld`) -> its samples.

    Raises:
        TltrainError: the benchmark has no such level or turn, or its files are not those that were published.
    """
    sets = LOADERS[benchmark.name](benchmark, seed) if benchmark.name in LOADERS else None
    if sets is None:
        raise TltrainError(f"benchmark.name: expected one of {', '.join(LOADERS)}, found {benchmark.name}")
    return {name: samples[: benchmark.limit] for name, samples in sets.items()}


def _toolworld(benchmark: DictConfig, seed: int) -> dict[str, list[Sample]]:
    return {"toolworld": list(toolworld.samples(benchmark.size, seed))}


def _rotbench(benchmark: DictConfig, seed: int) -> dict[str, list[Sample]]:
    if benchmark.path is None:
        raise TltrainError("benchmark=rotbench reads RoTBench's release: give benchmark.path=FOLDER with first_turn/")
    unknown = set(benchmark.turns) - set(TURNS)
    if unknown or not benchmark.turns:
        raise TltrainError(f"benchmark.turns: expected some of {', '.join(TURNS)}, found {list(benchmark.turns)}")
    sets: dict[str, list[Sample]] = {}
    for turn in benchmark.turns:
        for level in benchmark.levels:
            report = ReadReport()
            sets[TURNS[turn] + level] = list(
                rotbench.read_samples(benchmark.path, [level], turns=(turn,), on_error="stop", report=report)
            )
    return sets


LOADERS = {"toolworld": _toolworld, "rotbench": _rotbench}
