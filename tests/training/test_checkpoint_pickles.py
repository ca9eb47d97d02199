"""A checkpoint may contain only tensors and plain values."""

from __future__ import annotations

import os
from pickle import UnpicklingError

import pytest
import torch

from tests.support.traps import trap
from tltrain.training.checkpoints import tensors_only


def test_while_a_checkpoint_is_read_no_library_runs_code_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    before = dict(os.environ)
    (tmp_path / "hostile.pt").write_bytes(trap(tmp_path / "trap"))
    torch.save({"weights": torch.ones(2), "names": {"a"}}, tmp_path / "own.pt")
    with tensors_only():
        with pytest.raises(UnpicklingError):
            torch.load(tmp_path / "hostile.pt", weights_only=False)  # as DeepSpeed calls it
        assert torch.load(tmp_path / "own.pt", weights_only=False)["names"] == {"a"}
    assert not (tmp_path / "trap").exists()
    assert dict(os.environ) == before
