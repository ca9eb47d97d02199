"""Hostile data files and run folders: each is quickly read, or refused in one line, without evaluating anything. The
readers are those in the registries and those of our own runs' files (`support.hostile_readers`).
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from tests.support import hostile_readers, hostile_runs
from tests.support.amounts import amount
from tests.support.hostile_inputs import in_a_fork, watch
from tests.support.hostile_readers import Reader
from tests.support.mae_rules import PAPER, STRICT
from tests.support.small_runs import SMALL
from tltrain import config, mae
from tltrain.data import READERS, native
from tltrain.data.reading import ReadReport
from tltrain.environments.registry import ENVIRONMENTS
from tltrain.errors import TltrainError
from tltrain.evaluation.benchmarks import LOADERS
from tltrain.formats import joined
from tltrain.formats.tl import TL
from tltrain.trajectory import Sample, Trajectory

GENERATED = {"toolworld"}
"""Sources that generate their trajectories, samples or tasks and read no file."""


@pytest.fixture(scope="module", autouse=True)
def any_number_of_records():
    with hostile_readers.any_number_of_records():
        yield


@pytest.fixture(scope="module")
def readers(tmp_path_factory) -> dict[str, Reader]:
    """All readers except the one of a model's folder, which takes longer."""
    return hostile_readers.of_registries() | hostile_runs.of_runs(tmp_path_factory.mktemp("good"))


def read_and_use(reader: Reader, folder: Path, on_error: str) -> bool:
    """Return whether the files were read; if so, check that the result can be judged, shown to a model and written."""
    report = ReadReport()
    try:
        for item in reader.read(folder, on_error, report):
            if isinstance(item, Trajectory):
                json.loads(native.dumps(item).encode())
                for rule in (None, PAPER, STRICT):
                    mae.verdicts(item, rule)
                joined(TL.segments(item)).encode()
            elif isinstance(item, Sample):
                joined(TL.prompt_segments(item)).encode()
    except TltrainError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000, str(error)[:2000]
        return False
    assert all("\n" not in line for line in report.skipped)
    return not report.skipped


def fuzz(readers: dict[str, Reader], count: int, seed: int, where: Path) -> tuple[int, float, str, int, Counter[str]]:
    """Read `count` damaged files in turn; return (files, slowest in ms, whose, MiB grown, files read by reader)."""
    rng, read = random.Random(seed), Counter()
    slowest: dict[str, float] = dict.fromkeys(readers, 0.0)
    for name, reader in readers.items():  # import now whatever is imported late
        folder = where / "good"
        reader.put(folder)
        assert read_and_use(reader, folder, "stop"), name
        shutil.rmtree(folder)
    with watch() as found:
        for number, name in zip(range(count), chain.from_iterable([list(readers)] * count), strict=False):
            folder, reader = where / "damaged", readers[name]
            data = reader.put(folder, rng)
            start = time.process_time()
            with found.reading((name, data), imports=reader.imports):
                read[name] += read_and_use(reader, folder, "skip" if number % 3 == 0 else "stop")
            slowest[name] = max(slowest[name], time.process_time() - start)
            shutil.rmtree(folder)
    found.check()
    return found.count, 1000 * found.slowest, max(slowest, key=slowest.__getitem__), found.grown, read


@in_a_fork
def test_hostile_files(readers, tmp_path):
    *_, read = fuzz(readers, 150, 1, tmp_path)
    assert sum(read.values()) > 10  # some damage does no harm


@pytest.fixture(scope="module")
def model(run_once) -> Path:
    """A trained model's folder."""
    return run_once("stage=sft", *SMALL, "data.size=12", "stage.args.max_steps=1").folder / "model"


@in_a_fork
def test_hostile_models(model, tmp_path):
    fuzz(hostile_runs.of_models(model), 10, 1, tmp_path)


@pytest.mark.faults
def test_twenty_thousand_hostile_files(readers, model, tmp_path, figures):
    everything = readers | hostile_runs.of_models(model)
    count, slowest, whose, grown, read = fuzz(everything, amount("files"), 2, tmp_path)
    figures(
        "Hostile inputs",
        what=f"files of {len(everything)} readers",
        inputs=count,
        crashes=0,
        slowest=f"{slowest:.0f} ms ({whose})",
        memory=f"+{grown} MiB",
    )
    assert sum(read.values()) < count


def test_each_reader_meets_damage_that_it_refuses(readers, tmp_path):
    """Readers that silently make their results again are exempt: the cache, a base model's manifest, a checkpoint."""
    silent = {"an entry of the cache", "a base model's manifest", "checkpoints"}
    for name, reader in readers.items():
        rng, refused = random.Random(5), False
        for _ in range(60):
            folder = tmp_path / "damaged"
            reader.put(folder, rng)
            refused = refused or not read_and_use(reader, folder, "stop")
            shutil.rmtree(folder)
            if refused:
                break
        assert refused or name in silent, name


def test_every_reader_of_a_registry_has_records_of_its_own():
    """A new reader is attacked with the records of others until it has its own here."""
    read = {name for name, function in READERS.items() if hostile_readers.reads_file(function, config.Data)}
    assert read == hostile_readers.DATA.keys() == READERS.keys() - GENERATED
    asked = {name for name, function in LOADERS.items() if hostile_readers.reads_file(function, config.Benchmark)}
    assert asked == hostile_readers.BENCHMARKS.keys() == LOADERS.keys() - GENERATED
    assert hostile_readers.ENVIRONMENTS.keys() == ENVIRONMENTS.keys() - GENERATED


def test_a_reader_without_records_of_its_own_is_attacked_with_those_of_others(monkeypatch):
    monkeypatch.setitem(READERS, "later", READERS["openai"])
    assert "data=later" in hostile_readers.of_registries()
