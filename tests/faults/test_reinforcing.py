"""Faults during reinforcement learning, with every algorithm: kills, no memory, no disk space, non-finite rewards.

Whatever happens in a rollout, in an update or while a checkpoint is saved, the same command continues from the last
complete checkpoint and ends as if nothing had happened.
"""

from __future__ import annotations

import errno
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.support import interruptions, stage_recipes
from tests.support.interruptions import Moment
from tests.support.launched_runs import end, same, start
from tltrain import config
from tltrain.training import checkpoints
from tltrain.training.checkpoints import COMPLETE, ResumableCheckpoints, last_checkpoint, step_of
from tltrain.training.reward_function import RewardFunction

pytestmark = pytest.mark.faults
ALGORITHMS = ("ppo", *(algorithm.name for algorithm in config.Algorithm if algorithm.name in stage_recipes.VARIANTS))
KILLED: dict[str, Moment] = {
    "rollout": ("training/reward_function.py:RewardFunction.__call__", 9),
    "update": ("training/signals.py:SaveAtSignal.on_step_end", 3),
    "checkpoint": ("training/checkpoints.py:ResumableCheckpoints._save_checkpoint", 2),
    "seal of a checkpoint": ("training/checkpoints.py:mark_complete", 3),
}
"""Where a run is killed -> a function that all algorithms call there, and at which of its calls."""
OWN: dict[str, dict[str, Moment]] = {
    "ppo": {
        "sampling": ("training/ppo.py:PPOTrainer._sample", 2),
        "loss": ("training/ppo.py:PPOTrainer.compute_loss", 4),
        "rollout of a checkpoint": ("training/ppo.py:PPOTrainer._save_extra", 3),
    }
}
"""The same for an algorithm's own functions."""


def recipe(algorithm: str) -> str:
    return "irm" if algorithm == "ppo" else algorithm


def words(algorithm: str) -> tuple[str, ...]:
    return stage_recipes.words_of(recipe(algorithm))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[str], Path]:
    """`whole(algorithm)`: the folder of an undisturbed run."""
    made: dict[str, Path] = {}

    def get(algorithm: str) -> Path:
        if algorithm not in made:
            made[algorithm] = tmp_path_factory.mktemp(algorithm)
            end(start(made[algorithm], *words(algorithm)), made[algorithm])
        return made[algorithm]

    return get


@pytest.mark.parametrize(
    ("algorithm", "where"),
    [(algorithm, where) for algorithm in ALGORITHMS for where in (*KILLED, *OWN.get(algorithm, ()))],
)
def test_killed(tmp_path, whole, algorithm, where, figures):
    moment = (KILLED | OWN.get(algorithm, {}))[where]
    process = start(tmp_path, *words(algorithm), before=interruptions.interrupted(moment, signal.SIGKILL))
    end(process, tmp_path, status=-signal.SIGKILL)
    assert (tmp_path / "interrupted").exists()
    kept = step_of(last_checkpoint(tmp_path / "run" / "checkpoints"))
    end(start(tmp_path, *words(algorithm)), tmp_path)
    different = same(tmp_path, whole(algorithm))
    figures("SIGKILL while reinforcing", run=algorithm, at=where, kept=f"step {kept}", differed=len(different))
    assert different == []


# --- errors at the third step -----------------------------------------------------------------------------------------

Late = Callable[[], bool]
"""Returns whether the second checkpoint is complete."""


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/folder/file")


def in_rollout(monkeypatch, late: Late, change: Callable) -> None:
    """Call `change` with the graded responses of the third step."""
    judge = RewardFunction.__call__

    def judged(self, *args, **kwargs):
        found = judge(self, *args, **kwargs)
        return change(found) if late() else found

    monkeypatch.setattr(RewardFunction, "__call__", judged)


def in_update(monkeypatch, late: Late, fail: Callable[[], None]) -> None:
    def training_step(self, *args, **kwargs):
        if late():
            fail()
        return super(ResumableCheckpoints, self).training_step(*args, **kwargs)

    monkeypatch.setattr(ResumableCheckpoints, "training_step", training_step, raising=False)


def in_checkpoint(monkeypatch, late: Late, fail: Callable[[], None]) -> None:
    mark_complete = checkpoints.mark_complete

    def sealed(folder: Path, kept: dict) -> None:
        if late():
            fail()
        mark_complete(folder, kept)

    monkeypatch.setattr(checkpoints, "mark_complete", sealed)


def earning(reward: float) -> Callable:
    return lambda graded: replace(graded, reward=reward)


FAULTS: dict[str, tuple[Callable, str]] = {
    "a reward that is NaN": (partial(in_rollout, change=earning(math.nan)), "step 3: the reward of "),
    "a reward that is infinite": (partial(in_rollout, change=earning(-math.inf)), "step 3: the reward of "),
    "out of memory in the rollout": (partial(in_rollout, change=lambda graded: out_of_memory()), "out of memory (CUDA"),
    "out of memory in the update": (partial(in_update, fail=out_of_memory), "out of memory (CUDA"),
    "a full disk in the rollout": (partial(in_rollout, change=lambda graded: full_disk()), "the disk is full"),
    "a full disk in a checkpoint": (partial(in_checkpoint, fail=full_disk), "the disk is full"),
}
"""Fault -> how it is caused, and the beginning of the line in which the run ends."""


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_in_one_line_and_the_run_goes_on(tltrain, tmp_path, monkeypatch, whole, figures, algorithm, fault):
    monkeypatch.chdir(tmp_path)
    asked = (*stage_recipes.in_process(recipe(algorithm)), "cache.dir=cache")
    folder, (happen, said) = tmp_path / "run", FAULTS[fault]
    second = folder / "checkpoints" / "checkpoint-2" / COMPLETE
    with pytest.MonkeyPatch.context() as patch:
        happen(patch, second.is_file)
        ran = tltrain(*asked, folder=folder, status=1)
    line = ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err and line.startswith(said), ran.err
    assert (folder / "error.txt").read_text() == line + "\n" and not (folder / "metrics.json").exists()
    kept = step_of(last_checkpoint(folder / "checkpoints"))
    assert kept == 2
    assert f"continuing from {second.parent}" in tltrain(*asked, folder=folder).err
    different = same(tmp_path, whole(algorithm))
    figures("Faults while reinforcing", run=algorithm, what=fault, kept=f"step {kept}", differed=len(different))
    assert different == []
