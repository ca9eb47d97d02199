"""SIGKILL at random moments: the same command, repeated, ends in the same weights and metrics as if it had not been."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from tltrain.training.checkpoints import COMPLETE, step_of

from .launched import RECIPES, Whole, end, same, start, whole

KILLED = -9
PHASES = ("data", "training", "saving", "evaluating", "ended")
TRAINED = ("sft", "pkt", "irm")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """`uninterrupted(recipe) -> Whole`, each run once."""
    made: dict[str, Whole] = {}

    def get(recipe: str) -> Whole:
        if recipe not in made:
            made[recipe] = whole(tmp_path_factory.mktemp(recipe), recipe)
        return made[recipe]

    return get


def phase(home: Path) -> str:
    """What a run that was killed was at, by what it left."""
    run = home / "run"
    if (run / "metrics.json").is_file():
        return "ended"
    if (run / ".model.part").exists() or any(not (c / COMPLETE).is_file() for c in home.rglob("checkpoint-*")):
        return "saving"
    last = max((step_of(c.parent) for c in home.rglob(f"checkpoint-*/{COMPLETE}")), default=0)
    if (run / "model").exists() or any((home / "cache" / "stages").glob("*/entry.json")):
        return "evaluating"
    return "training" if last or (run / "checkpoints").exists() else "data"


def killed_and_repeated(reference: Whole, home: Path, moment: float) -> tuple[str, bool, list[str]]:
    """(what it was at, whether it went on from a checkpoint or the cache, what differs) after a kill at `moment` s."""
    process = start(home, *reference.words)
    process.join(moment)
    process.kill()
    process.join()
    if process.exitcode == 0:  # it was faster this time
        return "ended", False, same(home, reference.home)
    assert process.exitcode == KILLED
    at = phase(home)
    said = end(start(home, *reference.words), home)
    went_on = "going on from" in said or "is there already" in said or "has ended already" in said
    return at, went_on, same(home, reference.home)


def moments(recipe: str, count: int, seconds: float) -> list[float]:
    """Random moments of a run that takes so many seconds, the same every time but for how long it takes."""
    rng = random.Random(f"kill {recipe}")
    return [rng.uniform(0.02, 1.0) * seconds for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", TRAINED)
def test_killed_at_a_random_moment(uninterrupted, tmp_path, recipe):
    """The sweep is killed in `tests/test_ablation.py`, and below."""
    reference = uninterrupted(recipe)
    for number, moment in enumerate(moments(recipe, 2, reference.seconds)):
        at, _, different = killed_and_repeated(reference, tmp_path / str(number), moment)
        assert not different, f"killed after {moment:.2f} s ({at})"


@pytest.mark.faults
@pytest.mark.parametrize("recipe", ["sft", "pkt", "irm", "sweep"])
def test_killed_at_twenty_random_moments(uninterrupted, tmp_path, recipe, figures):
    reference, count = uninterrupted(recipe), 20
    phases: Counter[str] = Counter()
    went_on, differed = 0, []
    for number, moment in enumerate(moments(recipe, count, reference.seconds)):
        home = tmp_path / str(number)
        at, continued, different = killed_and_repeated(reference, home, moment)
        phases[at] += 1
        went_on += continued
        if different:
            differed.append(f"{moment:.2f} s ({at}): {', '.join(different)}")
        else:
            shutil.rmtree(home)
    figures(
        "SIGKILL at random moments, the same command repeated",
        run=recipe,
        seconds=f"{reference.seconds:.1f}",
        kills=count,
        **{f"at {name}": phases[name] for name in PHASES},
        **{"went on": went_on, "began anew": count - went_on, "differed": len(differed)},
    )
    assert not differed, "\n".join(differed)


# --- at moments that chance seldom meets ----------------------------------------------------------------------------

RARE = {
    "first checkpoint being written": lambda run: any(run.glob("checkpoints/checkpoint-*/*")),
    "last checkpoint whole": lambda run: (run / "checkpoints" / "checkpoint-4" / COMPLETE).is_file(),
    "model being written": lambda run: any(run.glob(".model.part/*")),
    "model whole": lambda run: (run / "model").is_dir(),
}
SHORT = (
    ("first checkpoint being written", "irm"),
    ("last checkpoint whole", "sft"),
    ("model being written", "pkt"),
    ("model whole", "irm"),
)
"""Those of `make test-slow`."""


@pytest.mark.parametrize(
    ("what", "recipe"),
    [
        pytest.param(what, recipe, marks=pytest.mark.slow if (what, recipe) in SHORT else pytest.mark.faults)
        for what in RARE
        for recipe in TRAINED
    ],
)
def test_killed_as_soon_as(uninterrupted, tmp_path, recipe, what):
    reference = uninterrupted(recipe)
    process = start(tmp_path, *reference.words)
    deadline = time.monotonic() + 120
    while process.is_alive() and time.monotonic() < deadline and not RARE[what](tmp_path / "run"):
        time.sleep(0.0005)
    process.kill()
    process.join()
    if process.exitcode == KILLED:
        end(start(tmp_path, *reference.words), tmp_path)
    assert same(tmp_path, reference.home) == []


@pytest.mark.faults
def test_killed_twice(uninterrupted, tmp_path):
    reference = uninterrupted("irm")
    for step in (1, 3):
        process = start(tmp_path, *reference.words)
        while process.is_alive() and not any(
            step_of(c.parent) >= step for c in tmp_path.glob(f"run/checkpoints/*/{COMPLETE}")
        ):
            time.sleep(0.001)
        process.kill()
        process.join()
    end(start(tmp_path, *reference.words), tmp_path)
    assert same(tmp_path, reference.home) == []


@pytest.mark.slow
def test_a_command_repeated_after_its_end_does_nothing(uninterrupted):
    reference = uninterrupted("sft")
    before = {file: file.stat().st_mtime_ns for file in (reference.home / "run" / "model").iterdir()}
    assert "has ended already" in end(start(reference.home, *reference.words), reference.home)
    assert before == {file: file.stat().st_mtime_ns for file in (reference.home / "run" / "model").iterdir()}


def test_what_is_compared_is_what_counts(tmp_path):
    """`same` tells weights, history and metrics apart, and nothing else."""
    for home in ("a", "b"):
        folder = tmp_path / home / "run"
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "model.safetensors").write_bytes(b"weights")
        (folder / "history.jsonl").write_text(f'{{"step": 1, "loss": 2.5, "tokens_per_second": {ord(home)}}}\n')
        (folder / "metrics.json").write_text(f'{{"train": {{"train_loss": 2.5, "train_runtime": {ord(home)}}}}}')
    one, other = tmp_path / "a", tmp_path / "b"
    assert same(one, other) == []
    (other / "run" / "history.jsonl").write_text('{"step": 1, "loss": 2.500001}\n')
    (other / "run" / "model" / "model.safetensors").write_bytes(b"weighs")
    (other / "run" / "metrics.json").write_text('{"train": {"train_loss": 2.500001}}')
    assert same(one, other) == ["run/history.jsonl", "run/metrics.json", "run/model/model.safetensors"]


def test_the_moments_are_the_same_every_time_and_cover_a_run():
    found = moments("sft", 20, 10.0)
    assert found == moments("sft", 20, 10.0) != moments("pkt", 20, 10.0)
    assert min(found) < 2 and max(found) > 8
    assert set(TRAINED) < RECIPES.keys()
