"""A clock that jumps: what is newest and how long something took does not depend on it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.launched_runs import SUPERVISED
from tests.support.small_runs import SMALL
from tltrain.training.checkpoints import ResumableCheckpoints
from tltrain.training.sft import TurnTrainer

WORDS = ("stage=sft", *SMALL, *SUPERVISED, "stage.args.save_steps=1", "stage.keep_checkpoints=true")


@pytest.fixture
def backwards(monkeypatch):
    """Each checkpoint's files are dated a day before those of the one before it."""
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
