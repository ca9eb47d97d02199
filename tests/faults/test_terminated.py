"""SIGTERM: a checkpoint at the next step, exit status 143; the same command continues as if nothing had happened."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.support import interruptions, stage_recipes
from tests.support.amounts import amount
from tests.support.launched_runs import ALWAYS, RECIPES, end, marking_steps, same, start, steps
from tests.support.paths import ROOT
from tests.support.small_runs import TRAINED
from tltrain import config
from tltrain.entry import launch
from tltrain.runtime import json_files, preemption
from tltrain.training.checkpoints import COMPLETE, last_checkpoint, step_of

PATIENCE = 30.0
"""Maximum seconds between the signal and the end."""


# --- the handler ----------------------------------------------------------------------------------------------------


def test_at_once_where_nothing_is_trained():
    with pytest.raises(preemption.Preempted, match=r"stopped by SIGTERM \(exit status 143\)"), preemption.handled():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("the signal was not handled")


def test_later_where_something_is_trained():
    done = []
    with pytest.raises(preemption.Preempted), preemption.handled(), preemption.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.asked()
        os.kill(os.getpid(), signal.SIGTERM)  # a scheduler's second signal changes nothing
        done.append("the step")
    assert done == ["the step"]


def test_afterwards_everything_is_as_before():
    before, threads = signal.getsignal(signal.SIGTERM), threading.enumerate()
    with preemption.handled():
        assert signal.getsignal(signal.SIGTERM) is not before
        with preemption.handled(), preemption.deferred():
            pass
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    left = [thread for thread in threading.enumerate() if thread not in threads]  # tests before this one have their own
    assert not any(isinstance(thread, threading.Timer) for thread in left if thread.is_alive())


def closed_generator() -> None:
    def generator():
        try:
            yield
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            len("")

    next(generator())  # nothing refers to it


def deleted_object() -> None:
    class Deleted:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            len("")

    Deleted()


def collected_garbage() -> None:
    def killed(phase, info) -> None:
        gc.callbacks.remove(killed)
        os.kill(os.getpid(), signal.SIGTERM)
        len("")

    gc.callbacks.append(killed)
    gc.collect()


@pytest.mark.parametrize("discard", [closed_generator, deleted_object, collected_garbage])
def test_where_python_discards_exceptions_it_comes_again(discard, capsys):
    hook, began = sys.unraisablehook, time.monotonic()
    with pytest.raises(preemption.Preempted), preemption.handled():
        discard()
        time.sleep(5)
    assert time.monotonic() - began < 4
    assert sys.unraisablehook is hook and capsys.readouterr().err == ""


def test_other_exceptions_that_python_discards_are_told_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda discarded: told.append(discarded.exc_type))

    class Deleted:
        def __del__(self) -> None:
            raise KeyError

    with preemption.handled():
        Deleted()
    assert told == [KeyError]


def test_outside_the_main_thread_nothing_is_changed():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def job() -> None:
        with preemption.handled():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert seen == [before]


def test_it_is_no_failure():
    """Code that catches errors, of a job in a sweep or of a tracker, lets it through."""
    assert not issubclass(preemption.Preempted, Exception)


# --- runs -----------------------------------------------------------------------------------------------------------

WORDS = {
    **{recipe: (*ALWAYS, *RECIPES[recipe]) for recipe in ("sft", "pkt", "irm", "pipeline", "sweep")},
    **{name: (*ALWAYS, *stage_recipes.VARIANTS[name]) for name in ("rloo", "grpo")},
}
SELDOM = {"pipeline": ("stage.supervised.args.save_steps=100", "stage.rl.args.save_steps=100")}
"""Further words, with which only the signal makes a checkpoint."""


def terminated(home: Path, words: tuple[str, ...], at: int) -> tuple[float, str]:
    """Send a run SIGTERM in its step `at` + 1; return (seconds from the signal to the end, its output)."""
    process = start(home, *words, before=partial(marking_steps, 0.05))
    deadline = time.monotonic() + 120
    while steps(home) < at:
        assert process.is_alive() and time.monotonic() < deadline, (home / "said").read_text()
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGTERM)
    sent = time.monotonic()
    said = end(process, home, status=143, timeout=PATIENCE + 5)
    return time.monotonic() - sent, said


@pytest.mark.parametrize(
    "kind",
    [
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("pkt", "irm")),
        *(pytest.param(kind, marks=pytest.mark.faults) for kind in ("sft", "rloo", "grpo")),
    ],
)
def test_a_training_saves_and_goes_on(tmp_path, kind, figures):
    words = (*WORDS[kind], "stage.args.save_steps=100")
    end(start(tmp_path / "whole", *words), tmp_path / "whole")
    home = tmp_path / "stopped"
    seconds, said = terminated(home, words, at=2)
    assert seconds < PATIENCE
    found = last_checkpoint(home / "run" / "checkpoints")
    assert found is not None and step_of(found) in (2, 3)
    line = said.splitlines()[-1]
    assert line.startswith("stopped by SIGTERM: ") and line.endswith("(exit status 143)")
    assert f"checkpoints/{found.name} is saved, and the same command with stage.resume=true continues from it" in line
    assert not (home / "run" / "error.txt").exists() and not (home / "run" / "metrics.json").exists()
    assert f"continuing from run/checkpoints/{found.name}" in _unabsolute(end(start(home, *words), home), home)
    assert same(home, tmp_path / "whole") == []
    figures("SIGTERM while training", run=kind, seconds=f"{seconds:.1f}", status=143, differed=0)


def _unabsolute(text: str, home: Path) -> str:
    return text.replace(f"{home}/", "")


@pytest.mark.slow
def test_a_pipeline_goes_on_within_its_stage(tmp_path):
    words = (*WORDS["pipeline"], *SELDOM["pipeline"])
    end(start(tmp_path / "whole", *words), tmp_path / "whole")
    home = tmp_path / "stopped"
    seconds, said = terminated(home, words, at=3)
    assert seconds < PATIENCE
    assert "is saved, and the same command continues from it (exit status 143)" in said
    (complete,) = (home / "cache" / "stages").glob(f"*/checkpoints/*/{COMPLETE}")
    assert not (complete.parents[2] / "entry.json").exists()
    assert "continuing from" in end(start(home, *words), home)
    assert same(home, tmp_path / "whole") == []


@pytest.mark.slow
def test_a_sweep_ends_and_nothing_is_marked_as_failed(tmp_path):
    words = ("-m", *WORDS["sft"], "seed=0,1,2", "hydra.sweep.dir=run")
    seconds, said = terminated(tmp_path, words, at=2)
    assert seconds < PATIENCE
    jobs = {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()}
    assert jobs == {"0"}  # the others were not started
    assert not list(tmp_path.rglob("error.txt")) and "failed" not in said
    assert not (tmp_path / "run" / "sweep.json").exists()
    (tmp_path / "step").unlink()
    end(start(tmp_path, *words), tmp_path)
    assert all((tmp_path / "run" / job / "metrics.json").is_file() for job in ("0", "1", "2"))


# --- every stage of the registry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", config.STAGES)
def test_a_stage_is_stopped_in_one_line(tltrain, tmp_path, monkeypatch, stage):
    """The signal arrives as soon as the stage runs."""
    stage_recipes.prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    run_at = launch.resolve

    def stopped_at_once(name: str):
        def run(cfg, folder):
            os.kill(os.getpid(), signal.SIGTERM)
            return run_at(name)(cfg, folder)

        return run if name == f"{config.stage_module(stage)}:run" else run_at(name)

    monkeypatch.setattr(launch, "resolve", stopped_at_once)
    ran = tltrain(*stage_recipes.in_process(stage), folder=tmp_path / "run", status=143)
    assert ran.err.splitlines()[-1] == "stopped by SIGTERM (exit status 143)" and "Traceback" not in ran.err
    assert not (ran.folder / "metrics.json").exists() and not (ran.folder / "error.txt").exists()


@pytest.mark.faults
@pytest.mark.parametrize("name", stage_recipes.NAMES)
def test_stopped_at_any_call_of_a_function_a_run_goes_on(tmp_path, name, figures, run_once):
    """Nothing is half-written or left running, and the same command ends as if it had not been stopped."""
    words, count = stage_recipes.words_of(name), amount("moments")
    trained = run_once(*TRAINED).folder / "model" if stage_recipes.TRAINED in words else None
    whole = tmp_path / "whole"
    stage_recipes.prepare(whole, trained)
    end(start(whole, *words, before=interruptions.counting), whole)
    slowest, status, wrong = 0.0, [], []
    for number, moment in enumerate(interruptions.moments(whole, count, name)):
        home = tmp_path / str(number)
        stage_recipes.prepare(home, trained)
        process = start(home, *words, before=interruptions.interrupted(moment))
        while process.is_alive() and not (home / "interrupted").exists():
            time.sleep(0.001)
        sent = time.monotonic()
        process.join(PATIENCE + 60)
        slowest = max(slowest, time.monotonic() - sent)
        status.append(process.exitcode)
        wrong += [f"{moment}: {what}" for what in _left_wrong(home, process)]
        end(start(home, *words), home)
        if name == "cache":  # the repetition cannot find what the stopped run removed
            wrong += [f"{moment}: {path} is left" for path in (home / "cache" / "stages").glob("*-*")]
        else:
            wrong += [f"{moment}: {what} differs" for what in same(home, whole)]
        wrong += [f"{moment}: {path} is left" for path in home.rglob("*.part")]
    figures(
        "SIGTERM at any call of a function, the same command repeated",
        run=name,
        moments=len(status),
        **{"status 143": status.count(143), "slowest end": f"{slowest:.1f} s", "wrong": len(wrong)},
    )
    assert not wrong, "\n".join(wrong)


def _left_wrong(home: Path, process) -> list[str]:
    """Return what a run stopped by SIGTERM should not have left."""
    said = (home / "said").read_text(errors="replace")
    wrong = [f"left running: {number}" for number in interruptions.processes_of(process.pid)]
    if process.exitcode != 143 or "Traceback" in said or "ignored in" in said:
        wrong.append(f"exit status {process.exitcode}: {said[-2000:]}")
    if not said.splitlines()[-1].endswith("(exit status 143)"):
        wrong.append(f"last line: {said.splitlines()[-1]}")
    wrong += [f"{path} is left" for path in (home / interruptions.TEMPORARY).iterdir()]
    wrong += [f"{path} is left" for path in home.rglob("error.txt")]
    for file in home.rglob("*.json"):
        try:
            json_files.read(file)
        except ValueError:
            wrong.append(f"{file} is half-written")
    return wrong


@pytest.mark.faults
@pytest.mark.parametrize("what", ["before.json", "model"])
def test_outside_training_a_run_ends_at_once(tmp_path, what):
    """The signal arrives while held-out questions are asked before or after training."""
    words = (*ALWAYS, *RECIPES["irm"], "stage.eval_size=2")
    process = start(tmp_path, *words)
    while not (tmp_path / "run" / what).exists():
        assert process.is_alive()
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGTERM)
    process.join(PATIENCE)
    assert process.exitcode in (143, 0)  # 0: it had finished everything
    end(start(tmp_path, *words), tmp_path)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["steps"] == 4


@pytest.mark.faults
@pytest.mark.parametrize("engine", [(), ("hardware=zero2", "hardware.device=cpu")], ids=["ddp", "zero2"])
def test_two_processes_save_together(tmp_path, engine):
    """The signal is sent only to the process that the user started, which passes it on to the workers."""
    words = [*WORDS["sft"], "stage.args.num_train_epochs=40", "hardware.processes=2", *engine]
    command = [sys.executable, "-m", "tltrain", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    how = {"cwd": tmp_path, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, **how)
    checkpoints, deadline = tmp_path / "run" / "checkpoints", time.monotonic() + 300
    while last_checkpoint(checkpoints) is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert time.monotonic() - sent < PATIENCE
    found = last_checkpoint(checkpoints)
    assert f"{found.name} is saved" in said and "Traceback" not in said
    other = f"stage.args.max_steps={step_of(found) + 1}"
    again = subprocess.run([*command, other], **how, timeout=300)
    assert again.returncode == 1 and "was made with different values of stage.args.max_steps" in again.stdout, (
        again.stdout
    )
    named = [other, "stage.resume=false", f"stage.args.resume_from_checkpoint={found}"]
    again = subprocess.run([*command, *named], **how, timeout=300)
    assert again.returncode == 0 and f"continuing from {found}" in again.stdout, again.stdout


def test_the_recipes_are_runs_that_can_be_resumed():
    assert all("stage.resume=true" in WORDS[kind] for kind in ("sft", "pkt", "irm", "rloo", "grpo"))


# --- a finished run ---------------------------------------------------------------------------------------------------


def test_the_picture_of_a_finished_run_is_drawn_before_it_ends(monkeypatch, tmp_path):
    def draw(cfg, folder, metrics):
        os.kill(os.getpid(), signal.SIGTERM)
        (folder / "picture").touch()

    monkeypatch.setattr(launch, "resolve", lambda name: draw)
    cfg = OmegaConf.create({"stage": {"name": "pkt"}})
    with pytest.raises(preemption.Preempted), preemption.handled():
        launch.show(cfg, tmp_path, {})
    assert (tmp_path / "picture").is_file()


def test_a_picture_is_drawn_completely_or_not_at_all(monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    from tltrain.views import plots

    def stopped(figure, path, **how):
        path.write_bytes(b"half")
        raise preemption.Preempted

    monkeypatch.setattr(Figure, "savefig", stopped)
    with pytest.raises(preemption.Preempted):
        plots.bar_chart(tmp_path / "bars.png", {"a": 1}, "title", "unit")
    assert not list(tmp_path.iterdir())
