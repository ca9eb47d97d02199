"""What is passed on of a model's folder: no link out of it, and nothing that a Trainer keeps to resume."""

from __future__ import annotations

import os

import pytest

from tltrain.errors import TltrainError
from tltrain.serving import model_files


@pytest.fixture
def model(tmp_path):
    """A model's folder in a folder with something private."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "chats.jsonl").write_text("private")
    return folder


def test_a_folder_and_links_within_it_are_fine(model):
    (model / "again.json").symlink_to("config.json")
    model_files.check(model)
    (model.parent / "link").symlink_to(model)
    model_files.check(model.parent / "link")


@pytest.mark.parametrize("target", ["../private", "../private/chats.jsonl", "nowhere", "/etc/hostname", "."])
def test_a_link_out_of_the_folder_is_refused_and_named(model, target):
    (model / "data").symlink_to(target)
    with pytest.raises(TltrainError) as error:
        model_files.check(model)
    assert f"{model}/data is a link to {target}, which is not in the model's folder: put a copy" in str(error.value)


def test_a_snapshot_of_the_hub_consists_of_links(tmp_path):
    blobs, snapshot = tmp_path / "models--o--n" / "blobs", tmp_path / "models--o--n" / "snapshots" / "0a1b"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    (blobs / "abc").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    model_files.check(snapshot)
    (snapshot / "more.json").symlink_to("../../../abc")
    with pytest.raises(TltrainError, match="is a link"):
        model_files.check(snapshot)


def test_a_pipe_is_refused(model):
    os.mkfifo(model / "pipe")
    with pytest.raises(TltrainError, match="pipe: expected a file"):
        model_files.check(model)


def test_a_run_is_not_taken_for_its_model(model):
    with pytest.raises(TltrainError) as error:
        model_files.check(model.parent)
    assert f"which has config.json or adapter_config.json; did you mean {model}?" in str(error.value)


def test_what_a_trainer_keeps_is_left_out_and_may_hold_links(model):
    (model / "checkpoint-10").mkdir()
    (model / "checkpoint-10" / "data").symlink_to("../../private")
    for name in ("optimizer.pt", "training_args.bin", "rng_state_0.pth", "trainer_state.json"):
        (model / name).touch()
    model_files.check(model)
    found = ["checkpoint-10", "optimizer.pt", "rng_state_0.pth", "trainer_state.json", "training_args.bin"]
    assert model_files.left_out(model) == found
