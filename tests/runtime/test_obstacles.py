"""Why a folder cannot be created: a line before the run begins names the obstacle."""

from __future__ import annotations

import os

import pytest

from tltrain.runtime import runs


def test_a_folder_that_is_there_or_can_be_made_has_no_obstacle(tmp_path):
    assert runs.obstacle(tmp_path) is None
    assert runs.obstacle(tmp_path / "a" / "b" / ("x" * 255)) is None


def test_what_stands_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "lost").symlink_to(tmp_path / "gone")
    assert runs.obstacle(tmp_path / "file") == f"{tmp_path / 'file'} is a file"
    assert runs.obstacle(tmp_path / "file" / "run" / "x") == f"{tmp_path / 'file'} is a file"
    assert runs.obstacle(tmp_path / "lost" / "x").startswith(f"{tmp_path / 'lost'} is a link to {tmp_path / 'gone'}, ")
    assert runs.obstacle(tmp_path / ("é" * 128)) == "a name has 256 bytes, but file systems allow 255"


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_folder_without_permission_is_named(tmp_path, below, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write anywhere
    assert runs.obstacle(tmp_path / below) == f"no permission to write in {tmp_path}"
