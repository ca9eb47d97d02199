"""All files of a run can be read by those whom the umask allows: a server under another user reads `model/`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.small_runs import FEW, SMALL
from tltrain.models import loading

pytestmark = pytest.mark.slow


@pytest.fixture(params=[0o027], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def others(folder: Path, umask: int) -> dict[str, str]:
    """Return the files and folders below `folder` whose permissions are not those that the umask leaves."""
    wrong = {}
    for path in folder.rglob("*"):
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        if not path.is_symlink() and (mode := path.stat().st_mode & 0o777) != wanted and path.name != ".lock":
            wrong[str(path.relative_to(folder))] = oct(mode)
    return wrong


def test_a_training_leaves_files_that_others_may_read(tltrain, umask):
    checkpoints = ("stage.keep_checkpoints=true", "stage.args.save_steps=1")
    trained = tltrain("stage=sft", *SMALL, "data.size=6", "data.holdout=0.2", "stage.args.max_steps=1", *checkpoints)
    assert (trained.folder / "model" / "model.safetensors").is_file() and others(trained.folder, umask) == {}
    learned = ("stage=irm", f"model.path={trained.folder / 'model'}", "stage.critic.save=true", *FEW, *checkpoints)
    ran = tltrain(*learned, "hardware.bf16=false", "stage.args.max_steps=1")
    assert (ran.folder / "critic").is_dir() and others(ran.folder, umask) == {}


@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct, indirect=True)
def test_a_base_model_of_the_cache_may_be_read_by_others(tltrain, tmp_path, umask):
    made = loading._at_random(
        {"vocab_size": 300, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1},
        ["a text"],
        tmp_path,
        "small",
    )
    assert (made / "model.safetensors").is_file() and others(tmp_path / "models", umask) == {}
