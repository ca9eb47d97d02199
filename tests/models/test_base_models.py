"""Base models in the cache: built once, named after their inputs, and rebuilt if a file has changed."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, GptOssConfig

from tests.support.small_runs import SMALL, last_line
from tltrain.config import Model
from tltrain.errors import TltrainError
from tltrain.models import loading
from tltrain.runtime import fingerprints, manifests, runs

SIZES = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "vocab_size": 300,
}


def made(cache: Path) -> Path:
    return loading._at_random(SIZES, ["some text"], cache, "tiny")


def flip(file: Path) -> None:
    """Change a byte without changing size or time."""
    stat, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    fingerprints._of_file.cache_clear()  # as in another process


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (lambda folder: flip(folder / "model.safetensors"), "model.safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda folder: manifests.beside(folder).unlink(), None),
        (lambda folder: manifests.beside(folder).write_text("[1]"), None),
    ],
    ids=["altered", "missing", "no manifest", "another manifest"],
)
def test_a_changed_model_is_built_again_with_one_log_line(tmp_path, caplog, damage, name):
    folder = made(tmp_path)
    before = (folder / "model.safetensors").read_bytes()
    damage(folder)
    with caplog.at_level(logging.WARNING, "tltrain"):
        assert made(tmp_path) == folder
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder} is created again: {name or manifests.beside(folder).name} has changed since it was written"
    ]
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list((tmp_path / "models").glob(".*.part"))


def test_an_intact_model_is_not_built_again(tmp_path, monkeypatch):
    folder = made(tmp_path)
    monkeypatch.setattr(loading, "_make", lambda *given: pytest.fail("made again"))
    assert made(tmp_path) == folder


def test_a_copy_of_a_base_model_may_be_changed(tmp_path):
    copied = shutil.copytree(made(tmp_path), tmp_path / "mine")
    (copied / "tokenizer_config.json").write_text("{}")
    manifests.check(copied)


def test_other_libraries_make_another_model(tmp_path, monkeypatch):
    folder = made(tmp_path)
    monkeypatch.setattr(fingerprints, "version", lambda name: "9")
    assert made(tmp_path) != folder


def test_weights_of_an_entry_are_checked_before_they_are_read(tmp_path, tltrain, monkeypatch):
    """This also holds if a run names their path and does not ask the cache."""
    entry = tmp_path / "pkt-0123456789abcdef"
    entry.mkdir()
    made(tmp_path).rename(entry / "model")
    names = [file.relative_to(entry).as_posix() for file in fingerprints.files(entry)]
    runs.write_json(entry / "entry.json", {"files": manifests.of_files(entry, names)})
    manifests.check(entry / "model")
    (tmp_path / "link").symlink_to(entry)
    flip(entry / "model" / "model.safetensors")
    words = ["stage=eval", *SMALL, "benchmark.size=1", f"model.path={tmp_path / 'link' / 'model'}"]
    line = last_line(tltrain(*words, status=1))
    assert line.startswith(
        f"{tmp_path / 'link' / 'model'}: model/model.safetensors has changed since it was written: repeat the command"
    )


def test_only_what_is_read_of_an_entry_is_checked(tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("model/weights", "metrics.json"):
        (tmp_path / name).write_text("one")
    runs.write_json(tmp_path / "entry.json", {"files": manifests.of_files(tmp_path, ["model/weights", "metrics.json"])})
    (tmp_path / "metrics.json").write_text("another")
    manifests.check(tmp_path / "model")
    for read in (tmp_path, tmp_path / "metrics.json"):
        with pytest.raises(TltrainError, match=r"metrics\.json has changed since it was written"):
            manifests.check(read)
    manifests.check(tmp_path / "no" / "such")


def test_an_attention_that_the_model_does_not_have_is_refused_with_one_that_it_has(tmp_path):
    config = GptOssConfig(**SIZES, head_dim=8, num_local_experts=2, num_experts_per_tok=1, sliding_window=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    settings = OmegaConf.structured(Model)
    with pytest.raises(TltrainError, match=r"has no attention of torch's sdpa: model.attn_implementation=eager"):
        loading.load_model(str(tmp_path), settings, torch.float32, torch.device("cpu"))
    settings.attn_implementation = "eager"
    loaded = loading.load_model(str(tmp_path), settings, torch.float32, torch.device("cpu"))
    assert loaded.config._attn_implementation == "eager"
