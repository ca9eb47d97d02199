"""`latest` points at the newest finished run of a stage, and at nothing a user did not expect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tltrain.runtime import runs


def folder(tmp_path: Path, *parts: str) -> Path:
    made = tmp_path.joinpath(*parts)
    made.mkdir(parents=True)
    return made


def test_the_newest_run_replaces_the_previous_one(tmp_path):
    for time in ("2024-01-31_09-00-00", "2024-01-31_09-00-01"):
        made = folder(tmp_path, "outputs", "pkt", time)
        runs.link_latest(made)
        assert (made.parent / "latest").readlink() == Path(time)
    assert {path.name for path in made.parent.iterdir()} == {"2024-01-31_09-00-00", "2024-01-31_09-00-01", "latest"}


@pytest.mark.parametrize("parts", [("outputs", "pkt", "mine"), ("elsewhere", "pkt", "2024-01-31_09-00-00")])
def test_nothing_is_put_beside_a_folder_that_the_user_chose(tmp_path, parts):
    made = folder(tmp_path, *parts)
    runs.link_latest(made)
    assert list(made.parent.iterdir()) == [made]


def test_a_folder_of_the_user_s_that_is_called_latest_stays(tmp_path):
    made, own = folder(tmp_path, "outputs", "pkt", "2024-01-31_09-00-00"), folder(tmp_path, "outputs", "pkt", "latest")
    runs.link_latest(made)
    assert own.is_dir() and not own.is_symlink()


def test_of_several_processes_the_first_alone_makes_it(tmp_path, monkeypatch):
    made = folder(tmp_path, "outputs", "pkt", "2024-01-31_09-00-00")
    monkeypatch.setattr(runs.distributed, "leads", lambda: False)
    runs.link_latest(made)
    assert list(made.parent.iterdir()) == [made]


@pytest.mark.parametrize("failing", ["symlink_to", "replace"])
def test_where_no_link_can_be_made_the_run_ends_well(tmp_path, monkeypatch, failing):
    def refuse(*args, **kwargs):
        raise OSError("operation not permitted")

    monkeypatch.setattr(*((Path, "symlink_to") if failing == "symlink_to" else (runs.os, "replace")), refuse)
    made = folder(tmp_path, "outputs", "pkt", "2024-01-31_09-00-00")
    runs.link_latest(made)
    assert list(made.parent.iterdir()) == [made]


def test_a_failed_run_and_one_elsewhere_leave_the_link_as_it_is(tltrain, tmp_path):
    words, stage = ("stage=mae", "stage.mae=false", "data.size=2"), tmp_path / "outputs" / "mae"
    tltrain(*words, folder=stage / "2024-01-31_09-00-00")
    tltrain(*words, "data=tl_training", "data.path=/no", folder=stage / "2024-01-31_09-00-01", status=1)
    tltrain(*words, folder=stage / "mine")
    assert (stage / "latest").readlink() == Path("2024-01-31_09-00-00")
    assert (stage / "latest" / "metrics.json").is_file()


def test_a_sweep_has_a_link_too(tltrain, tmp_path):
    sweep = tmp_path / "outputs" / "sweep" / "2024-01-31_09-00-00"
    tltrain("-m", "stage=mae", "stage.mae=true,false", "data.size=2", f"hydra.sweep.dir='{sweep}'")
    assert (sweep.parent / "latest").readlink() == Path(sweep.name)
    assert not (sweep / "latest").exists()
