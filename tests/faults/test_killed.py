"""SIGKILL at random moments: the repeated command ends with the same weights and metrics as an uninterrupted run."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.launched_runs import RECIPES, Whole, end, marking_steps, same, start, steps, whole
from tltrain.training.checkpoints import COMPLETE, step_of

KILLED = -9
PHASES = ("data", "training", "saving", "evaluating", "ended")
TRAINED = ("sft", "pkt", "irm")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """`uninterrupted(recipe) -> Whole`; each recipe runs once."""
    made: dict[str, Whole] = {}

    def get(recipe: str) -> Whole:
        if recipe not in made:
            made[recipe] = whole(tmp_path_factory.mktemp(recipe), recipe)
        return made[recipe]

    return get


@dataclass(frozen=True)
class Moment:
    """A number of optimizer steps (0: the start), plus a number of seconds."""

    step: int
    seconds: float


def moments(reference: Whole, name: str, count: int) -> list[Moment]:
    """Return random moments: between any two steps as often as before the first and after the last.

    So they do not depend on the machine's current speed, and hit training as often as loading.
    """
    rng, found = random.Random(f"kill {name}"), []
    for _ in range(count):
        step = rng.randrange(len(reference.times) - 1)
        found.append(Moment(step, rng.random() * (reference.times[step + 1] - reference.times[step])))
    return found


def phase(home: Path, last: int) -> str:
    """Return the phase in which a run was killed, judged by its files; `last` is the number of its last step."""
    run, stages = home / "run", home / "cache" / "stages"
    checkpoints = [*run.glob("checkpoints/checkpoint-*"), *stages.glob("*/checkpoints/checkpoint-*")]
    whole = [step_of(folder) for folder in checkpoints if (folder / COMPLETE).is_file()]
    if (run / "metrics.json").is_file():
        return "ended"
    if len(whole) < len(checkpoints) or any(home.rglob(".model.part")):
        return "saving"
    if last in whole or (run / "model").exists():
        return "evaluating"
    return "training" if steps(home) else "data"


def killed_and_repeated(reference: Whole, home: Path, moment: Moment) -> tuple[str, bool, list[str]]:
    """Kill and repeat a run; return (its phase, whether it continued from a checkpoint or the cache, what differs)."""
    process = start(home, *reference.words, before=marking_steps)
    deadline = time.monotonic() + 600
    while process.is_alive() and steps(home) < moment.step and time.monotonic() < deadline:
        time.sleep(0.0005)
    process.join(moment.seconds)
    process.kill()
    process.join()
    at = phase(home, len(reference.times) - 2)
    if process.exitcode == 0:  # it was faster this time
        return "ended", True, same(home, reference.home)
    assert process.exitcode == KILLED
    before = (home / "said").read_text() if (home / "said").is_file() else ""
    said = end(start(home, *reference.words), home).removeprefix(before)
    went_on = "continuing from" in said or "is there already" in said or "has ended already" in said
    return at, went_on, same(home, reference.home)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", TRAINED)
def test_killed_at_a_random_moment(uninterrupted, tmp_path, recipe):
    """A sweep is killed in `tests/sweeps/test_ablation.py` and below."""
    reference = uninterrupted(recipe)
    for number, moment in enumerate(moments(reference, recipe, 2)):
        at, _, different = killed_and_repeated(reference, tmp_path / str(number), moment)
        assert not different, f"killed at {moment} ({at})"


@pytest.mark.faults
@pytest.mark.parametrize("recipe", ["sft", "pkt", "irm", "sweep"])
def test_killed_at_twenty_random_moments(uninterrupted, tmp_path, recipe, figures):
    reference, count = uninterrupted(recipe), 20
    phases: Counter[str] = Counter()
    went_on, differed = 0, []
    for number, moment in enumerate(moments(reference, recipe, count)):
        home = tmp_path / str(number)
        at, continued, different = killed_and_repeated(reference, home, moment)
        phases[at] += 1
        went_on += continued
        if different:
            differed.append(f"{moment} ({at}): {', '.join(different)}")
        else:
            shutil.rmtree(home)
    figures(
        "SIGKILL at random moments, the same command repeated",
        run=recipe,
        steps=len(reference.times) - 2,
        kills=count,
        **{f"at {name}": phases[name] for name in PHASES},
        **{"went on": went_on, "began anew": count - went_on, "differed": len(differed)},
    )
    assert not differed, "\n".join(differed)


# --- at moments that chance rarely hits -----------------------------------------------------------------------------

RARE = {
    "first checkpoint being written": lambda run, last: any(run.glob("checkpoints/checkpoint-*/*")),
    "last checkpoint whole": lambda run, last: (run / "checkpoints" / f"checkpoint-{last}" / COMPLETE).is_file(),
    "model being written": lambda run, last: any(run.glob(".model.part/*")),
    "model whole": lambda run, last: (run / "model").is_dir(),
}
SHORT = (
    ("first checkpoint being written", "irm"),
    ("last checkpoint whole", "sft"),
    ("model being written", "pkt"),
    ("model whole", "irm"),
)
"""The moments in `make test-slow`."""


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
    process, last = start(tmp_path, *reference.words), len(reference.times) - 2
    deadline = time.monotonic() + 120
    while process.is_alive() and time.monotonic() < deadline and not RARE[what](tmp_path / "run", last):
        time.sleep(0.0005)
    process.kill()
    process.join()
    if process.exitcode == KILLED:
        end(start(tmp_path, *reference.words), tmp_path)
    assert same(tmp_path, reference.home) == []


@pytest.mark.parametrize(
    ("recipe", "kills"),
    [
        pytest.param("irm", (1, 3), marks=pytest.mark.faults),
        # Before the second epoch on a rollout, and while the conversations of the next one are held.
        pytest.param("conversations", (1, 2), marks=pytest.mark.slow),
    ],
)
def test_killed_twice(uninterrupted, tmp_path, recipe, kills):
    reference = uninterrupted(recipe)
    for step in kills:
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
    """`same` reports differences in weights, history and metrics, and in nothing else."""
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
    reference = Whole(Path(), (), (0.0, 4.0, 4.5, 5.0, 9.0))
    found = moments(reference, "sft", 20)
    assert found == moments(reference, "sft", 20) != moments(reference, "pkt", 20)
    assert {moment.step for moment in found} == {0, 1, 2, 3}
    assert all(0 <= moment.seconds <= 4 if moment.step in (0, 3) else moment.seconds <= 0.5 for moment in found)
    assert set(TRAINED) < RECIPES.keys()
