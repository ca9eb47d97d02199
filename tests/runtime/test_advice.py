"""The advice after a stop fits the entry point that was started: a stage, a pipeline, the demo or a sweep."""

from __future__ import annotations

import errno
import os

import pytest

from tests.support.composition import quick
from tests.support.small_runs import SMALL
from tltrain.entry import launch
from tltrain.runtime import advice


@pytest.fixture
def full(monkeypatch):
    """Make every training find the disk full."""

    def no_space(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/folder/file")

    resolve = launch.resolve
    names = ("tltrain.stages.supervised:run", "tltrain.stages.mae:run")
    monkeypatch.setattr(launch, "resolve", lambda name: no_space if name in names else resolve(name))


GOES_ON = "whatever was complete is kept, and the same command continues from it"
RESUMES = "whatever was complete is kept, and the same command with stage.resume=true continues from it"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage=sft"], RESUMES),
        (["stage=pipeline"], GOES_ON),
        (["stage=demo"], "whatever was complete is kept, and the same command starts the demo again"),
        (["stage=mae"], "whatever was complete is kept, and the same command makes the rest again"),
        (["-m", "stage=pipeline", "seed=0,1", "hydra.sweep.dir={}"], GOES_ON),
        (["-m", "stage=sft", "seed=0,1", "hydra.sweep.dir={}"], RESUMES),
    ],
    ids=["stage", "pipeline", "demo", "stage without checkpoints", "sweep of pipelines", "sweep of stages"],
)
def test_a_full_disk(tltrain, tmp_path, full, words, said):
    words = [word.format(tmp_path / "sweep") for word in words]
    small = () if words == ["stage=mae"] else SMALL  # it uses no model
    ran = tltrain(*words, *small, f"cache.dir={tmp_path / 'cache'}", status=1)
    lines = [line for line in ran.err.splitlines() if line.startswith("the disk is full")]
    assert lines and all(line.endswith(said) for line in lines)


def test_the_folder_is_named_where_the_command_did_not(monkeypatch, tmp_path):
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    from tltrain import config

    config.register()
    for given, expected in (
        ([], f"stage.resume=true hydra.run.dir={tmp_path / 'run'} continues"),
        ([f"hydra.run.dir={tmp_path / 'run'}"], "stage.resume=true continues"),
        (["hydra.mode=MULTIRUN", f"hydra.sweep.dir={tmp_path / 'all'}"], "stage.resume=true continues"),
        (["hydra.mode=MULTIRUN"], "stage.resume=true hydra.sweep.dir=outputs/sweep/"),
    ):
        with quick(), initialize_config_dir(str(config.CONF_DIR), version_base="1.3", job_name="tltrain"):
            words = ["stage=sft", *given, f"hydra.runtime.output_dir={tmp_path / 'run'}"]
            cfg = compose("config", words, return_hydra_config=True)
        monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
        with advice.running(cfg):
            assert expected in advice.to_go_on(), given


def test_without_a_known_entry_point_both_commands_are_named():
    assert advice.to_go_on() == "the same command continues from it (for a single stage, with stage.resume=true)"
