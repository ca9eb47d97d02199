"""Where wandb's runs are stored: what there is to upload, and which run a job continues."""

from __future__ import annotations

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from tltrain.tracking import wandb_folders


@pytest.fixture
def mode(tmp_path, monkeypatch):
    """`mode(name)`: pretend that Hydra runs in this mode, in `tmp_path / name`."""

    def pretend(name: str) -> None:
        from hydra.types import RunMode

        hydra = {"mode": RunMode[name], "sweep": {"dir": str(tmp_path / name)}}
        hydra["runtime"] = {"output_dir": str(tmp_path / name)}
        monkeypatch.setattr(HydraConfig, "get", staticmethod(lambda: OmegaConf.create(hydra)))

    return pretend


def test_only_a_resumed_job_and_a_job_of_a_sweep_continue_a_run(tmp_path, mode):
    fresh, resumed = (OmegaConf.create({"stage": {"resume": resume}}) for resume in (False, True))
    mode("RUN")
    assert wandb_folders.earlier_id(resumed, tmp_path) is None  # nothing is recorded
    wandb_folders.record_id(tmp_path, "abc123")
    assert wandb_folders.earlier_id(resumed, tmp_path) == "abc123"
    assert wandb_folders.earlier_id(fresh, tmp_path) is None
    mode("MULTIRUN")
    assert wandb_folders.earlier_id(fresh, tmp_path) == "abc123"
    (tmp_path / wandb_folders.ID_FILE).write_text("../../no id")
    assert wandb_folders.earlier_id(fresh, tmp_path) is None


@pytest.mark.parametrize("name", ["RUN", "MULTIRUN"])
def test_one_folder_has_all_runs(tmp_path, mode, name):
    mode(name)
    assert wandb_folders.home() == tmp_path / name


def test_there_is_something_to_upload_until_it_is_uploaded(tmp_path):
    assert not wandb_folders.to_sync(tmp_path)
    folder = tmp_path / "wandb" / "offline-run-1-a"
    folder.mkdir(parents=True)
    (folder / "run-a.wandb").touch()
    assert wandb_folders.to_sync(tmp_path)
    (folder / "run-a.wandb.synced").touch()
    assert not wandb_folders.to_sync(tmp_path)


def test_a_line_can_be_pasted_whatever_the_folder_is_called(tmp_path):
    assert wandb_folders.sync_command(tmp_path / "a b") == f"wandb sync '{tmp_path}/a b/wandb'"
