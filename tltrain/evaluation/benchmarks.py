"""Benchmarks: named sets of samples, in the order in which saved predictions are read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from tltrain import toolworld
from tltrain.config import BfclBenchmark, FileBenchmark, RotbenchBenchmark, ToolworldBenchmark
from tltrain.data import bfcl, checked, openai, rotbench, toolalpaca, when2call
from tltrain.data.reading import Parse, ReadReport, check_file, read_file
from tltrain.errors import TltrainError
from tltrain.runtime import targets
from tltrain.trajectory import Sample

log = logging.getLogger(__name__)

FIRST_CALL = ("bfcl", "openai", "when2call")
"""Benchmarks whose answers in the TL format may be a list, `[f(...), g(...)]`, of which the first call is graded."""

TURNS = {"first": "rotbench_", "third": "rotbench_third_"}


def load(benchmark: DictConfig, seed: int) -> dict[str, list[Sample]]:
    """Map each set's name (`rotbench_clean`, `toolalpaca_real`, `bfcl_exec`, ...) to its samples.

    Raises:
        TltrainError: the benchmark or the part of it does not exist, or its files differ from the published ones.
    """
    sets = _loaded(benchmark, seed)
    return {name: samples[: benchmark.limit] for name, samples in sets.items()}


def _loaded(benchmark: DictConfig, seed: int) -> dict[str, list[Sample]]:
    function = targets.named(benchmark, LOADERS, "benchmark")
    target = benchmark.get(targets.TARGET)
    if target is None:
        return targets.call(benchmark, LOADERS, "benchmark", seed=seed)
    name = str(benchmark.name)
    if "record" in targets.called_with(function):
        parse = checked.parser(targets.bound(benchmark, function, "benchmark"), target, Sample)
        report = ReadReport()
        samples = list(read_file(_path(benchmark), parse, report=report))
        _tell_notes(report)
        return {name: samples}
    where = f"benchmark.{targets.TARGET}={target}"
    with targets.explained(where):
        found = targets.call(benchmark, LOADERS, "benchmark", seed=seed)
        if found is None:
            raise TltrainError(f"{where}: expected a list of samples, or a dict of such lists, found None")
        sets = {str(key): list(value) for key, value in (found if isinstance(found, dict) else {name: found}).items()}
    for samples in sets.values():
        checked.check(samples, Sample, where)
    return sets


def _toolworld(benchmark: ToolworldBenchmark) -> dict[str, list[Sample]]:
    split, tools = str(benchmark.split), str(benchmark.tools)
    return {toolworld.set_name(split, tools): list(toolworld.samples(benchmark.size, benchmark.seed, split, tools))}


NEEDED = {
    "rotbench": "RoTBench's release: give benchmark.path=FOLDER with first_turn/",
    "toolalpaca": "ToolAlpaca's data: give benchmark.path=FOLDER with eval_*.json",
    "openai": "a file: give benchmark.path=FILE of messages, tools, tool_calls",
    "when2call": "a file: give benchmark.path=FILE, When2Call's test set",
}
"""The data that a benchmark reads and that the user has to provide."""


def _path(benchmark: FileBenchmark | DictConfig) -> str:
    if benchmark.path is None:
        needed = NEEDED.get(benchmark.name, "a file: give benchmark.path=FILE")
        raise TltrainError(f"benchmark={benchmark.name} reads {needed}")
    return benchmark.path


def _rotbench(benchmark: RotbenchBenchmark, seed: int) -> dict[str, list[Sample]]:
    path = _path(benchmark)
    unknown = set(benchmark.turns) - set(TURNS)
    if unknown or not benchmark.turns:
        raise TltrainError(f"benchmark.turns: expected some of {', '.join(TURNS)}, found {list(benchmark.turns)}")
    sets: dict[str, list[Sample]] = {}
    for turn in benchmark.turns:
        for level in benchmark.levels:
            report = ReadReport()
            sets[TURNS[turn] + level] = list(
                rotbench.read_samples(path, [level], turns=(turn,), on_error="stop", report=report)
            )
            _tell_notes(report)
    return sets


def _toolalpaca(benchmark: FileBenchmark, seed: int) -> dict[str, list[Sample]]:
    sets: dict[str, list[Sample]] = {}
    for kind, file in toolalpaca.files(_path(benchmark)).items():
        samples = sets[f"toolalpaca_{kind}"] = toolalpaca.read_samples(file, kind)
        lost = sum(not sample.meta["golden_on_offer"] for sample in samples)
        if lost:
            log.warning(
                "%s: the golden tool of %d of %d samples is not on offer: any answer to them counts as wrong",
                file,
                lost,
                len(samples),
            )
    return sets


def _bfcl(benchmark: BfclBenchmark, seed: int) -> dict[str, list[Sample]]:
    unknown = [name for name in benchmark.categories if name not in bfcl.SETS]
    if unknown or not benchmark.categories:
        raise TltrainError(
            f"benchmark.categories: expected some of {', '.join(bfcl.SETS)}, found {list(benchmark.categories)}"
        )
    return {
        f"bfcl_{name}": [sample for part in bfcl.SETS[name] for sample in bfcl.read_samples(benchmark.path, part)]
        for name in benchmark.categories
    }


def _openai(benchmark: FileBenchmark, seed: int) -> dict[str, list[Sample]]:
    return _of_file(benchmark, openai.parse_sample)


def _when2call(benchmark: FileBenchmark, seed: int) -> dict[str, list[Sample]]:
    return _of_file(benchmark, when2call.parse_sample)


def _of_file(benchmark: FileBenchmark, parse: Parse[Sample]) -> dict[str, list[Sample]]:
    """Return the samples of one file, as a set that is named after it."""
    path = _path(benchmark)
    report = ReadReport()
    samples = list(read_file(path, parse, report=report))
    _tell_notes(report)
    return {Path(path).stem: samples}


def _tell_notes(report: ReadReport) -> None:
    for note, count in sorted(report.notes.items()):
        log.warning("reading: %s: %d times in %d records", note, count, report.read)


def check_place(benchmark: DictConfig) -> None:
    """Raise a TltrainError if the files of a built-in loader are missing; nothing is read."""
    if benchmark.get(targets.TARGET) is not None or benchmark.get("multi"):
        return
    if benchmark.name == "bfcl":
        parts = [part for name in benchmark.categories for part in bfcl.SETS.get(name, ())]
        bfcl.check_place(benchmark.path, parts)
    elif benchmark.name == "rotbench":
        rotbench.check_place(_path(benchmark), benchmark.turns, benchmark.levels)
    elif benchmark.name == "toolalpaca":
        toolalpaca.files(_path(benchmark))
    elif benchmark.name in ("openai", "when2call"):
        check_file(_path(benchmark))


LOADERS: dict[str, Callable[..., dict[str, list[Sample]]]] = {
    "toolworld": _toolworld,
    "rotbench": _rotbench,
    "toolalpaca": _toolalpaca,
    "bfcl": _bfcl,
    "openai": _openai,
    "when2call": _when2call,
}
"""The single-turn benchmarks by name; the annotation of a loader's settings determines its keys."""
