"""Two runs in one folder: the second says who is using it and changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir

from tests.support.composition import quick
from tltrain import config
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
    """Another process that runs in `tmp_path / "run"`."""
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "there\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_run_ends_in_one_line(tltrain, tmp_path, holder):
    folder = tmp_path / "run"
    (line,) = tltrain(*WORDS, folder=folder, status=1).err.splitlines()
    assert line.startswith(f"another run is in progress in {folder} (process {holder.pid} on ")
    assert line.endswith("wait for it, or give another hydra.run.dir (for a sweep: hydra.sweep.dir)")
    assert {path.name for path in folder.iterdir()} == {".lock"}  # Hydra has not written anything either


def test_the_second_sweep_ends_in_one_line(tltrain, tmp_path, holder):
    words = ["-m", *WORDS, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'run'}"]
    (line,) = tltrain(*words, status=1).err.splitlines()
    assert line.startswith(f"another run is in progress in {tmp_path / 'run'} (process {holder.pid} on ")
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
    with pytest.raises(TltrainError, match=rf"another run is in progress in {tmp_path} \(process {os.getpid()} on "):
        runs.claim(tmp_path)
    runs.release()
    runs.claim(tmp_path)
    runs.release()


# --- another stage, and places that are not for runs ------------------------------------------------------------------


def test_another_stage_into_a_finished_run_s_folder_is_refused_unless_told(tltrain, tmp_path):
    folder = tmp_path / "run"
    tltrain(*WORDS, folder=folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    words = ["stage=cache", f"cache.dir={tmp_path / 'cache'}"]
    (line,) = tltrain(*words, folder=folder, status=1).err.splitlines()
    assert line == (
        f"{folder} has the finished run of stage=mae: give stage=cache another hydra.run.dir, or overwrite=true to "
        "write among its files"
    )
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    link = tmp_path / "latest"
    link.symlink_to(folder)
    assert "has the finished run of stage=mae" in tltrain(*words, folder=link, status=1).err
    assert "has the finished run of stage=mae" in tltrain("stage=sft", "stage.resume=true", folder=folder, status=1).err
    tltrain(*words, "overwrite=true", folder=folder)
    assert json.loads((folder / "metrics.json").read_text())["entries"] == 0 and (folder / "train.jsonl").is_file()


def test_an_unfinished_run_of_another_stage_is_no_obstacle(tltrain, tmp_path):
    tltrain("stage=mae", "data=openai", "data.path=/no", folder=tmp_path / "run", status=1)
    tltrain("stage=cache", f"cache.dir={tmp_path / 'cache'}", folder=tmp_path / "run")


def test_another_stage_into_the_folder_of_a_job_is_refused(tltrain, tmp_path):
    """The sweep's table does not show the numbers of the earlier run either."""
    sweep = f"hydra.sweep.dir='{tmp_path / 'sweep'}'"
    tltrain("-m", *WORDS, "seed=0,1", sweep)
    tltrain("-m", *WORDS, "seed=0,1", sweep)  # the same stage again is allowed
    ran = tltrain("-m", "stage=cache,mae", "data.size=2", sweep, status=1)
    assert f"{tmp_path / 'sweep' / '0'} has the finished run of stage=mae" in ran.err
    assert "job 1 of 2 failed" in ran.err and "job 2 of 2 done" in ran.err
    assert (tmp_path / "sweep" / "0" / "metrics.json").is_file()


@pytest.mark.parametrize("place", ["cache", "cache/run", "cache/stages/pkt-0123456789abcdef", "link/run"])
def test_a_run_inside_the_cache_is_refused(tltrain, tmp_path, place):
    (tmp_path / "cache" / "stages").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "cache" / "stages")
    here = f"cache.dir={tmp_path / 'cache'}"
    (line,) = tltrain(*WORDS, here, folder=tmp_path / place, status=1).err.splitlines()
    assert line.startswith(f"{tmp_path / place} is inside the cache (cache.dir={tmp_path / 'cache'}): give another")
    (line,) = tltrain("-m", *WORDS, here, f"hydra.sweep.dir={tmp_path / place}", status=1).err.splitlines()
    assert "is inside the cache" in line
    assert [path.name for path in (tmp_path / "cache").rglob("*")] == ["stages"]


@pytest.mark.parametrize("stage", sorted(config.STAGES))
def test_by_default_no_run_is_inside_the_cache(stage):
    """`outputs/STAGE` would be inside it for stage=cache."""
    config.register()
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3", job_name="tltrain"), quick():
        cfg = compose("config", [f"stage={stage}"], return_hydra_config=True)
    runs.check_place(Path(cfg.hydra.run.dir), cfg)
    runs.check_place(Path(cfg.hydra.sweep.dir), cfg)
    assert stage == "cache" or cfg.hydra.run.dir.startswith(f"outputs/{stage}/")


@pytest.mark.parametrize("words", [["stage=cache", "stage.prune=all"], ["stage=mae"]])
def test_a_cache_without_a_folder_is_refused(tltrain, words):
    ran = tltrain(*words, "cache.dir=", status=1)
    assert ran.err.splitlines() == ["cache.dir: expected a value, found nothing; leave the key out to get its default"]
