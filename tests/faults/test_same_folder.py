"""Two runs in one folder: the second says who is there and leaves everything as it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from filelock import FileLock

from tltrain.errors import TltrainError
from tltrain.runtime import runs

HOLDING = """
import sys, time
from pathlib import Path
from tltrain.runtime import runs
runs.claim(Path(sys.argv[1]))
print("there", flush=True)
time.sleep(60)
"""
WORDS = ("stage=mae", "data.size=2")


@pytest.fixture
def holder(tmp_path):
    """Another process that runs into `tmp_path / "run"`."""
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "there\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_run_ends_in_one_line(tltrain, tmp_path, holder):
    folder = tmp_path / "run"
    (line,) = tltrain(*WORDS, folder=folder, status=1).err.splitlines()
    assert line.startswith(f"another run is going on in {folder} (process {holder.pid} on ")
    assert line.endswith("wait for it, or give another hydra.run.dir (of a sweep: hydra.sweep.dir)")
    assert {path.name for path in folder.iterdir()} == {".lock"}  # nor has Hydra written anything


def test_the_second_sweep_ends_in_one_line(tltrain, tmp_path, holder):
    words = ["-m", *WORDS, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'run'}"]
    (line,) = tltrain(*words, status=1).err.splitlines()
    assert line.startswith(f"another run is going on in {tmp_path / 'run'} (process {holder.pid} on ")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock"}


def test_a_dead_run_holds_nothing(tltrain, tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert tltrain(*WORDS, folder=tmp_path / "run").metrics["trajectories"] == 2


def test_one_run_after_another_is_no_conflict(tltrain, tmp_path):
    for _ in range(2):
        tltrain(*WORDS, folder=tmp_path / "run")
    with FileLock(tmp_path / "run" / ".lock", timeout=0):
        pass


def test_a_claim_is_let_go(tmp_path):
    runs.claim(tmp_path)
    with pytest.raises(TltrainError, match=rf"another run is going on in {tmp_path} \(process {os.getpid()} on "):
        runs.claim(tmp_path)
    runs.release()
    runs.claim(tmp_path)
    runs.release()
