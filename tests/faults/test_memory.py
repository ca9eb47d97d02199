"""Too little memory: one line says which keys to lower."""

from __future__ import annotations

import errno

import pytest
import torch
from omegaconf import OmegaConf

from tests.support.small_runs import ALGORITHMS, FEW, SMALL
from tltrain.errors import TltrainError
from tltrain.runtime import out_of_space
from tltrain.stages.evaluations import single_turn
from tltrain.training.sft import TurnTrainer

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1 GiB is free."


def raising(error: BaseException):
    def fail(*args, **kwargs):
        raise error

    return fail


def allocate_a_petabyte(*args, **kwargs):
    torch.empty(1 << 50)


def last_line(ran) -> str:
    assert "Traceback" not in ran.err
    return ran.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (raising(torch.OutOfMemoryError(CUDA)), "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
        (raising(MemoryError()), "MemoryError"),
        (allocate_a_petabyte, "can't allocate memory"),
    ],
    ids=["device", "Python", "torch on a CPU"],
)
def test_of_a_training(tltrain, monkeypatch, failure, said):
    monkeypatch.setattr(TurnTrainer, "compute_loss", failure)
    ran = tltrain("stage=pkt", *SMALL, "data.size=6", status=1)
    line = last_line(ran)
    assert line.startswith("out of memory (") and said in line
    for key in (
        "stage.args.per_device_train_batch_size",
        "stage.args.max_length",
        "gradient_checkpointing",
        "stage=plan",
    ):
        assert key in line
    assert (ran.folder / "error.txt").read_text() == line + "\n"


def test_of_irm_names_its_own_keys(tltrain, monkeypatch):
    monkeypatch.setattr("tltrain.training.rollout.sample", raising(torch.OutOfMemoryError(CUDA)))
    line = last_line(tltrain("stage=irm", *SMALL, *FEW, *ALGORITHMS["ppo"], "stage.critic.init=random", status=1))
    assert "stage.generation_batch_size, stage.max_new_tokens" in line and "stage.max_prompt_length" in line


def test_of_an_evaluation(tltrain, monkeypatch):
    monkeypatch.setattr(single_turn.benchmarks, "load", raising(MemoryError()))
    assert last_line(tltrain("stage=eval", "source=golden", status=1)).endswith(
        "lower stage.batch_size, stage.max_new_tokens, or set model.dtype=bfloat16"
    )


def test_other_errors_are_left_as_they_are():
    cfg = OmegaConf.create({"stage": {"name": "sft"}})
    for error in (RuntimeError("shapes differ"), ValueError("x"), TltrainError("mine"), OSError(errno.ENOENT, "no")):
        with pytest.raises(type(error)) as caught, out_of_space.explained(cfg):
            raise error
        assert caught.value is error
