"""A clock that jumps: neither which file is newest nor how long something took depends on it."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support import clock, interruptions, stage_recipes
from tests.support.clock import DAY
from tests.support.launched_runs import SUPERVISED, end, same, start
from tests.support.small_runs import SMALL
from tltrain.training.checkpoints import ResumableCheckpoints
from tltrain.training.sft import TurnTrainer

WORDS = ("stage=sft", *SMALL, *SUPERVISED, "stage.args.save_steps=1", "stage.keep_checkpoints=true")


@pytest.fixture
def backwards(monkeypatch):
    """Date each checkpoint's files a day before those of the previous checkpoint."""
    save = ResumableCheckpoints._save_checkpoint

    def save_and_date(self, model, trial):
        save(self, model, trial)
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        when = time.time() - 86400 * self.state.global_step
        for path in (*folder.rglob("*"), folder):
            os.utime(path, (when, when))

    monkeypatch.setattr(ResumableCheckpoints, "_save_checkpoint", save_and_date)


@pytest.mark.parametrize("limit", [1, 2])
def test_the_newest_checkpoints_are_kept(tltrain, backwards, limit):
    ran = tltrain(*WORDS, f"stage.args.save_total_limit={limit}")
    kept = {path.name for path in (ran.folder / "checkpoints").glob("checkpoint-*")}
    assert kept == {f"checkpoint-{6 - i}" for i in range(limit)}


def test_a_duration_is_none_of_the_wall_clocks(tltrain, monkeypatch):
    log, real, jumped = TurnTrainer.log, time.time, []

    def log_and_jump(self, logs, start_time=None):
        if not jumped:
            jumped.append(True)
            monkeypatch.setattr(time, "time", lambda: real() - 7200)
        log(self, logs, start_time)

    monkeypatch.setattr(TurnTrainer, "log", log_and_jump)
    began = time.monotonic()
    ran = tltrain("stage=sft", *SMALL, *SUPERVISED)
    assert jumped and 0 < ran.metrics["train"]["train_runtime"] < time.monotonic() - began


# --- runs of every kind -----------------------------------------------------------------------------------------------

RESUMED = {**stage_recipes.WORDS, **stage_recipes.VARIANTS}
TRAINED = [name for name, words in RESUMED.items() if "stage.resume=true" in words] + ["pipeline"]
JUMPS = pytest.mark.parametrize("days", [10, -10], ids=["forwards", "backwards"])


@pytest.fixture(scope="module")
def steady(tmp_path_factory):
    """`steady(name)`: the folder of a run whose clock did not jump."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            end(start(made[name], *stage_recipes.words_of(name)), made[name])
        return made[name]

    return get


def durations(value: object) -> list[float]:
    """Return all numbers of seconds in the metrics."""
    if isinstance(value, dict):
        own = [number for key, number in value.items() if key in ("train_runtime", "seconds") and number is not None]
        return own + [number for inner in value.values() for number in durations(inner)]
    return [number for inner in value for number in durations(inner)] if isinstance(value, list) else []


def check(home: Path, whole: Path) -> None:
    assert same(home, whole) == []
    found = durations(json.loads((home / "run" / "metrics.json").read_text()))
    assert found and all(0 <= number < 600 for number in found), found


@pytest.mark.faults
@pytest.mark.parametrize("name", TRAINED)
@JUMPS
def test_a_jump_while_training_changes_nothing(tmp_path, steady, figures, name, days):
    end(start(tmp_path, *stage_recipes.words_of(name), before=partial(clock.jumping, days * DAY, 2)), tmp_path)
    assert (tmp_path / "jumped").exists()
    check(tmp_path, steady(name))
    figures("The clock jumps", run=name, days=days, when="while training", differed=0)


@pytest.mark.faults
@pytest.mark.parametrize("name", TRAINED)
@JUMPS
def test_a_jump_between_a_run_and_its_repetition_changes_nothing(tmp_path, steady, figures, name, days):
    """The first run is killed while it seals a checkpoint; its files have the times of its clock."""
    sealed = ("training/checkpoints.py:mark_complete", 2)
    process = start(tmp_path, *stage_recipes.words_of(name), before=interruptions.interrupted(sealed, signal.SIGKILL))
    end(process, tmp_path, status=-signal.SIGKILL)
    clock.date(tmp_path, -days * DAY)
    said = end(start(tmp_path, *stage_recipes.words_of(name), before=partial(clock.shifted, days * DAY)), tmp_path)
    assert "continuing from" in said
    check(tmp_path, steady(name))
    figures("The clock jumps", run=name, days=days, when="before the repetition", differed=0)
