"""A full or read-only disk: one clear line, complete files stay, and once there is room the run continues."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.command_line import command_line
from tests.support.launched_runs import ALWAYS, RECIPES, SUPERVISED, end, same, start
from tests.support.small_runs import SMALL
from tltrain.runtime import runs
from tltrain.training import checkpoints
from tltrain.training.checkpoints import last_checkpoint

FULL = "the disk is full"
PROMISE = "whatever was complete is kept, and the same command with stage.resume=true continues from it"


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/folder/file")


# --- in this process ------------------------------------------------------------------------------------------------


def last_line(ran) -> str:
    assert "Traceback" not in ran.err
    return ran.err.splitlines()[-1]


def test_a_file_that_finds_no_room(tltrain, monkeypatch):
    monkeypatch.setattr(runs.os, "replace", no_space)
    ran = tltrain("stage=mae", "data.size=2", status=1)
    line = last_line(ran)
    assert line.startswith(
        f"{FULL} at /some/folder (No space left on device): free some space or put the run elsewhere"
    )
    assert not (ran.folder / "metrics.json").exists() and not list(ran.folder.glob(".*.part"))


@pytest.mark.parametrize("words", [["stage=sft", *SUPERVISED, "stage.args.save_steps=1"]], ids=["sft"])
def test_a_checkpoint_that_finds_no_room(tltrain, monkeypatch, words, tmp_path):
    """The previous checkpoint stays; the partly written one is removed, which makes room for the message."""
    folder, mark_complete = tmp_path / "run", checkpoints.mark_complete
    whole = tltrain(*words, *SMALL)

    def mark_or_not(place: Path, kept: dict) -> None:
        if place.name == "checkpoint-3":
            no_space()
        mark_complete(place, kept)

    monkeypatch.setattr(checkpoints, "mark_complete", mark_or_not)
    assert last_line(tltrain(*words, *SMALL, folder=folder, status=1)).startswith(FULL)
    assert [path.name for path in (folder / "checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]
    monkeypatch.setattr(checkpoints, "mark_complete", mark_complete)
    ran = tltrain(*words, *SMALL, "stage.resume=true", folder=folder)
    assert f"continuing from {folder / 'checkpoints' / 'checkpoint-2'}" in ran.err
    for name in ("model/model.safetensors", "model/tokenizer.json"):
        assert (ran.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_model_that_finds_no_room_is_not_under_its_name(tltrain, monkeypatch):
    tltrain("stage=sft", *SMALL, *SUPERVISED)  # prepares the base model
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", no_space)
    words = ["stage.args.save_strategy=no"]  # a checkpoint holds the tokenizer too
    ran = tltrain("stage=sft", *SMALL, *SUPERVISED, *words, status=1)
    assert last_line(ran).startswith(FULL)
    assert not (ran.folder / "model").exists()


# --- limits of the operating system ---------------------------------------------------------------------------------


def limited(size: int) -> None:
    """Limit every file to `size` bytes: any user may set this limit, unlike fill a disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
def test_files_that_may_not_become_large(tmp_path):
    words = (*ALWAYS, *RECIPES["sft"])
    end(start(tmp_path / "whole", *words), tmp_path / "whole")
    home = tmp_path / "limited"
    shutil.copytree(tmp_path / "whole" / "cache", home / "cache")
    size = max(file.stat().st_size for file in (tmp_path / "whole" / "run" / "model").iterdir())
    said = end(start(home, *words, before=partial(limited, size - 1000)), home, status=1)
    assert said.splitlines()[-1].startswith(FULL) and said.splitlines()[-1].endswith(PROMISE)
    assert "Traceback" not in said
    assert not (home / "run" / "model").exists() and last_checkpoint(home / "run" / "checkpoints") is None
    end(start(home, *words), home)
    assert same(home, tmp_path / "whole") == []


@pytest.fixture
def small_disk(tmp_path):
    """`small_disk(KiB) -> folder`: a file system of that size, if this user may mount one."""
    mounted = []

    def mount(size: int) -> Path:
        place = tmp_path / "disk"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this user may not mount a file system; the test with a limit on files stands for this one")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        for _ in range(50):
            if subprocess.run(["umount", str(place)], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)


@pytest.mark.parametrize(
    "recipe", [pytest.param("irm", marks=pytest.mark.slow), pytest.param("sft", marks=pytest.mark.faults)]
)
def test_a_disk_that_fills_up_while_training(tmp_path, small_disk, recipe):
    """There is room for the base model and two checkpoints; all are kept, so there is none for the third."""
    many = ("stage.args.save_total_limit=null", "stage.keep_checkpoints=true")
    words = (*ALWAYS, *RECIPES[recipe], *many)
    end(start(tmp_path / "whole", *words), tmp_path / "whole")
    whole = tmp_path / "whole"
    one = used(whole / "run" / "checkpoints" / "checkpoint-1")
    disk = small_disk(used(whole / "cache") + 2 * one + one // 2)
    home = disk / "home"
    said = end(start(home, *words), home, status=1)
    line = next(line for line in reversed(said.splitlines()) if line.startswith(FULL))
    assert line.endswith(PROMISE) and "Traceback" not in said
    found = last_checkpoint(home / "run" / "checkpoints")
    assert found is not None and not (home / "run" / "metrics.json").exists()
    freed = tmp_path / "freed"  # "free some space"
    shutil.copytree(home, freed, ignore=shutil.ignore_patterns("said"))
    assert f"checkpoints/{found.name}" in end(start(freed, *words), freed)
    assert same(freed, whole) == []


def used(folder: Path) -> int:
    """Return the KiB of a folder's files, as a file system counts them."""
    return sum(-(-file.stat().st_size // 4096) * 4 for file in folder.rglob("*") if file.is_file())


# --- folders that cannot be written ---------------------------------------------------------------------------------


def test_a_run_folder_that_cannot_be_made(tltrain, tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run"
    (line,) = tltrain("stage=mae", "data.size=2", folder=folder, status=1).err.splitlines()
    assert line == f"hydra.run.dir={folder} cannot be created: {tmp_path / 'file'} is a file"


@pytest.mark.parametrize("what", ["hydra.run.dir", "cache.dir"])
def test_a_read_only_folder(tmp_path, small_disk, what):
    """Even root cannot write to a file system that is mounted read-only."""
    disk = small_disk(64)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    given = {"hydra.run.dir": str(tmp_path / "run"), "cache.dir": str(tmp_path / "cache"), what: str(disk / "x")}
    words = ["stage=sft", *SMALL, "data.size=4", "tracking=none", *(f"{key}={value}" for key, value in given.items())]
    ran = command_line(*words, folder=tmp_path, cache=tmp_path)
    assert ran.status == 1
    line = last_line(ran)
    assert line == f"{what}={disk / 'x'} cannot be created: {disk} is on a read-only file system"
