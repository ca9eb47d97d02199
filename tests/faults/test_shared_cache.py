"""Two pipelines on one cache at the same time, for an hour; one of them is killed at random moments.

The other is never disturbed, nothing half-made is ever used, and the killed one, when repeated, ends as if it had not
been killed. `FAULTS_SECONDS` sets the duration.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from tests.support.amounts import amount
from tests.support.launched_runs import ALWAYS, RECIPES, contents, end, start
from tltrain.runtime import manifests
from tltrain.sweeps.stage_cache import StageCache

pytestmark = pytest.mark.faults
SEEDS = (0, 1)
KILLED = -9


def words(seed: int, irm: bool = True) -> tuple[str, ...]:
    """Return the words of a pipeline on the cache next to its folder; both kinds share data and supervised model."""
    unread = "cache.dir=" if irm else ("cache.dir=", "stage.rl.")
    shared = [word for word in (*ALWAYS, *RECIPES["pipeline"]) if not word.startswith(unread)]
    return (*shared, f"seed={seed}", f"stage.irm={str(irm).lower()}", "cache.dir=../cache")


def left(home: Path) -> dict[str, Any]:
    """Return a pipeline's results: weights, data and answers, through its links into the cache, and its metrics."""
    found: dict[str, Any] = {"metrics": _placeless(contents(home)["run/metrics.json"])}
    for part in filter(Path.is_dir, (home / "run").iterdir()):
        for file in sorted(part.rglob("*")):
            if (
                file.name in ("model.safetensors", "predictions.jsonl", "train.jsonl")
                and "checkpoints" not in file.parts
            ):
                found[f"{part.name}/{file.relative_to(part)}"] = file.read_bytes()
    assert len(found) > 3, found.keys()
    return found


def _placeless(value: Any) -> Any:
    """Return the value without paths in the cache."""
    if isinstance(value, dict):
        return {key: _placeless(inner) for key, inner in value.items() if key not in ("model", "base_model")}
    return value


def test_two_pipelines_one_of_them_killed(tmp_path, figures):
    expected: dict[tuple[int, bool], dict[str, Any]] = {}
    for seed in SEEDS:
        for irm in (True, False):
            home = tmp_path / f"whole-{seed}-{irm}" / "run-alone"
            end(start(home, *words(seed, irm)), home)
            expected[seed, irm] = left(home)
    rng, counts, wrong = random.Random("two pipelines"), Counter(), []
    place = tmp_path / "together"
    cache = StageCache(place / "cache" / "stages")
    began, longest = time.monotonic(), 12.0
    while time.monotonic() - began < amount("seconds") and not wrong:
        counts["rounds"] += 1
        if rng.random() < 0.7:  # otherwise the existing cache is used again
            for folder, _ in cache.entries():
                if rng.random() < 0.7:
                    counts["entries removed"] += cache.remove(folder)
        asked = {name: (rng.choice(SEEDS), rng.random() < 0.7) for name in ("stays", "killed")}
        for name in asked:
            shutil.rmtree(place / name, ignore_errors=True)
        start_of_round = time.monotonic()
        running = {name: start(place / name, *words(*asked[name])) for name in asked}
        running["killed"].join(rng.random() * longest)
        running["killed"].kill()
        running["killed"].join()
        counts["killed while it ran"] += running["killed"].exitcode == KILLED
        end(running["stays"], place / "stays")
        longest = max(4.0, time.monotonic() - start_of_round)
        end(start(place / "killed", *words(*asked["killed"])), place / "killed")
        for name, which in asked.items():
            text = (place / name / "said").read_text(errors="replace")
            counts["went on"] += text.count("continuing from")  # from a checkpoint that either pipeline had left
            wrong += [f"{name} {which}: {text[-2000:]}" for word in ("Traceback", "is built again") if word in text]
            found, want = left(place / name), expected[which]
            wrong += [f"{name} {which}: {one}" for one in found.keys() | want.keys() if found.get(one) != want.get(one)]
        used = [file for file in (place / "cache").rglob("*.users/*.lock") if _is_held(file)]
        wrong += [f"{file} is held by nobody that runs" for file in used]
    parts = [*place.rglob("*.part")]
    figures(
        "Two pipelines on one cache, one of them killed",
        seconds=round(time.monotonic() - began),
        rounds=counts["rounds"],
        killed=counts["killed while it ran"],
        **{"went on": counts["went on"], "entries removed": counts["entries removed"], "wrong": len(wrong)},
    )
    assert not wrong, "\n".join(wrong)
    assert counts["killed while it ran"] > 0
    for folder, manifest in cache.entries():
        assert manifest is None or manifests.changed(folder, manifest.files) is None, folder
    assert len(parts) <= 2 * counts["killed while it ran"], parts


def _is_held(file: Path) -> bool:
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
