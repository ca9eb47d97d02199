"""A run of stage=irm that is stopped and resumed ends exactly like an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import launched_runs
from tests.support.launched_runs import end
from tests.support.small_runs import ALGORITHMS, FEW, SMALL, reward_letters
from tltrain.runtime import runs
from tltrain.training import reward_function

KEPT = ("stage.args.save_steps=1", "stage.args.max_steps=4", "stage.samples_every=1", "stage.eval_size=1")
SOME = [word for word in FEW if "max_steps" not in word and "eval_size" not in word]


def steps(folder: Path) -> list[dict]:
    """Return the logged values of each step, without times."""
    entries = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in entry.items() if "second" not in k and k != "step_time"}
        for entry in entries
        if "loss" in entry
    ]


def assert_same(folder: Path, whole: Path) -> None:
    for name in ("model/model.safetensors", "samples.jsonl"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert steps(folder) == steps(whole)
    assert [entry["step"] for entry in steps(folder)] == [1, 2, 3, 4]
    metrics = [json.loads((path / "metrics.json").read_text()) for path in (folder, whole)]
    for name in ("before", "after", "steps", "mae"):
        assert metrics[0][name] == metrics[1][name], name
    assert not (folder / "checkpoints").exists()


# --- stopped inside this process ------------------------------------------------------------------------------------

WAYS = {
    "ppo": ALGORITHMS["ppo"],
    "ppo, two epochs": (*ALGORITHMS["ppo"], "stage.ppo_epochs=2"),
    "rloo": ALGORITHMS["rloo"],
    "grpo": ALGORITHMS["grpo"],
    "ppo, qwen3": (*ALGORITHMS["ppo"], "format=qwen3"),
}


@pytest.fixture
def stop_at(monkeypatch, undrawn):
    """`stop_at(step)`: send Ctrl-C once that step's samples are written; None: no longer."""
    write = reward_function.SampleLog.__call__

    def stop_at(last: int | None) -> None:
        def write_and_stop(self, step: int, judged) -> None:
            write(self, step, judged)
            if step == last:
                raise KeyboardInterrupt

        monkeypatch.setattr(reward_function.SampleLog, "__call__", write_and_stop)

    return stop_at


@pytest.mark.parametrize("way", [pytest.param(way, marks=() if way == "ppo" else pytest.mark.slow) for way in WAYS])
def test_a_stopped_run_goes_on(tltrain, tmp_path, monkeypatch, stop_at, way):
    monkeypatch.setattr(
        reward_function.RewardFunction, "__call__", reward_letters
    )  # so that the groups' rewards differ, and all of them learn
    words = ["stage=irm", *SMALL, *SOME, *KEPT, *WAYS[way]]
    whole = tltrain(*words)
    base = Path(whole.metrics["base_model"])
    assert (whole.folder / "model" / "model.safetensors").read_bytes() != (base / "model.safetensors").read_bytes()
    stop_at(3)
    folder = tmp_path / "stopped"
    stopped = tltrain(*words, folder=folder, status=130)
    assert not (folder / "metrics.json").exists()
    assert any(row["step"] == 3 for row in stopped.lines("samples.jsonl"))
    stop_at(None)
    resumed = tltrain(*words, "stage.resume=true", folder=folder)
    assert f"continuing from {folder / 'checkpoints' / 'checkpoint-2'}" in (folder / "tltrain.log").read_text()
    assert_same(resumed.folder, whole.folder)


def test_without_resume_a_run_begins_anew_in_the_same_folder(tltrain, tmp_path, stop_at):
    words = ["stage=irm", *SMALL, *SOME, *KEPT, *ALGORITHMS["ppo"]]
    stop_at(2)
    folder = tmp_path / "stopped"
    tltrain(*words, folder=folder, status=130)
    assert (folder / "checkpoints" / "checkpoint-1" / "complete.json").is_file()
    (folder / "before.json").write_text('{"n": 7}')
    stop_at(1)
    tltrain(*words, folder=folder, status=130)
    assert not (folder / "checkpoints" / "checkpoint-1").exists()
    assert json.loads((folder / "before.json").read_text())["n"] == 1
    assert {json.loads(line)["step"] for line in (folder / "samples.jsonl").read_text().splitlines()} == {1}


def test_a_run_goes_on_from_the_checkpoint_of_another(tltrain, tmp_path, stop_at):
    words = ["stage=irm", *SMALL, *SOME, *KEPT, *ALGORITHMS["ppo"]]
    stop_at(3)
    tltrain(*words, folder=tmp_path / "stopped", status=130)
    stop_at(None)
    checkpoint = tmp_path / "stopped" / "checkpoints" / "checkpoint-2"
    ran = tltrain(*words, f"++stage.args.resume_from_checkpoint={checkpoint}")
    assert {row["step"] for row in ran.lines("samples.jsonl")} == {3, 4}
    assert ran.metrics["steps"] == 4 and checkpoint.is_dir()


def test_resuming_without_a_checkpoint_starts_from_scratch(tltrain, tmp_path):
    words = ["stage=irm", *SMALL, *FEW, *ALGORITHMS["ppo"], "stage.eval_size=0"]
    ran = tltrain(*words, "stage.resume=true")
    assert "there is no complete checkpoint in" in ran.err and ran.metrics["steps"] == 2


# --- killed ---------------------------------------------------------------------------------------------------------


def dying_while_writing() -> None:
    """Kill the run when the weights of checkpoint 3 are half written."""
    write = runs.write_json

    def write_or_die(path: Path, value: object) -> None:
        if path.name == "complete.json" and path.parent.name == "checkpoint-3":
            (path.parent / "policy" / "model.safetensors").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, value)

    runs.write_json = write_or_die


def start(home: Path, cache: Path, *words: str, before: Callable[[], None] | None = None) -> Any:
    """Start `python -m tltrain stage=irm ...` in its own process, with the run folder `home/run`."""
    given = [
        *SMALL,
        *SOME,
        *KEPT,
        *ALGORITHMS["ppo"],
        "tracking=none",
        "certify=0",
        "hardware.threads=1",
        "hydra.run.dir=run",
    ]
    return launched_runs.start(home, "stage=irm", *given, f"cache.dir={cache}", *words, before=before)


@pytest.fixture(scope="module")
def whole(once, models_cache) -> Path:
    """The folder of an uninterrupted run."""

    def make(home: Path) -> Path:
        end(start(home, models_cache), home)
        return home / "run"

    return once("irm not interrupted", make)


@pytest.mark.slow
def test_a_run_killed_between_steps_goes_on(whole, tmp_path, models_cache):
    process = start(tmp_path, models_cache)
    mark = tmp_path / "run" / "checkpoints" / "checkpoint-2" / "complete.json"
    deadline = time.monotonic() + 120
    while not mark.is_file() and time.monotonic() < deadline and process.is_alive():
        time.sleep(0.001)
    process.kill()
    end(process, tmp_path, -signal.SIGKILL)
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert "continuing from" in end(start(tmp_path, models_cache, "stage.resume=true"), tmp_path)
    assert_same(tmp_path / "run", whole)


@pytest.mark.slow
def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(whole, tmp_path, models_cache):
    end(start(tmp_path, models_cache, before=dying_while_writing), tmp_path, -signal.SIGKILL)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"checkpoint-2", "checkpoint-3"}
    said = end(start(tmp_path, models_cache, "stage.resume=true"), tmp_path)
    assert f"continuing from {checkpoints / 'checkpoint-2'}" in said
    assert_same(tmp_path / "run", whole)
